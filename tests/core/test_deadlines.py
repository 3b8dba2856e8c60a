"""Deadlines: a function that runs too long is stopped, keeps nothing, and harms nobody else."""

import json
import threading
import time

import pytest

from apiary import DeadlineExceeded, Transaction
from apiary.engine.watchdog import Watchdog
from apiary.runtime.errors import Stopped
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call

# A stop that arrives in a finalizer is lost there, as Python has it; the next one is sent soon after.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TABLES = "create table t (x integer)"
TIMEOUT = 0.05
ENDLESS_READ = "with recursive n (x) as (select 1 union all select x + 1 from n) select count(*) from n"
ENDLESS_WRITE = f"insert into t (x) {ENDLESS_READ}"


@pytest.fixture
def app(make_app):  # noqa: C901 - many small functions
    app = make_app(TABLES)

    @app.transaction
    def put(tx: Transaction, x: int) -> int:
        tx.execute("insert into t (x) values (:x)", x=x)
        return x

    @app.query
    def count(tx: Transaction) -> int:
        return tx.execute("select count(*) from t").scalar()

    @app.transaction(timeout=TIMEOUT)
    def loop(tx: Transaction) -> None:
        put(tx, -1)
        while True:
            pass

    @app.query(timeout=TIMEOUT)
    def loop_in_query(tx: Transaction) -> None:
        while True:
            tx.execute("select 1")

    @app.transaction(timeout=TIMEOUT)
    def statements(tx: Transaction) -> None:
        while True:
            put(tx, -1)

    @app.transaction(timeout=TIMEOUT)
    def stubborn(tx: Transaction) -> str:
        put(tx, -1)
        end = time.monotonic() + 4 * TIMEOUT
        while time.monotonic() < end:
            try:
                while True:
                    pass
            except BaseException:  # noqa: BLE001 - the point
                put(tx, -2)
        return "got away with it"

    @app.transaction(timeout=TIMEOUT)
    def stubborn_with_statements(tx: Transaction) -> str:
        for statement in (ENDLESS_WRITE, ENDLESS_READ, ENDLESS_WRITE):
            try:
                put(tx, -1)
                tx.execute(statement)
            except BaseException:  # noqa: BLE001 - the point
                pass
        for _ in range(3):
            try:
                tx.execute("insert into t (x) values (-3)")
            except BaseException:  # noqa: BLE001 - the point
                pass
        return "got away with it"

    @app.transaction(timeout=TIMEOUT)
    def turns_it_into_an_error(tx: Transaction) -> None:
        put(tx, -1)
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001 - the point
            raise ValueError("not my fault") from None

    @app.transaction(timeout=TIMEOUT)
    def long_write(tx: Transaction) -> None:
        put(tx, -1)
        tx.execute(ENDLESS_WRITE)

    @app.transaction(timeout=TIMEOUT)
    def long_read(tx: Transaction) -> None:
        put(tx, -1)
        tx.execute(ENDLESS_READ)

    @app.query(timeout=TIMEOUT)
    def long_query(tx: Transaction) -> None:
        tx.execute(ENDLESS_READ)

    @app.transaction(timeout=TIMEOUT)
    def nested(tx: Transaction) -> None:
        put(tx, -1)
        try:
            long_read(tx)
        except Exception:  # noqa: BLE001 - the point
            pass
        loop(tx)

    @app.transaction(timeout=TIMEOUT)
    def asleep(tx: Transaction) -> None:
        put(tx, -1)
        time.sleep(4 * TIMEOUT)

    @app.transaction(timeout=TIMEOUT)
    def enqueues(tx: Transaction) -> None:
        tx.enqueue(put, -1)
        loop(tx)

    app.gate = threading.Event()

    @app.transaction
    def wait(tx: Transaction) -> None:
        app.gate.wait(20)

    return app


ENDLESS = [
    "loop",
    "loop_in_query",
    "statements",
    "stubborn",
    "stubborn_with_statements",
    "turns_it_into_an_error",
    "long_write",
    "long_read",
    "long_query",
    "nested",
    "asleep",
    "enqueues",
]


@pytest.fixture
def patient_app(engine_app):
    """The same, where no call is refused because it waited."""

    def open(app):
        opened = engine_app(app)
        opened._dispatcher.excuse(3600)
        return opened

    return open


@pytest.mark.parametrize("function", ENDLESS)
@pytest.mark.parametrize("key", [None, "k"])
def test_a_function_that_runs_too_long_is_stopped(app, patient_app, platform, function, key):
    opened = patient_app(app)
    calls = platform(opened)
    pending = calls.submit(function, key=key)
    outcome = pending.outcome()
    assert outcome.error is not None
    assert (outcome.error["code"], outcome.error["status"]) == ("deadline_exceeded", 504)
    assert opened.call("count") == 0
    assert opened.call("put", 1) == 1
    opened.drain()
    assert opened.call("count") == 1


@pytest.mark.parametrize("function", ENDLESS)
def test_the_others_of_its_batch_are_answered_and_kept(app, patient_app, platform, function):
    opened = patient_app(app)
    calls = platform(opened)
    gate = calls.submit("wait")  # while this runs, the rest becomes one batch
    before = [calls.submit("put", json.dumps({"x": x}), key=f"k{x}") for x in range(5)]
    stopped = calls.submit(function, key="stopped")
    after = [calls.submit("put", json.dumps({"x": x}), key=f"k{x}") for x in range(5, 10)]
    app.gate.set()
    assert gate.outcome().error is None
    assert stopped.outcome().error["code"] == "deadline_exceeded"
    assert [json.loads(one.outcome().output) for one in (*before, *after)] == list(range(10))
    assert opened.call("count") == 10


def test_a_stop_never_reaches_another_call(make_app, patient_app, platform):
    """Calls that end at about their deadline, hundreds of them: each is done and kept, or stopped and not."""
    app = make_app("create table t (x integer)")
    timeout = 0.01

    @app.transaction(timeout=timeout)
    def straddle(tx: Transaction, x: int, rest: float) -> int:
        tx.execute("insert into t (x) values (:x)", x=x)
        end = time.perf_counter() + timeout + rest
        while time.perf_counter() < end:
            tx.execute("select 1")
        return x

    @app.transaction
    def innocent(tx: Transaction, x: int) -> int:
        for _ in range(20):
            tx.execute("select 1")
        tx.execute("insert into t (x) values (:x)", x=x)
        return x

    @app.query
    def content(tx: Transaction) -> list[int]:
        return tx.execute("select x from t order by x").scalars()

    opened = patient_app(app)
    calls = platform(opened)
    kept = []
    for x in range(0, 160, 2):
        rest = (x % 40) / 1000 - 0.005
        risky = calls.submit("straddle", json.dumps({"x": x, "rest": rest}))
        safe = calls.submit("innocent", json.dumps({"x": x + 1}))
        for one, number in ((risky, x), (safe, x + 1)):
            outcome = one.outcome()
            if outcome.error is None:
                kept.append(number)
            else:
                assert one is risky
                assert outcome.error["code"] == "deadline_exceeded"
    assert opened.call("content") == kept


def test_a_call_that_waited_too_long_is_refused_and_may_be_sent_again(app, engine_app, platform):
    opened = engine_app(app)
    calls = platform(opened)
    stuck = [calls.submit("asleep") for _ in range(3)]
    codes = sorted(one.outcome().error["code"] for one in stuck)
    assert "deadline_exceeded" in codes
    assert set(codes) <= {"deadline_exceeded", "overloaded"}
    assert opened.call("count") == 0


def test_a_nested_part_that_is_left_in_the_middle_is_undone_with_its_call(app, sqlite_app, monkeypatch):
    """A stop can arrive just after the database began or undid a part, before Python knows of it."""
    opened = sqlite_app(app)

    def hit(statement):
        """Raise `Stopped` right after `statement` ran in the writer, once."""
        session_type = type(opened._dispatcher)
        assert session_type
        from apiary.engine.sqlite.session import SqliteSession

        original = getattr(SqliteSession, statement)
        armed = True

        def wrapped(self, part):
            nonlocal armed
            original(self, part)
            if part == "nested" and armed:
                armed = False
                raise Stopped

        monkeypatch.setattr(SqliteSession, statement, wrapped)

    @app.transaction
    def fails_inside(tx: Transaction) -> None:
        tx.execute("insert into t (x) values (-1)")
        raise ValueError

    @app.transaction
    def outer(tx: Transaction) -> None:
        tx.execute("insert into t (x) values (-1)")
        app.functions["put"](tx, -1)
        fails_inside(tx)

    from apiary.codec import compile_program

    opened.program.functions.update(compile_program(app, "local").functions)
    for statement in ("savepoint", "release", "undo"):
        hit(statement)
        with pytest.raises(DeadlineExceeded):
            opened.call("outer")
        monkeypatch.undo()
        assert opened.call("count") == 0
    assert opened.call("put", 1) == 1
    assert opened.call("count") == 1


class SlowGuard:
    """A guard whose `end` is itself hit by the stop, the worst moment there is."""

    def __init__(self) -> None:
        self.ends = 0

    def begin(self, call: Call, seconds: float) -> None:
        self.ends = 0

    def end(self) -> bool:
        self.ends += 1
        if self.ends == 1:
            raise Stopped
        return False


@pytest.mark.parametrize("function", ["put", "fails"])
def test_a_stop_in_the_last_moment_keeps_nothing(app, engine_app, function):
    @app.transaction
    def fails(tx: Transaction, x: int) -> None:
        app.functions["put"](tx, x)
        raise ValueError

    opened = engine_app(app)
    lane = opened.engine.writer(opened.program, SlowGuard())
    done = lane.run([Call(new_id(), function, b'{"x": 1}')])
    assert done.outcomes[0].error["code"] == "deadline_exceeded"
    lane.close()
    assert opened.call("count") == 0


def test_the_watchdog_stops_threads_and_ends():
    watchdog = Watchdog()
    guard = watchdog.guard()
    interrupted = threading.Event()
    guard.interrupt = interrupted.set
    guard.begin(Call(new_id(), "f", b""), 0.01)

    def endless():
        while True:
            pass

    with pytest.raises(Stopped):
        endless()
    assert guard.end() is True
    assert interrupted.is_set()
    guard.begin(Call(new_id(), "f", b""), 30)
    assert guard.end() is False
    watchdog.close()
