"""Exactly once: a call has one outcome, whoever asks for it, however often, from wherever."""

import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from apiary import App, InternalError, KeyReused, OpenApp, Rejected, Transaction, WrongArguments
from apiary.runtime.ids import new_id

TABLES = "create table counters (name text primary key, value integer not null); insert into counters values ('a', 0);"


def counting_app(folder: Path) -> App:
    """The app of these tests; `folder` is where its actions leave traces in the outside world."""
    app = App("counting", migrations=folder / "migrations")

    @app.transaction
    def add(tx: Transaction, by: int = 1, label: str = "") -> int:
        tx.execute("update counters set value = value + :by", by=by)
        return tx.execute("select value from counters").scalar()

    @app.transaction
    def add_and_refuse(tx: Transaction, by: int = 1) -> int:
        value = add(tx, by)
        raise Rejected("no", code="no", seen=value)

    @app.transaction
    def add_and_fail(tx: Transaction, by: int = 1) -> int:
        add(tx, by)
        raise ValueError(f"a mistake in {tx.id}")

    @app.query
    def value(tx: Transaction, by: int = 1) -> int:
        return tx.execute("select value from counters").scalar()

    @app.action
    def act(by: int = 1) -> str:
        with open(folder / "outside", "a") as outside:
            outside.write("x")
        return f"{os.getpid()} {new_id().hex()}"

    @app.action
    def act_and_refuse(by: int = 1) -> str:
        act(by)
        raise Rejected("no", code="no", seen=new_id().hex())

    @app.action
    def act_and_fail(by: int = 1) -> str:
        act(by)
        raise ValueError("a mistake")

    return app


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "001.sql").write_text(TABLES)
    return tmp_path


@pytest.fixture
def opened(folder, engine_app) -> OpenApp:
    return engine_app(counting_app(folder))


@pytest.fixture
def calls(opened, platform):
    return platform(opened)


def effects(opened: OpenApp, folder: Path) -> int:
    """How often anything took effect, in the database or outside."""
    outside = folder / "outside"
    return opened.call("value") + (len(outside.read_text()) if outside.exists() else 0)


SUCCEED = ["add", "value", "act"]
REFUSE = ["add_and_refuse", "act_and_refuse"]
FAIL = ["add_and_fail", "act_and_fail"]
RUNS = {"add": 1, "act": 1, "act_and_refuse": 1, "act_and_fail": 1}


@pytest.mark.parametrize("function", [*SUCCEED, *REFUSE, *FAIL])
def test_a_key_has_one_outcome_for_ever(function, opened, calls, folder):
    first = calls.run(function, key="k")
    again = [calls.run(function, key="k") for _ in range(3)]
    assert not first.replayed
    assert all(one.replayed and one.output == first.output and one.error == first.error for one in again)
    assert effects(opened, folder) == RUNS.get(function, 0)


@pytest.mark.parametrize("function", [*SUCCEED, *REFUSE, *FAIL])
def test_a_key_has_one_outcome_after_the_app_was_opened_again(function, folder, engine_app, platform):
    first_app = engine_app(counting_app(folder))
    first = platform(first_app).run(function, key="k")
    first_app.close()
    second_app = engine_app(counting_app(folder))
    again = platform(second_app).run(function, key="k")
    assert again.replayed
    assert (again.output, again.error) == (first.output, first.error)
    assert effects(second_app, folder) == RUNS.get(function, 0)


@pytest.mark.parametrize("function", [*SUCCEED, *REFUSE, *FAIL])
def test_the_same_key_at_the_same_time_runs_once(function, opened, calls, folder, together):
    outcomes = together(lambda _: calls.run(function, key="k"), range(12))
    assert len({(one.output, json.dumps(one.error)) for one in outcomes}) == 1
    assert [one.replayed for one in outcomes].count(None) == 1
    assert effects(opened, folder) == RUNS.get(function, 0)


@pytest.mark.parametrize("function", [*SUCCEED, *REFUSE, *FAIL])
def test_the_same_id_again_is_the_same_call(function, opened, calls, folder):
    identifier = new_id()
    first = calls.run(function, id=identifier)
    again = calls.run(function, id=identifier)
    assert (again.output, again.error) == (first.output, first.error)
    assert effects(opened, folder) == RUNS.get(function, 0)


def test_the_same_key_in_one_batch_runs_once(opened, calls, folder):
    pending = [calls.submit("add", key="k") for _ in range(50)]
    assert {one.outcome().output for one in pending} == {b"1"}
    assert effects(opened, folder) == 1


@pytest.mark.parametrize("key", ["k", "", "ключ 🔑", "x" * 1999])
def test_keys_may_be_any_text(calls, key):
    assert calls.run("add", key=key).output == b"1"
    assert calls.run("add", key=key).output == b"1"
    assert calls.run("add", key=key + "!").output == b"2"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("add", '{"by": 1}'), ("add", '{"by": 2}')),
        (("add", '{"by": 1}'), ("add", '{"by": 1, "label": "x"}')),
        (("add", '{"by": 1}'), ("value", '{"by": 1}')),
        (("value", '{"by": 1}'), ("add", '{"by": 1}')),
        (("add", '{"by": 1}'), ("act", '{"by": 1}')),
        (("act", '{"by": 1}'), ("act", '{"by": 2}')),
        (("act", '{"by": 1}'), ("add", '{"by": 1}')),
        (("add_and_fail", '{"by": 1}'), ("add_and_fail", '{"by": 2}')),
    ],
)
def test_a_key_is_not_for_another_call(calls, opened, folder, first, second):
    original = calls.run(*first, key="k")
    before = effects(opened, folder)
    refused = calls.run(*second, key="k")
    assert refused.error["code"] == KeyReused.code
    assert refused.error["status"] == 422
    assert effects(opened, folder) == before
    again = calls.run(*first, key="k")
    assert (again.output, again.error) == (original.output, original.error)


@pytest.mark.parametrize("function", ["add", "act", "value"])
def test_the_same_arguments_in_another_form_are_the_same_call(calls, function):
    body = '{"by": 3, "label": "é"}' if function == "add" else '{"by": 3}'
    first = calls.run(function, body, key="k")
    reordered = '{"label":"\\u00e9","by":3}' if function == "add" else '{  "by":\n3 }'
    assert calls.run(function, reordered, key="k").output == first.output
    assert first.error is None


def test_a_query_string_is_the_call_that_it_means(calls):
    first = calls.run("value", '{"by": ["3"]}', key="k", lax=True)
    assert calls.run("value", '{"by": 3}', key="k").output == first.output
    assert calls.run("value", '{"by": ["3"]}', key="k", lax=True).replayed
    assert calls.run("value", '{"by": ["4"]}', key="k", lax=True).error["code"] == KeyReused.code


@pytest.mark.parametrize("function", ["add", "act", "value"])
@pytest.mark.parametrize("body", ['{"by": "x"}', '{"buy": 1}', "[]", "no json", "", b"\xff"])
def test_wrong_arguments_do_not_use_up_a_key(calls, opened, folder, function, body):
    wrong = calls.run(function, body, key="k")
    if body == "":
        assert wrong.error is None
        return
    assert wrong.error["code"] == WrongArguments.code
    assert calls.run(function, key="k").error is None
    assert effects(opened, folder) == RUNS.get(function, 0)


def test_a_call_that_nobody_may_make_does_not_use_up_a_key(make_app, engine_app, platform):
    app = make_app()

    @app.transaction(roles=["boss"])
    def order(tx: Transaction) -> int:
        return 1

    calls = platform(engine_app(app))
    assert calls.run("order", key="k", roles=()).error["code"] == "forbidden"
    assert calls.run("order", key="k", roles={"boss"}).output == b"1"


def test_a_deadline_is_no_outcome(make_app, engine_app, platform):
    app = make_app("create table t (x integer)")
    patient = False

    @app.transaction(timeout=0.5)
    def slow(tx: Transaction) -> int:
        tx.execute("insert into t (x) values (1)")
        while not patient:
            pass
        return tx.execute("select count(*) from t").scalar()

    @app.action(timeout=0.05)
    def slow_action() -> int:
        while not patient:
            pass
        return 1

    calls = platform(engine_app(app))
    for function in ("slow", "slow_action"):
        patient = False
        assert calls.run(function, key=function).error["code"] == "deadline_exceeded"
        patient = True
        assert calls.run(function, key=function).output == b"1"
        assert calls.run(function, key=function).replayed


def test_a_replayed_failure_is_the_same_exception(opened):
    for function, kind in [("add_and_refuse", Rejected), ("add_and_fail", InternalError)]:
        seen = []
        for _ in range(2):
            with pytest.raises(kind) as raised:
                opened.call(function, idempotency_key=function)
            seen.append((raised.value.code, raised.value.message, raised.value.details, raised.value.call_id))
        assert seen[0] == seen[1]


def test_the_record_tells_the_call(calls):
    pending = calls.submit("add_and_fail", '{"by": 4}', key="k")
    error = pending.outcome().error
    record = calls.dispatcher.engine.find(pending.call.id, None)
    assert (record.function, record.kind, record.status, record.caller) == (
        "add_and_fail",
        "transaction",
        "failed",
        "tester",
    )
    assert (record.input, record.output, record.key) == (b'{"by": 4}', None, "k")
    assert json.loads(record.nested)[0]["function"] == "add"
    kept = json.loads(record.error)
    traceback = kept.pop("traceback")
    assert kept == error
    assert "a mistake in" in traceback
    assert "apiary/runtime" not in traceback


def test_a_repeated_key_does_not_run_the_function_again(make_app, engine_app, platform):
    app = make_app("create table ran (x integer)")
    runs = []

    @app.transaction(timeout=0.5)
    def once(tx: Transaction) -> str:
        runs.append(1)
        while tx.execute("select count(*) from ran").scalar():
            pass
        tx.execute("insert into ran values (1)")
        return "done"

    calls = platform(engine_app(app))
    first, again = calls.run("once", key="k"), calls.run("once", key="k")
    assert (first.output, again.output, runs) == (b'"done"', b'"done"', [1])


def test_a_repeated_key_has_its_outcome_though_the_arguments_no_longer_fit(tmp_path, make_app, engine_app, platform):
    old, new = make_app(), make_app()

    @old.transaction
    def put(tx: Transaction) -> int:
        return 1

    def changed(tx: Transaction, wanted: int) -> int:
        return wanted

    changed.__name__ = "put"
    new.transaction(changed)
    first = engine_app(old)
    assert platform(first).run("put", key="k").output == b"1"
    first.close()
    assert platform(engine_app(new)).run("put", key="k").output == b"1"


def test_a_repeated_key_has_its_outcome_though_the_function_is_gone(make_app, engine_app, platform):
    old, new = make_app(), make_app()

    @old.transaction
    def put(tx: Transaction, x: int) -> int:
        return x

    @old.transaction
    def refuse(tx: Transaction) -> None:
        raise Rejected("no", code="mine")

    @old.action
    def act(secret: SecretStr) -> str:
        return "acted"

    first = engine_app(old)
    done = [
        platform(first).run("put", '{"x": 1}', key="a"),
        platform(first).run("refuse", key="b"),
        platform(first).run("act", '{"secret": "s"}', key="c"),
    ]
    first.close()
    calls = platform(engine_app(new))
    again = [calls.run("put", '{ "x":1 }', key="a"), calls.run("refuse", key="b")]
    again.append(calls.run("act", '{"secret": "s"}', key="c"))
    assert [(outcome.output, outcome.error) for outcome in again] == [
        (outcome.output, outcome.error) for outcome in done
    ]
    assert all(outcome.replayed for outcome in again)
    assert calls.run("put", '{"x": 2}', key="a").error["code"] == "idempotency_key_reused"
    assert calls.run("put", "[[", key="a").error["code"] == "idempotency_key_reused"
    assert calls.run("refuse", key="a").error["code"] == "idempotency_key_reused"
    for key in (None, "new", "new"):
        assert calls.run("put", '{"x": 1}', key=key).error["code"] == "unknown_function"


@pytest.mark.parametrize("body", [b"\x00", b"", b"[]", b"\xff", b'{"by": 1', b"[" * 5000])
def test_a_used_key_with_a_body_that_is_none_is_refused(opened, platform, body):
    calls = platform(opened)
    assert calls.run("add", '{"by": 1}', key="k").error is None
    refused = calls.run("add", body, key="k").error
    assert refused["code"] in ("wrong_arguments", "idempotency_key_reused")


def test_the_key_of_an_action_answers_only_those_who_may_call_it(make_app, engine_app, platform):
    app = make_app()

    @app.action(roles=["boss"])
    def act() -> int:
        return 42

    calls = platform(engine_app(app))
    assert calls.run("act", key="k", roles={"boss"}).output == b"42"
    assert calls.run("act", key="k", roles=()).error["code"] == "forbidden"
    assert calls.run("act", key="k", roles={"boss"}).replayed


def test_a_key_answers_its_own_caller(make_app, engine_app, platform):
    """Though the function is open to all: what is inside may not be, and the outcome depends on who called."""
    app = make_app()

    @app.transaction(roles=["boss"])
    def inner(tx: Transaction) -> str:
        return tx.caller

    @app.transaction
    def open_to_all(tx: Transaction) -> str:
        return inner(tx)

    @app.action
    def open_action() -> int:
        return 1

    opened = engine_app(app)
    zoe, eve = platform(opened, caller="zoe"), platform(opened, caller="eve")
    for function, output in (("open_to_all", b'"zoe"'), ("open_action", b"1")):
        assert zoe.run(function, key=function, roles={"boss"}).output == output
        for body in ("{}", '{"wrong": 1}'):
            refused = eve.run(function, body, key=function, roles={"boss"})
            assert (refused.error["code"], refused.replayed) == ("forbidden", None)
            assert "zoe" not in str(refused.error)
        assert zoe.run(function, key=function, roles={"boss"}).replayed
        assert eve.run(function, key=function, roles={"admin"}).output == output


def test_the_outcome_of_a_function_that_is_gone_is_for_its_caller(make_app, engine_app, platform):
    old, new = make_app(), make_app()

    @old.transaction(roles=["boss"])
    def put(tx: Transaction) -> int:
        return 1

    first = engine_app(old)
    assert platform(first, caller="ada").run("put", key="k", roles={"boss"}).output == b"1"
    first.close()
    opened = engine_app(new)
    assert platform(opened, caller="eve").run("put", key="k", roles={"boss"}).error["code"] == "forbidden"
    assert platform(opened, caller="ada").run("put", key="k", roles=()).output == b"1"
    assert platform(opened, caller="eve").run("put", key="k", roles={"admin"}).output == b"1"
