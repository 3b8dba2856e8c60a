"""The engine contract: what a transaction is, on every engine."""

import sys
import uuid
from datetime import UTC, datetime

import pytest

from apiary import (
    ConstraintViolated,
    Error,
    InternalError,
    NoSuchRow,
    Rejected,
    RuleBroken,
    Transaction,
)

TABLES = """
create table counters (name text primary key, value bigint not null check (value >= 0));
create table parents (id integer primary key);
create table children (id integer primary key, parent integer not null references parents (id));
insert into counters (name, value) values ('a', 0), ('b', 100);
"""


@pytest.fixture
def shop(make_app, engine_app):  # noqa: C901 - many small functions
    app = make_app(TABLES)

    @app.transaction
    def add(tx: Transaction, name: str, by: int = 1) -> int:
        value = tx.execute("select value from counters where name = :name", name=name).scalar()
        if value is None:
            raise Rejected("no such counter", code="unknown", name=name)
        tx.execute("update counters set value = :value where name = :name", name=name, value=value + by)
        return value + by

    @app.query
    def read(tx: Transaction, name: str) -> int:
        return tx.execute("select value from counters where name = :name", name=name).scalar()

    @app.transaction
    def add_then_fail(tx: Transaction, how: str) -> None:
        add(tx, "a", 10)
        if how == "rejected":
            raise Rejected("no", code="not_today", why={"deep": [1, 2]})
        if how == "error":
            raise ValueError("a mistake")
        if how == "exit":
            sys.exit(1)
        if how == "interrupt":
            raise KeyboardInterrupt
        tx.execute("update counters set value = -1 where name = 'b'")

    @app.transaction
    def transfer(tx: Transaction, source: str, target: str, amount: int) -> bool:
        add(tx, target, amount)
        try:
            add(tx, source, -amount)
        except ConstraintViolated:
            return False
        return True

    @app.transaction
    def add_and_look(tx: Transaction) -> list[int]:
        before = read(tx, "a")
        add(tx, "a")
        return [before, read(tx, "a")]

    @app.transaction
    def three_parts(tx: Transaction) -> None:
        add(tx, "a", 1)
        try:
            add_then_fail(tx, "error")
        except ValueError:
            tx.log("undone")
        add(tx, "a", 100)

    opened = engine_app(app)
    opened.functions = {function.name: function for function in app.functions.values()}
    return opened


def test_a_transaction_commits_when_it_returns(shop):
    assert shop.call("add", "a", by=5) == 5
    assert shop.call("read", "a") == 5


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("rejected", Rejected),
        ("error", InternalError),
        ("exit", InternalError),
        ("interrupt", InternalError),
        ("constraint", ConstraintViolated),
    ],
)
def test_a_transaction_that_raises_keeps_nothing(shop, how, error, promptly):
    with pytest.raises(error):
        promptly(lambda: shop.call("add_then_fail", how))
    assert shop.call("read", "a") == 0
    assert shop.call("add", "a") == 1  # and the platform goes on


def test_a_refusal_reaches_the_caller_as_it_is(shop):
    with pytest.raises(Rejected) as raised:
        shop.call("add_then_fail", "rejected")
    assert (raised.value.code, raised.value.message) == ("not_today", "no")
    assert raised.value.details == {"why": {"deep": [1, 2]}}
    assert uuid.UUID(raised.value.call_id)


def test_an_error_reaches_the_caller_with_its_cause_and_the_id_of_the_call(shop):
    with pytest.raises(InternalError) as raised:
        shop.call("add_then_fail", "error")
    assert isinstance(raised.value.__cause__, ValueError)
    assert raised.value.call_id in raised.value.hint
    assert "a mistake" not in raised.value.message


def test_a_nested_call_is_part_of_its_callers_transaction(shop):
    assert shop.call("add_and_look") == [0, 1]
    assert shop.call("transfer", "b", "a", 40) is True
    assert (shop.call("read", "a"), shop.call("read", "b")) == (41, 60)


def test_a_nested_failure_that_is_caught_undoes_only_its_part(shop):
    assert shop.call("transfer", "a", "b", 5) is False
    assert (shop.call("read", "a"), shop.call("read", "b")) == (0, 105)
    shop.call("three_parts")
    assert shop.call("read", "a") == 101


def test_what_a_nested_failure_enqueued_is_undone_too(make_app, engine_app):
    app = make_app("create table t (x integer)")

    @app.transaction
    def put(tx: Transaction, x: int) -> None:
        tx.execute("insert into t (x) values (:x)", x=x)

    @app.transaction
    def fail(tx: Transaction) -> None:
        tx.enqueue(put, 2)
        raise ValueError

    @app.transaction
    def outer(tx: Transaction) -> None:
        tx.enqueue(put, 1)
        try:
            fail(tx)
        except ValueError:
            pass
        tx.enqueue(put, 3)

    @app.query
    def all_of_it(tx: Transaction) -> list[int]:
        return tx.execute("select x from t order by x").scalars()

    opened = engine_app(app)
    opened.call(outer)
    opened.drain()
    assert opened.call(all_of_it) == [1, 3]


def test_roles_hold_for_nested_calls(make_app, engine_app, platform):
    app = make_app()

    @app.transaction(roles=["boss"])
    def secret(tx: Transaction) -> int:
        return 42

    @app.transaction
    def peek(tx: Transaction) -> int:
        return secret(tx)

    @app.transaction
    def peek_later(tx: Transaction) -> None:
        tx.enqueue(secret)

    @app.transaction(roles=[])
    def nobody(tx: Transaction) -> None: ...

    opened = platform(engine_app(app))
    for function in ("peek", "peek_later", "secret"):
        assert opened.run(function, roles={"clerk"}).error["code"] == "forbidden"
        assert opened.run(function, roles=()).error["status"] == 403
        assert opened.run(function, roles={"boss"}).error is None
    assert opened.run("nobody", roles={"boss"}).error["detail"] == "nobody is for nobody"
    assert opened.run("nobody", roles={"admin"}).error is None


@pytest.mark.parametrize("key", [None, "a-key"])
@pytest.mark.parametrize(
    "statement",
    [
        "insert into counters (name, value) values ('c', 1)",
        "update counters set value = 7",
        "delete from counters",
        "create table more (x integer)",
        "drop table counters",
        "with x as (select 1) insert into counters (name, value) select 'c', 1",
        "insert into counters (name, value) values ('c', 1) returning value",
    ],
)
def test_a_query_cannot_write(make_app, engine_app, statement, key):
    app = make_app(TABLES)

    @app.query
    def sly(tx: Transaction) -> None:
        tx.execute(statement)

    @app.query
    def sly_many(tx: Transaction) -> None:
        tx.execute_many(statement, [{}])

    @app.transaction
    def outer(tx: Transaction) -> None:
        sly(tx)

    @app.query
    def content(tx: Transaction) -> list[tuple[str, int]]:
        return [tuple(row) for row in tx.execute("select name, value from counters order by name")]

    opened = engine_app(app)
    for function in (sly, sly_many, outer):
        with pytest.raises(InternalError) as raised:
            opened.call(function.name, idempotency_key=key and f"{key}-{function.name}")
        assert isinstance(raised.value.__cause__, RuleBroken)
    assert opened.call(content) == [("a", 0), ("b", 100)]


def test_a_query_cannot_enqueue_or_call_what_writes(make_app, engine_app):
    app = make_app()

    @app.transaction
    def write(tx: Transaction) -> None: ...

    @app.query
    def later(tx: Transaction) -> None:
        tx.enqueue(write)

    @app.query
    def now(tx: Transaction) -> None:
        write(tx)

    @app.transaction
    def outer(tx: Transaction) -> None:
        now(tx)

    opened = engine_app(app)
    for function in ("later", "now", "outer"):
        with pytest.raises(InternalError) as raised:
            opened.call(function)
        assert isinstance(raised.value.__cause__, RuleBroken)


def test_what_was_committed_can_be_read(shop):
    for expected in range(1, 100):
        shop.call("add", "a")
        assert shop.call("read", "a") == expected


def test_concurrent_increments_lose_nothing(shop, together):
    def several(_):
        return [shop.call("add", "a") for _ in range(25)]

    results = together(several, range(8))
    assert sorted(value for values in results for value in values) == list(range(1, 201))
    assert shop.call("read", "a") == 200


def test_the_sum_is_the_same_in_every_snapshot(make_app, engine_app, together):
    app = make_app("create table accounts (id integer primary key, cents integer not null)")

    @app.transaction
    def prepare(tx: Transaction) -> None:
        tx.execute_many("insert into accounts (id, cents) values (:id, 100)", [{"id": id} for id in range(10)])

    @app.transaction
    def move(tx: Transaction, source: int, target: int) -> None:
        tx.execute("update accounts set cents = cents - 1 where id = :id", id=source)
        tx.execute("update accounts set cents = cents + 1 where id = :id", id=target)

    @app.query
    def total(tx: Transaction) -> int:
        first = tx.execute("select sum(cents) from accounts where id < 5").scalar()
        return first + tx.execute("select sum(cents) from accounts where id >= 5").scalar()

    opened = engine_app(app)
    opened.call(prepare)

    def work(number):
        if number % 2:
            return {opened.call(total) for _ in range(50)}
        for step in range(50):
            opened.call(move, (number + step) % 10, step * 7 % 10)
        return {1000}

    assert together(work, range(6)) == [{1000}] * 6


def test_a_broken_constraint_is_a_conflict_that_can_be_caught(make_app, engine_app):
    app = make_app(TABLES)

    @app.transaction
    def insert(tx: Transaction, statement: str) -> None:
        tx.execute(statement)

    @app.transaction
    def careful(tx: Transaction) -> str:
        try:
            tx.execute("insert into counters (name, value) values ('a', 1)")
        except ConstraintViolated as error:
            return error.details["constraint"]
        return "none"

    opened = engine_app(app)
    for statement, constraint in [
        ("insert into counters (name, value) values ('a', 1)", "unique"),
        ("insert into counters (name, value) values ('c', null)", "not null"),
        ("insert into counters (name, value) values ('c', -1)", "check"),
        ("insert into children (id, parent) values (1, 99)", "foreign key"),
    ]:
        with pytest.raises(ConstraintViolated) as raised:
            opened.call(insert, statement)
        assert raised.value.status == 409
        assert raised.value.details["constraint"] == constraint
    assert opened.call(careful) == "unique"


def test_a_constraint_that_is_checked_at_commit_fails_only_the_call_that_broke_it(make_app, engine_app, platform):
    app = make_app(
        "create table parents (id integer primary key);"
        "create table children (id integer primary key,"
        " parent integer not null references parents (id) deferrable initially deferred);"
    )

    @app.transaction
    def orphan(tx: Transaction, id: int) -> None:
        tx.execute("insert into children (id, parent) values (:id, 99)", id=id)

    @app.transaction
    def family(tx: Transaction, id: int) -> None:
        tx.execute("insert into children (id, parent) values (:id, :id)", id=id)
        tx.execute("insert into parents (id) values (:id)", id=id)

    @app.query
    def count(tx: Transaction) -> int:
        return tx.execute("select count(*) from children").scalar()

    opened = engine_app(app)
    calls = platform(opened)
    pending = [
        calls.submit("orphan" if number % 3 == 0 else "family", f'{{"id": {number}}}', key=f"key-{number}")
        for number in range(12)
    ]
    codes = [(one.outcome().error or {"code": "ok"})["code"] for one in pending]
    assert codes == ["constraint_violated" if number % 3 == 0 else "ok" for number in range(12)]
    assert opened.call(count) == 8
    again = calls.run("orphan", '{"id": 0}', key="key-0")
    assert again.replayed
    assert again.error == pending[0].outcome().error


def test_a_transaction_knows_itself(make_app, engine_app, platform):
    app = make_app()

    @app.transaction
    def who(tx: Transaction) -> dict[str, str]:
        assert tx.now == tx.now
        tx.log("hello", number=1, odd={(1, 2): {3}})
        return {"id": tx.id, "caller": tx.caller, "now": tx.now.isoformat()}

    opened = platform(engine_app(app))
    before = datetime.now(UTC)
    pending = opened.submit("who")
    result = pending.outcome()
    assert result.error is None
    import json

    said = json.loads(result.output)
    assert uuid.UUID(said["id"]).bytes == pending.call.id
    assert uuid.UUID(said["id"]).version == 7
    assert said["caller"] == "tester"
    assert before <= datetime.fromisoformat(said["now"]) <= datetime.now(UTC)
    record = opened.dispatcher.engine.find(pending.call.id, None)
    assert json.loads(record.lines)[0]["message"] == "hello"
    assert json.loads(record.lines)[0]["fields"] == {"number": 1, "odd": {"(1, 2)": [3]}}
    assert datetime.fromtimestamp(record.started / 1e6, UTC).isoformat() == said["now"]


def test_a_transaction_is_of_no_use_after_its_function(make_app, engine_app):
    app = make_app("create table t (x integer)")
    kept: list[Transaction] = []

    @app.transaction
    def nested(tx: Transaction) -> None:
        kept.append(tx)

    @app.transaction
    def keep(tx: Transaction) -> None:
        kept.append(tx)
        nested(tx)

    @app.transaction
    def misuse(tx: Transaction, which: int) -> None:
        old = kept[which]
        for attempt in (
            lambda: old.execute("insert into t (x) values (1)"),
            lambda: old.execute_many("insert into t (x) values (:x)", [{"x": 1}]),
            lambda: old.enqueue(keep),
            lambda: nested(old),
        ):
            with pytest.raises(RuleBroken, match="over"):
                attempt()

    @app.query
    def count(tx: Transaction) -> int:
        return tx.execute("select count(*) from t").scalar()

    opened = engine_app(app)
    opened.call(keep)
    opened.call(misuse, 0)
    opened.call(misuse, 1)
    assert opened.call(count) == 0


def test_no_row_is_not_found(make_app, engine_app):
    app = make_app(TABLES)

    @app.query
    def strict(tx: Transaction, name: str) -> int:
        return tx.execute("select value from counters where name = :name", name=name).one().value

    opened = engine_app(app)
    assert opened.call(strict, "b") == 100
    with pytest.raises(NoSuchRow):
        opened.call(strict, "z")


def test_functions_of_other_apps_cannot_be_enqueued(make_app, engine_app):
    app, other = make_app(), make_app(name="other")

    @other.transaction
    def foreign(tx: Transaction) -> None: ...

    @app.transaction
    def enqueue(tx: Transaction) -> None:
        tx.enqueue(foreign)

    with pytest.raises(InternalError) as refused:
        engine_app(app).call(enqueue)
    assert "the app core has no function" in str(refused.value.__cause__)


@pytest.mark.parametrize("kind", ["query", "transaction"])
@pytest.mark.parametrize(
    "details",
    [
        {"d": {(1, 2): 3}},
        {"d": {1, 2}},
        {"d": object()},
        {"d": float("nan")},
        {"d": b"\xff"},
        {"call_id": 1, "code": 2},
    ],
)
def test_a_refusal_may_say_anything(make_app, engine_app, kind, details, promptly, platform):
    app = make_app()

    def refuse(tx: Transaction) -> None:
        raise Rejected("no", **{"code": "mine", **details})

    getattr(app, kind)(refuse)
    opened = engine_app(app)
    calls = platform(opened)
    for _ in range(3):
        with pytest.raises(Rejected):
            promptly(lambda: opened.call("refuse"))
    first, second = calls.run("refuse", key="k"), calls.run("refuse", key="k")
    assert first.error == second.error
    assert second.replayed


def test_a_log_line_may_say_anything(make_app, engine_app):
    app = make_app()

    class Awkward:
        def __str__(self) -> str:
            raise ValueError

    circle: list[object] = []
    circle.append(circle)

    @app.transaction
    def talk(tx: Transaction) -> int:
        tx.log("x", a={(1,): Awkward()}, b=circle, c=float("inf"), d="\ud800")
        return 1

    assert engine_app(app).call(talk) == 1


def test_a_result_that_is_too_large_is_refused_and_nothing_is_kept(make_app, engine_app):
    app = make_app("create table kept (x integer)")

    @app.transaction
    def large(tx: Transaction, size: int) -> str:
        tx.execute("insert into kept values (1)")
        return "x" * size

    @app.query
    def kept(tx: Transaction) -> int:
        return tx.execute("select count(*) from kept").scalar()

    opened = engine_app(app)
    with pytest.raises(Error) as refused:
        opened.call(large, 17 * 1024 * 1024)
    assert (refused.value.code, opened.call(kept)) == ("payload_too_large", 0)
    assert len(opened.call(large, 15 * 1024 * 1024)) == 15 * 1024 * 1024


def test_a_result_that_is_returned_as_it_is_says_what_to_do(make_app, engine_app):
    app = make_app("create table t (x integer)")

    @app.transaction
    def rows(tx: Transaction) -> list[dict[str, int]]:
        return tx.execute("select x from t")

    opened = engine_app(app)
    with pytest.raises(InternalError) as raised:
        opened.call("rows")
    error = opened.log.show(call=raised.value.call_id)["error"]
    assert "return its rows, by all()" in error["traceback"]
    assert "in encode_result" not in error["traceback"]
