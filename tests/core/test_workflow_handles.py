"""Workflows as those reach them who start them in their own process: handles, messages, control, what the log tells.

On both engines. What a workflow itself can do has tests of its own.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from apiary import (
    App,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    InternalError,
    KeyReused,
    Nondeterministic,
    NotFound,
    Rejected,
    RuleBroken,
    Transaction,
    Unavailable,
    Workflow,
    WrongArguments,
)
from apiary.log.workflows import workflow_end, workflows

TABLES = "create table effects (key text not null, n integer not null)"
SECONDS = 20.0


class Gates:
    """What the app of these tests is told from outside: one whose workflows change their mind, actions that wait."""

    def __init__(self) -> None:
        self.changed = False
        self.began = threading.Event()
        self.go_on = threading.Event()


@pytest.fixture
def gates():
    gates = Gates()
    yield gates
    gates.go_on.set()


@pytest.fixture
def app(make_app, gates) -> App:  # noqa: C901 - many small functions
    app = make_app(TABLES)

    @app.transaction
    def put(tx: Transaction, key: str, n: int = 1) -> int:
        tx.execute("insert into effects (key, n) values (:key, :n)", key=key, n=n)
        return n

    @app.transaction
    def unput(tx: Transaction, n: int) -> None:
        tx.execute("insert into effects (key, n) values ('undone', :n)", n=n)

    @app.query
    def keys(tx: Transaction) -> list[str]:
        return tx.execute("select key from effects order by key").scalars()

    @app.action
    def outside(x: int) -> int:
        gates.began.set()
        gates.go_on.wait(SECONDS)
        return x + 1

    @app.workflow
    def five(wf: Workflow, key: str) -> int:
        return sum(wf.run(put, key, n) for n in range(5))

    @app.workflow
    def reads(wf: Workflow) -> int:
        return len(wf.run(keys))

    @app.workflow
    def when(wf: Workflow, at: datetime) -> datetime:
        return at

    @app.workflow
    def approval(wf: Workflow, key: str = "order") -> Any:
        wf.run(put, key, 7, undo=unput)
        wf.publish("state", {"waits": True})
        answer = wf.receive("answer")
        wf.publish("state", {"waits": False})
        return answer

    @app.workflow
    def patient(wf: Workflow) -> Any:
        return wf.receive("never", timeout=3600)

    @app.workflow
    def sleeper(wf: Workflow) -> None:
        wf.sleep(3600)

    @app.workflow
    def acting(wf: Workflow) -> int:
        return wf.run(outside, 1)

    @app.workflow
    def parent(wf: Workflow) -> Any:
        child = wf.start(approval, "child")
        wf.run(put, "parent")
        return child.result()

    @app.workflow
    def refusing(wf: Workflow) -> None:
        wf.run(put, "tried", 3, undo=unput)
        raise Rejected("not today", code="not_today", day="monday")

    @app.workflow
    def failing(wf: Workflow) -> None:
        raise LookupError("a mistake of the app")

    @app.workflow
    def shifty(wf: Workflow) -> str:
        wf.run(put, "later" if gates.changed else "sooner", 4, undo=unput)
        wf.receive("go")
        return "done"

    @app.workflow(timeout=0.3)
    def short(wf: Workflow) -> None:
        wf.sleep(3600)

    @app.workflow
    def with_short(wf: Workflow) -> None:
        wf.run(short)

    @app.workflow(roles=["clerk"])
    def for_clerks(wf: Workflow) -> str:
        return wf.caller

    @app.transaction
    def order(tx: Transaction, key: str, fail: bool = False) -> str:
        put(tx, key)
        started = tx.enqueue(approval, key=f"{key}-approval")
        if fail:
            raise Rejected("no")
        return started

    @app.transaction
    def order_short(tx: Transaction) -> str:
        return tx.enqueue(short)

    @app.transaction
    def order_clerk(tx: Transaction) -> str:
        return tx.enqueue(for_clerks)

    @app.transaction
    def answer(tx: Transaction, workflow: str, value: Any, fail: bool = False) -> None:
        tx.send(workflow, "answer", value)
        if fail:
            raise Rejected("no")

    @app.transaction
    def answer_wrongly(tx: Transaction, workflow: str, how: str) -> None:
        if how == "topic":
            tx.send(workflow, "", 1)
        else:
            tx.send(workflow, "answer", float("nan"))

    @app.query
    def answer_in_a_query(tx: Transaction, workflow: str) -> None:
        tx.send(workflow, "answer", 1)

    return app


@pytest.fixture
def opened(app, engine_app):
    return engine_app(app)


def eventually(condition, what=""):
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, what or condition
        time.sleep(0.005)
    return found


def settled(handle, *states: str) -> str:
    """The status of a workflow, once it is one of these."""
    wanted = states or ("waiting",)
    return eventually(lambda: (status := handle.status()) in wanted and status, f"{wanted}")


def test_a_workflow_is_started_and_its_result_is_waited_for(opened, app):
    handle = opened.start("approval", key="a")
    assert settled(handle) == "waiting"
    handle.send("answer", {"yes": [1, None]})
    assert handle.result(SECONDS) == {"yes": [1, None]}
    assert handle.status() == "ok"
    assert opened.workflow(handle.id).result(SECONDS) == {"yes": [1, None]}
    assert opened.call("keys") == ["a"]


def test_results_have_the_types_that_are_declared(opened, app):
    at = datetime.fromisoformat("2026-11-24T08:30:00+00:00")
    handle = opened.start(app.functions["when"], at)
    assert handle.result(SECONDS) == at
    assert opened.workflow(handle.id).result(SECONDS) == at


def test_a_result_is_waited_for_as_long_as_wanted(opened):
    handle = opened.start("approval")
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="goes on"):
        handle.result(0.1)
    with pytest.raises(TimeoutError):
        handle.result(0)
    assert time.monotonic() - began < SECONDS
    for nonsense in (float("nan"), "5", True):
        with pytest.raises(WrongArguments, match="a timeout is a number of seconds"):
            handle.result(nonsense)
    got: list[Any] = []
    waiting = [threading.Thread(target=lambda: got.append(handle.result(SECONDS))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    handle.send("answer", 5)
    for thread in waiting:
        thread.join(SECONDS)
    assert got == [5, 5, 5]


@pytest.mark.parametrize(
    ("function", "kind", "status"),
    [("refusing", Rejected, "rejected"), ("failing", InternalError, "failed")],
)
def test_what_a_workflow_raises_is_raised_whenever_its_result_is_asked_for(opened, function, kind, status):
    handle = opened.start(function)
    for _ in range(2):
        with pytest.raises(kind) as raised:
            handle.result(SECONDS)
    assert handle.status() == status
    assert raised.value.call_id == handle.id
    if status == "rejected":
        assert (raised.value.code, raised.value.details) == ("not_today", {"day": "monday"})
        assert opened.call("keys") == ["tried", "undone"]
    assert "traceback" not in raised.value.details


def test_a_key_begins_one_workflow(opened):
    first = opened.start("approval", key="a", idempotency_key="k")
    again = opened.start("approval", key="a", idempotency_key="k")
    assert first.id == again.id
    with pytest.raises(KeyReused):
        opened.start("approval", key="b", idempotency_key="k")
    first.send("answer", 1)
    assert opened.call("approval", key="a", idempotency_key="k") == 1
    assert opened.start("approval", key="a", idempotency_key="k").id == first.id
    with pytest.raises(KeyReused):
        opened.start("approval", key="b", idempotency_key="k")
    assert opened.call("keys") == ["a"]


@pytest.mark.parametrize(("function", "given"), [("put", {"key": "b"}), ("keys", {}), ("outside", {"x": 1})])
def test_the_key_of_an_open_workflow_is_not_for_other_functions(opened, gates, function, given):
    gates.go_on.set()
    handle = opened.start("approval", key="a", idempotency_key="k")
    with pytest.raises(KeyReused) as refused:
        opened.call(function, idempotency_key="k", **given)
    assert refused.value.details["first_call_id"] == handle.id
    assert not gates.began.is_set()
    handle.send("answer", 1)
    assert handle.result(SECONDS) == 1
    assert opened.call("keys") == ["a"]


def test_an_action_whose_key_is_taken_meanwhile_is_recorded_all_the_same(opened, gates):
    with ThreadPoolExecutor(1) as threads:
        acting = threads.submit(opened.call, "outside", x=1, idempotency_key="k")
        assert gates.began.wait(SECONDS)
        handle = opened.start("approval", key="a", idempotency_key="k")
        gates.go_on.set()
        with pytest.raises(KeyReused, match="outside ran") as refused:
            acting.result(SECONDS)
    (ran,) = opened.log.calls(function="outside")
    assert (ran["id"], ran["status"]) == (refused.value.call_id, "ok")
    handle.send("answer", 1)
    assert handle.result(SECONDS) == 1
    assert opened.call("approval", key="a", idempotency_key="k") == 1


def test_of_a_failed_action_it_is_not_said_that_nothing_was_committed(make_app, engine_app, platform):
    app = make_app()

    @app.action(timeout=0.5)
    def failing(late: bool) -> None:
        if late:
            time.sleep(1.0)  # beyond its timeout
        raise LookupError("a mistake of the app")

    calls = platform(engine_app(app))
    for body, said in (('{"late": false}', "detail"), ('{"late": true}', "hint")):
        error = calls.run("failing", body).error
        assert "what it did outside of the database is not known" in error[said]
        assert "nothing was committed" not in str(error)


def test_only_workflows_are_started(opened, app):
    with pytest.raises(WrongArguments, match="no workflow"):
        opened.start("put", key="a")
    with pytest.raises(WrongArguments):
        opened.start("five")
    with pytest.raises(NotFound):
        opened.start("fvie")
    assert opened.call("keys") == []


def test_a_workflow_is_not_started_where_that_would_wait_for_itself(make_app, engine_app):
    app = make_app()
    found: list[BaseException] = []

    def attempt() -> None:
        for function in (opened.call, opened.start):
            try:
                function("inner")
            except RuleBroken as error:
                found.append(error)

    @app.workflow
    def inner(wf: Workflow) -> None: ...

    @app.workflow
    def outer(wf: Workflow) -> None:
        attempt()

    @app.transaction
    def transaction(tx: Transaction) -> None:
        attempt()

    opened = engine_app(app)
    opened.call("outer")
    opened.call("transaction")
    assert len(found) == 4


def test_a_workflow_that_only_reads_is_found_as_soon_as_it_was_started(opened):
    for _ in range(20):
        handle = opened.start("reads")
        assert handle.status() == "ok"
        assert handle.result(SECONDS) == 0


def test_workflows_that_are_not_there(opened):
    for nothing in ("", " ", None, 5):
        with pytest.raises(WrongArguments, match="the id of a workflow is text"):
            opened.workflow(nothing)
    for identifier in ("0198f1c2-0000-7000-8000-000000000000", "x"):
        handle = opened.workflow(identifier)
        for what in (handle.status, handle.result, handle.cancel, handle.resume, handle.fork):
            with pytest.raises(NotFound):
                what()
        with pytest.raises(NotFound):
            handle.send("answer")
    opened.call("put", key="a", idempotency_key="k")
    call = opened.log.calls(function="put")[0]["id"]
    for what in (opened.workflow(call).status, opened.workflow(call).result, opened.workflow(call).fork):
        with pytest.raises(NotFound):
            what()


def test_a_workflow_that_has_ended_is_left_alone(opened):
    handle = opened.start("five", key="a")
    handle.result(SECONDS)
    for what in (handle.cancel, handle.resume, lambda: handle.send("answer", 1)):
        with pytest.raises(Conflict, match="has ended"):
            what()
    waiting = opened.start("approval")
    with pytest.raises(Conflict, match="not blocked"):
        waiting.resume()


def test_a_topic_is_short_and_printable(opened):
    handle = opened.start("approval")
    for topic in ("", "a\0b", "a\nb", "x" * 201, "\ud800", None):
        with pytest.raises(WrongArguments):
            handle.send(topic, 1)
    handle.send("answer", "fine")
    assert handle.result(SECONDS) == "fine"


def test_a_message_is_what_json_can_say(opened):
    handle = opened.start("approval")
    for value in (float("nan"), {"x": float("inf")}, object(), "\ud800", "x" * 2**21):
        with pytest.raises(WrongArguments):
            handle.send("answer", value)
    handle.send("answer", "fine\0")
    assert handle.result(SECONDS) == "fine\0"


def test_values_are_published_while_it_runs_and_stay(opened):
    handle = opened.start("approval")
    assert eventually(lambda: handle.published("state")) == {"waits": True}
    assert handle.published("other") is None
    handle.send("answer")
    assert handle.result(SECONDS) is None
    assert handle.published("state") == {"waits": False}


def test_a_cancelled_workflow_undoes_what_it_did(opened):
    handle = opened.start("approval", key="a")
    settled(handle)
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(SECONDS)
    assert handle.status() == "cancelled"
    assert opened.call("keys") == ["a", "undone"]
    shown = handle.show()
    assert [(step["function"], step["undo"]) for step in shown["steps"]] == [
        ("put", False),
        ("wf.publish", False),
        ("unput", True),
    ]
    assert (shown["error"]["code"], shown["code"]) == ("cancelled", "cancelled")


def test_what_a_workflow_does_is_shown(opened, gates):
    handle = opened.start("approval", key="a")
    settled(handle)
    shown = handle.show()
    put, publish, receive = shown["steps"]
    assert (put["function"], put["kind"], put["status"], put["attempt"]) == ("put", "transaction", "ok", 1)
    assert (put["input"], put["output"], put["error"]) == ({"key": "a", "n": 7}, 7, None)
    assert shown["started"] <= put["started"] <= publish["started"]
    assert put["duration"] >= 0
    assert (receive["kind"], receive["status"], receive["input"]) == ("receive", "waiting", {"topic": "answer"})
    assert shown["waits_for"] == {"for": "message", "topic": "answer", "until": None}
    assert (shown["input"], shown["result"], shown["ended"]) == ({"key": "a"}, None, None)
    handle.send("other", 1)
    assert handle.show()["messages"] == {"other": 1}
    handle.send("answer", "yes")
    handle.result(SECONDS)
    shown = handle.show()
    assert (shown["status"], shown["result"], shown["waits_for"]) == ("ok", "yes", None)
    assert shown["ended"] >= shown["started"]
    assert [step["output"] for step in shown["steps"]] == [7, None, "yes", None]
    assert shown["messages"] == {}


def test_what_a_workflow_waits_for_is_shown(opened, gates):
    before = time.time_ns() // 1000
    sleeper, patient = opened.start("sleeper"), opened.start("patient")
    settled(sleeper)
    settled(patient)
    for waits, kind in ((sleeper.show()["waits_for"], "time"), (patient.show()["waits_for"], "message")):
        assert waits["for"] == kind
        assert before + 3.5e9 < waits["until"] < before + 3.7e9
    acting = opened.start("acting")
    assert gates.began.wait(SECONDS)
    shown = acting.show()
    assert shown["status"] == "running"
    assert (shown["waits_for"]["for"], shown["waits_for"]["kind"]) == ("step", "action")
    gates.go_on.set()
    assert acting.result(SECONDS) == 2
    parent = opened.start("parent")
    settled(parent)
    shown = parent.show()
    child = shown["steps"][0]
    assert (child["function"], child["kind"], child["input"]) == ("approval", "workflow", {"key": "child"})
    assert shown["waits_for"] == {
        "for": "step", "step": 0, "kind": "workflow", "function": "approval", "id": child["id"],
    }  # fmt: skip
    settled(opened.workflow(child["id"]))
    opened.workflow(child["id"]).send("answer", 9)
    assert parent.result(SECONDS) == 9
    assert [step["output"] for step in parent.show()["steps"]] == [9, 1]


def test_steps_are_shown_in_pages(opened):
    handle = opened.start("five", key="a")
    handle.result(SECONDS)
    show = opened.workflow(handle.id)._workflows.show
    assert [step["step"] for step in show(handle.id, 2)["steps"]] == [0, 1]
    assert show(handle.id, 2)["more"] == 1
    assert show(handle.id, 100)["more"] is None


def test_workflows_are_listed(opened):
    five = [opened.start("five", key=str(n)) for n in range(3)]
    for handle in five:
        handle.result(SECONDS)
    waiting = opened.start("approval")
    refused = opened.start("refusing")
    parent = opened.start("parent")
    for handle in (waiting, parent):
        settled(handle)
    child = parent.show()["steps"][0]["id"]
    settled(opened.workflow(child))

    def listed(**filters: Any) -> list[str]:
        return [entry["id"] for entry in workflows(opened._log, **filters)]

    every = [handle.id for handle in (*five, waiting, refused, parent)]
    assert listed(roots=True) == every[::-1]
    assert set(listed()) == {*every, child}
    assert listed(function="five") == [handle.id for handle in five[::-1]]
    assert set(listed(status="waiting")) == {waiting.id, parent.id, child}
    assert listed(status="rejected") == [refused.id]
    assert listed(status="blocked") == listed(caller="nobody") == listed(function="none") == []
    assert set(listed(caller="local", status="ok")) == {handle.id for handle in five}
    assert listed(roots=True, limit=2) == every[:3:-1]
    assert listed(roots=True, limit=2, before=every[4]) == every[3:1:-1]
    assert listed(before=every[0]) == []
    with pytest.raises(WrongArguments, match="no workflow has the status"):
        listed(status="done")
    with pytest.raises(NotFound):
        listed(before="x")


def test_a_fork_goes_on_from_a_step(opened):
    handle = opened.start("five", key="a")
    assert handle.result(SECONDS) == 10
    fork = handle.fork(3)
    assert fork.id != handle.id
    assert fork.result(SECONDS) == 10
    assert fork.status() == "ok"
    assert opened.call("keys") == ["a"] * 7
    assert [step["step"] for step in fork.show()["steps"]] == [0, 1, 2, 3, 4]
    assert handle.fork().result(SECONDS) == 10
    assert opened.call("keys") == ["a"] * 7
    assert handle.fork(0).fork().result(SECONDS) == 10


def test_a_fork_wants_a_step(opened):
    handle = opened.start("five", key="a")
    handle.result(SECONDS)
    for step in (-1, 1.5, True, "x"):
        with pytest.raises(WrongArguments):
            handle.fork(step)


def test_a_fork_begins_again_what_had_no_outcome(opened):
    parent = opened.start("parent")
    settled(parent)
    child = opened.workflow(parent.show()["steps"][0]["id"])
    fork = parent.fork()
    settled(fork)
    steps = fork.show()["steps"]
    assert (steps[0]["id"], steps[0]["kind"]) != (child.id, "action")
    again = opened.workflow(steps[0]["id"])
    settled(again)
    again.send("answer", "again")
    assert fork.result(SECONDS) == "again"
    assert parent.status() == child.status() == "waiting"
    child.send("answer", "first")
    assert parent.result(SECONDS) == "first"
    assert opened.call("keys") == ["child", "child", "parent"]


def blocked(opened, gates):
    handle = opened.start("shifty")
    settled(handle)
    gates.changed = True
    handle.send("go")
    assert settled(handle, "blocked") == "blocked"
    return handle


def test_a_workflow_that_changed_is_blocked_until_it_is_mended(opened, gates):
    handle = opened.start("shifty")
    settled(handle)
    told: list[Nondeterministic] = []

    def wait() -> None:
        try:
            handle.result(SECONDS)
        except Nondeterministic as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    gates.changed = True
    handle.send("go")
    waiting.join(SECONDS)
    assert told[0].call_id == handle.id
    with pytest.raises(Nondeterministic):
        handle.result(SECONDS)
    shown = handle.show()
    assert (shown["status"], shown["waits_for"]) == ("blocked", None)
    assert shown["error"]["code"] == "nondeterministic"
    assert 'put({"key":"sooner"' in shown["error"]["detail"]
    assert 'put({"key":"later"' in shown["error"]["detail"]
    handle.resume()
    settled(handle, "blocked")
    gates.changed = False
    handle.resume()
    assert handle.result(SECONDS) == "done"
    assert opened.call("keys") == ["sooner"]


def test_a_blocked_workflow_is_cancelled(opened, gates):
    handle = blocked(opened, gates)
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(SECONDS)
    assert opened.call("keys") == ["sooner"]
    gates.changed = False
    handle = blocked(opened, gates)
    gates.changed = False
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(SECONDS)
    assert opened.call("keys") == ["sooner", "sooner", "undone"]


def test_a_blocked_workflow_is_forked(opened, gates):
    handle = blocked(opened, gates)
    fork = handle.fork(0)
    settled(fork)
    fork.send("go")
    assert fork.result(SECONDS) == "done"
    assert opened.call("keys") == ["later", "sooner"]
    assert handle.status() == "blocked"


def test_a_workflow_is_enqueued_with_its_transaction(opened):
    with pytest.raises(Rejected):
        opened.call("order", key="a", fail=True)
    assert workflows(opened._log) == []
    handle = opened.workflow(opened.call("order", key="b"))
    settled(handle)
    shown = handle.show()
    assert (shown["function"], shown["caller"], shown["step"]) == ("approval", "local", None)
    assert shown["parent"] == opened.log.calls(function="order", status="ok")[0]["id"]
    handle.send("answer", 1)
    assert handle.result(SECONDS) == 1
    assert opened.call("keys") == ["b", "b-approval"]


def test_an_enqueued_workflow_has_the_roles_of_its_caller(opened, platform, app):
    clerk = platform(opened, caller="carl")
    outcome = clerk.run("order_clerk", roles={"clerk"})
    assert opened.workflow(outcome.output.decode().strip('"')).result(SECONDS) == "carl"
    assert clerk.run("order_clerk", roles={"guest"}).error["code"] == "forbidden"


def test_the_time_of_a_workflow_is_limited_however_it_was_begun(opened):
    for handle in (opened.start("short"), opened.workflow(opened.call("order_short")), opened.start("with_short")):
        with pytest.raises(DeadlineExceeded):
            handle.result(SECONDS)


def test_a_transaction_sends_if_it_commits(opened):
    handle = opened.start("approval")
    with pytest.raises(Rejected):
        opened.call("answer", workflow=handle.id, value=1, fail=True)
    settled(handle)
    assert handle.show()["messages"] == {}
    opened.call("answer", workflow=handle.id, value={"x": 2})
    assert handle.result(SECONDS) == {"x": 2}
    with pytest.raises(NotFound):
        opened.call("answer", workflow=handle.id, value=1)


def test_a_transaction_sends_what_can_be_sent(opened):
    handle = opened.start("approval")
    for how in ("topic", "value"):
        with pytest.raises(InternalError):
            opened.call("answer_wrongly", workflow=handle.id, how=how)
    for nobody in ("", "x", "0198f1c2-0000-7000-8000-000000000000"):
        with pytest.raises(NotFound):
            opened.call("answer", workflow=nobody, value=1)
    with pytest.raises(InternalError):
        opened.call("answer_in_a_query", workflow=handle.id)


def test_a_workflow_goes_on_after_the_app_was_closed(app, engine_app):
    opened = engine_app(app)
    handle = opened.start("approval", key="a")
    told: list[BaseException] = []

    def wait() -> None:
        try:
            handle.result()
        except Unavailable as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    settled(handle)
    opened.close()
    waiting.join(SECONDS)
    assert told
    with pytest.raises(Unavailable, match="was closed"):
        handle.status()
    with pytest.raises(Unavailable, match="was closed"):
        handle.result()
    with pytest.raises(Unavailable, match="was not run"):
        opened.start("approval")
    again = engine_app(app).workflow(handle.id)
    again.send("answer", 3)
    assert again.result(SECONDS) == 3


def test_the_end_of_a_workflow_in_another_process_is_seen(app, engine_app):
    one, other = engine_app(app), engine_app(app)
    one._dispatcher.backlog.deactivate()
    handle = one.start("approval")
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(handle.result(SECONDS)))
    waiting.start()
    settled(handle)
    other.workflow(handle.id).send("answer", 4)
    other._dispatcher.backlog.reload()
    waiting.join(SECONDS)
    assert got == [4]


def test_who_started_a_workflow_may_send_and_cancel(opened, platform):
    ada, bob = platform(opened, caller="ada"), platform(opened, caller="bob")

    def begin() -> str:
        return workflow_of(ada.submit("approval", roles={"x"}, key=str(time.monotonic_ns())))

    def workflow_of(pending: Any) -> str:
        found = eventually(lambda: workflows(opened._log, caller="ada", status="waiting"))
        return str(found[0]["id"])

    first = begin()
    send = f'{{"workflow": "{first}", "topic": "answer", "value": 1}}'
    assert bob.run("apiary.send", send, roles={"x"}).error["code"] == "forbidden"
    assert bob.run("apiary.cancel", send, roles={"x"}).error["code"] == "forbidden"
    for operation in ("apiary.resume", "apiary.fork"):
        assert ada.run(operation, send, roles={"x"}).error["code"] == "forbidden"
    assert ada.run("apiary.send", send, roles={"x"}).error is None
    eventually(lambda: workflow_end(opened._log, workflow=first)["status"] == "ok")
    assert bob.run("apiary.send", send, roles={"x"}).error["code"] == "forbidden"
    assert ada.run("apiary.send", send, roles={"x"}).error["code"] == "conflict"
    assert bob.run("apiary.cancel", f'{{"workflow": "{begin()}"}}', roles={"admin"}).error is None
    assert ada.run("apiary.cancel", f'{{"workflow": "{begin()}"}}', roles={"x"}).error is None


def test_a_key_of_somebody_elses_workflow_is_of_no_use(opened, platform):
    ada, bob = platform(opened, caller="ada"), platform(opened, caller="bob")
    first = ada.submit("approval", roles={"x"}, key="k")
    eventually(lambda: workflows(opened._log, status="waiting"))
    assert bob.run("approval", roles={"x"}, key="k").error["code"] == "forbidden"
    for body in (b"{", b"[", b"\xff", b"[" * 100_000):
        assert ada.run("approval", body, roles={"x"}, key="k").error["code"] == "wrong_arguments"
    opened.workflow(workflows(opened._log)[0]["id"]).send("answer", 1)
    assert first.outcome().output == b"1"
    assert bob.run("approval", roles={"x"}, key="k").error["code"] == "forbidden"


def test_operations_refuse_nonsense_by_themselves(opened, platform):
    calls = platform(opened)
    bodies = (b"{", b"[]", b"1", b"\xff", b"[" * 100_000, b"{}", b'{"workflow": {}}')
    wrong = [calls.submit(f"apiary.{name}", body) for name in ("send", "cancel", "resume", "frob") for body in bodies]
    right = calls.submit("put", '{"key": "b"}')
    assert {one.outcome().error["status"] for one in wrong} <= {400, 404}
    assert right.outcome().error is None


def test_a_message_with_a_key_is_left_once(opened, platform):
    handle = opened.start("approval")
    settled(handle)
    calls = platform(opened)
    body = f'{{"workflow": "{handle.id}", "topic": "other", "value": 1}}'
    for _ in range(3):
        assert calls.run("apiary.send", body, key="m").error is None
    assert handle.show()["messages"] == {"other": 1}
