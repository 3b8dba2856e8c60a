"""The queue: what a transaction leaves for later runs when, and only when, that transaction commits."""

import time

import pytest
from tests.conftest import eventually

import apiary
from apiary import App, Rejected, Transaction
from apiary.engine import backlog, table, uncommitted
from apiary.engine.deaths import Death
from apiary.engine.postgres.errors import ConnectionLost, NotConnected
from apiary.engine.sqlite.engine import SqliteEngine
from apiary.runtime.call import Program
from apiary.runtime.errors import DatabaseUnavailable, HostCrashed, NotCommitted
from apiary.runtime.ids import id_bytes
from apiary.runtime.queueing import Queue
from apiary.runtime.session import Call, Outcome, Queued

TABLES = "create table done (x integer not null, id text)"


class Rows:
    """The queue table of tests: what `load` says of a limit."""

    plain = True

    def __init__(self, load) -> None:
        self.load = lambda limit, queue: load(limit)
        self.paused = self.begun = tuple


def waiting(opened) -> int:
    """How many calls are in the table."""
    return len(opened.engine.queued(1000))


@pytest.fixture
def app(make_app):
    app = make_app(TABLES)

    @app.transaction
    def put(tx: Transaction, x: int) -> None:
        tx.execute("insert into done (x, id) values (:x, :id)", x=x, id=tx.id)

    @app.transaction
    def put_later(tx: Transaction, first: int, last: int, fail: bool = False) -> list[str]:
        ids = [tx.enqueue(put, x) for x in range(first, last)]
        if fail:
            raise Rejected("changed my mind")
        return ids

    @app.transaction
    def chain(tx: Transaction, length: int) -> None:
        put(tx, length)
        if length:
            tx.enqueue(chain, length - 1)

    @app.transaction
    def refuse_later(tx: Transaction, code: str) -> str:
        return tx.enqueue(refuse, code)

    @app.transaction
    def refuse(tx: Transaction, code: str) -> None:
        raise Rejected("no", code=code)

    @app.query
    def done(tx: Transaction) -> list[int]:
        return tx.execute("select x from done order by x").scalars()

    return app


@pytest.fixture
def opened(app, engine_app):
    return engine_app(app)


def test_a_queued_call_runs_after_its_transaction(opened):
    ids = opened.call("put_later", 0, 5)
    opened.drain()
    assert opened.call("done") == [0, 1, 2, 3, 4]
    assert waiting(opened) == 0
    shown = opened.log.show(call=ids[2])
    assert (shown["function"], shown["status"], shown["input"]) == ("put", "ok", {"x": 2})
    assert opened.log.show(call=shown["parent"])["function"] == "put_later"
    assert len(opened.log.show(call=shown["parent"])["queued_calls"]) == 5


def test_a_queued_call_is_undone_with_its_transaction(opened):
    with pytest.raises(Rejected):
        opened.call("put_later", 0, 5, fail=True)
    opened.drain()
    assert (opened.call("done"), waiting(opened)) == ([], 0)


def test_a_keyed_transaction_enqueues_once(opened):
    first = opened.call("put_later", 0, 3, idempotency_key="k")
    assert opened.call("put_later", 0, 3, idempotency_key="k") == first
    opened.drain()
    assert opened.call("done") == [0, 1, 2]


def test_queued_calls_may_queue_more(opened):
    opened.call("chain", 50)
    opened.drain()
    assert opened.call("done") == list(range(51))


def test_there_may_be_more_calls_than_memory_holds(opened, monkeypatch):
    monkeypatch.setattr(backlog, "WINDOW", 20)
    opened.call("put_later", 0, 300)
    opened.call("put_later", 300, 333)
    opened.drain()
    assert opened.call("done") == list(range(333))
    assert not opened._dispatcher.backlog._known


def test_what_is_left_may_be_more_than_memory_holds(app, engine_app, monkeypatch):
    first = engine_app(app)
    first._dispatcher.backlog.deactivate()
    first.call("put_later", 0, 130)
    first.close()
    monkeypatch.setattr(backlog, "WINDOW", 20)
    second = engine_app(app)
    second.drain()
    assert second.call("done") == list(range(130))


def test_the_queue_is_not_empty_while_its_table_is_looked_into(monkeypatch):
    """Also where the last call that is known ends while another thread still reads what else there is."""
    waited, queue = [], None
    tables = [[Queued(bytes([n]) * 16, "f", b"{}", "", None, 0)] for n in range(3)]

    def load(limit):
        if len(tables) == 2:
            waited.append(queue.wait_empty(0.0))
        return tables.pop(0)

    monkeypatch.setattr(backlog, "WINDOW", 2)
    queue = backlog.Backlog(Rows(load), lambda: None)
    queue.activate()
    (call,) = queue.take(1)
    queue.add([Queued(bytes([n]) * 16, "f", b"{}", "", None, 0) for n in (4, 5)])
    queue.done(call, Outcome())
    queue.done(queue.take(1)[0], Outcome())
    queue.close()
    assert waited == [False]


def test_many_calls_at_once_from_many_threads(opened, together):
    together(lambda number: opened.call("put_later", number * 40, number * 40 + 40), range(8))
    opened.drain()
    assert opened.call("done") == list(range(320))


@pytest.mark.parametrize("code", ["mine", "overloaded", "database_unavailable", "deadline_exceeded"])
def test_a_refusal_is_recorded_and_not_tried_again(opened, code):
    identifier = opened.call("refuse_later", code)
    opened.drain(10)
    shown = opened.log.show(call=identifier)
    assert (shown["status"], shown["code"], shown["earlier_attempts"]) == ("rejected", code, [])
    assert waiting(opened) == 0


def test_what_is_left_runs_when_the_app_is_opened_again(app, engine_app):
    first = engine_app(app)
    first._dispatcher.backlog.deactivate()
    first.call("put_later", 0, 40)
    first.close()
    second = engine_app(app)
    second.drain()
    assert second.call("done") == list(range(40))


def test_two_that_share_a_database_run_each_call_once(app, engine_app):
    first, second = engine_app(app), engine_app(app)
    for number in range(5):
        first.call("put_later", number * 20, number * 20 + 10)
        second.call("put_later", number * 20 + 10, number * 20 + 20)
    second._dispatcher.backlog.reload()
    first._dispatcher.backlog.reload()
    first.drain()
    second.drain()
    assert first.call("done") == list(range(100))


def leave_behind(make_app, engine_app, *functions):
    """Put calls of `functions` (name and arguments) into the queue, and close before they run."""
    app = make_app(TABLES)

    def any_arguments(tx: Transaction, n: int = 0, s: str = "") -> None: ...

    for name, _ in functions:
        body = lambda tx, n=0, s="": None  # noqa: E731
        body.__name__ = name
        app.transaction(body)

    @app.transaction
    def leave(tx: Transaction) -> list[str]:
        return [tx.enqueue(app.functions[name], **arguments) for name, arguments in functions]

    opened = engine_app(app)
    opened._dispatcher.backlog.deactivate()
    ids = opened.call(leave)
    opened.close()
    return ids


def test_a_queued_call_whose_function_is_gone_fails_and_leaves_the_queue(make_app, engine_app):
    ids = leave_behind(make_app, engine_app, ("gone", {}), ("changed", {"n": 1}), ("now_an_action", {"s": "x"}))
    app = App("core")

    @app.transaction
    def changed(tx: Transaction, name: str) -> None: ...

    @app.action
    def now_an_action(number: int) -> None: ...

    opened = engine_app(app)
    opened.drain()
    assert waiting(opened) == 0
    codes = [opened.log.show(call=identifier)["code"] for identifier in ids]
    assert codes == ["unknown_function", "wrong_arguments", "wrong_arguments"]


def test_actions_run_after_the_commit_with_a_key_that_stays(make_app, engine_app):
    app = make_app(TABLES)
    keys = []
    fail = [True, True, False]

    @app.action(retries=5, backoff=0.001)
    def send(x: int, *, idempotency_key: str) -> int:
        keys.append(idempotency_key)
        if fail.pop(0):
            raise ConnectionError("try again")
        return x

    @app.transaction
    def send_later(tx: Transaction) -> str:
        return tx.enqueue(send, 1)

    opened = engine_app(app)
    identifier = opened.call(send_later)
    opened.drain()
    assert keys == [identifier] * 3
    shown = opened.log.show(call=identifier)
    assert (shown["status"], shown["output"], shown["attempt"]) == ("ok", 1, 3)
    assert [line["message"][:10] for line in shown["lines"]] == ["attempt 1:", "attempt 2:"]


def test_a_call_that_is_always_stopped_leaves_the_queue_in_the_end(make_app, engine_app, monkeypatch):
    monkeypatch.setattr(table, "RETRY_SECONDS", 0.001)
    app = make_app(TABLES)

    @app.transaction(timeout=0.02)
    def endless(tx: Transaction) -> None:
        while True:
            pass

    @app.action(timeout=0.02)
    async def endless_action() -> None:
        import asyncio

        await asyncio.Event().wait()

    @app.transaction
    def start(tx: Transaction) -> list[str]:
        return [tx.enqueue(endless), tx.enqueue(endless_action)]

    opened = engine_app(app)
    ids = opened.call(start)
    opened.drain()
    for identifier in ids:
        shown = opened.log.show(call=identifier)
        assert shown["status"] == "stopped"
        assert [attempt["attempt"] for attempt in shown["earlier_attempts"]] == [1, 2, 3, 4]
    assert waiting(opened) == 0


def test_attempts_are_counted_beyond_the_end_of_a_process(make_app, engine_app):
    app = make_app(TABLES)

    @app.transaction(timeout=0.02)
    def endless(tx: Transaction) -> None:
        while True:
            pass

    @app.transaction
    def start(tx: Transaction) -> str:
        return tx.enqueue(endless)

    for attempt in range(1, 6):
        opened = engine_app(app)
        if attempt == 1:
            identifier = opened.call(start)
        end = time.monotonic() + 10
        while (left := opened.engine.queued_call(id_bytes(identifier))) is not None and left.attempts < attempt:
            assert time.monotonic() < end, left
            time.sleep(0.005)
        opened.close()
    opened = engine_app(app)
    opened.drain()
    shown = opened.log.show(call=identifier)
    assert (shown["status"], shown["attempt"]) == ("stopped", 5)
    assert {1, 2, 3, 4} <= {earlier["attempt"] for earlier in shown["earlier_attempts"]}  # 5, where its end was cut


@pytest.mark.parametrize(("alone", "most"), [(True, 3), (False, 5)])
def test_a_call_whose_process_died_is_tried_again_a_few_times_and_then_recorded_as_failed(opened, alone, most):
    queue = opened._dispatcher.backlog
    queue.deactivate()
    identifier = opened.call("put_later", 0, 1)[0]
    for attempt in range(1, most + 1):
        assert waiting(opened) == 1
        opened._dispatcher._deaths.count([Death(id_bytes(identifier), "it was ended by SIGSEGV", alone)])
        shown = opened.log.show(call=identifier)
        assert (shown["attempt"], shown["code"]) == (attempt, "host_crashed")
        assert shown["status"] == ("failed" if attempt == most else "stopped")
    assert "SIGSEGV" in shown["error"]["detail"]
    assert [earlier["attempt"] for earlier in shown["earlier_attempts"]] == list(range(1, most))
    assert waiting(opened) == 0
    opened._dispatcher.run_queue()
    opened.drain()
    assert opened.call("done") == []


def test_a_call_whose_process_died_but_that_had_ended_is_left_alone(opened):
    identifier = opened.call("put_later", 0, 1)[0]
    opened.drain()
    opened._dispatcher.run_queue(deaths=[Death(id_bytes(identifier), "it ended", True)])
    shown = opened.log.show(call=identifier)
    assert (shown["status"], shown["earlier_attempts"]) == ("ok", [])


def test_calls_that_may_have_ended_their_process_run_one_by_one():
    queued = [Queued(bytes([n]) * 16, "f", b"{}", "", None, 0, attempts=n % 2, deaths=n % 2) for n in range(6)]
    rung = []
    queue = backlog.Backlog(Rows(lambda limit: queued), lambda: rung.append(1))
    queue.activate()
    taken = queue.take(10)
    assert [call.id[0] for call in taken] == [0, 2, 4, 1]
    assert queue.take(10) == []
    queue.done(taken[0], Outcome())
    assert queue.take(10) == []
    rung.clear()
    queue.done(taken[3], Outcome())
    assert rung
    assert [call.id[0] for call in queue.take(10)] == [3]
    queue.close()


def test_a_call_that_may_have_ended_its_process_runs_as_soon_as_there_is_room():
    rows = [Queued(bytes([n]) * 16, "f", b"{}", "", None, 0, attempts=n, deaths=n, queue="q") for n in range(2)]
    rung = []
    narrow = {"q": Queue("q", concurrency=1)}
    queue = backlog.Backlog(Rows(lambda limit: rows), lambda: rung.append(1), queues=narrow)
    queue.activate()
    (safe,) = queue.take(10)
    assert queue.take(10) == []
    rung.clear()
    queue.done(safe, Outcome())
    assert rung
    assert [call.id[0] for call in queue.take(10)] == [1]
    queue.close()


def test_what_a_process_left_is_taken_over_as_soon_as_the_database_lets_it_be(monkeypatch):
    """It may be locked, by a long transaction that runs already, when the queue is activated."""
    done = []

    class Left:
        def activate(self, except_for, others):
            done.append("active")

        def deactivate(self):
            return []

        def doubt(self, seconds):
            self.left = True

        def dispel(self):
            if self.left:
                done.append("tried")
                if len(done) < 4:
                    raise DatabaseUnavailable("locked")
                self.left = False

    def load(limit):
        done.append("read")
        return []

    monkeypatch.setattr(backlog, "RELOAD_SECONDS", 0.01)
    queue = backlog.Backlog(Rows(load), lambda: None, Left())
    queue.activate()
    eventually(lambda: done == ["active", "tried", "tried", "tried", "read"])
    queue.reload()
    queue.close()
    assert done.count("tried") == 3


def test_nothing_is_handed_out_before_the_queue_is_active(app, tmp_path):
    first = apiary.open(app, f"sqlite:///{tmp_path}/a.db")
    assert first._dispatcher.backlog.deactivate() == []
    first.call("put_later", 0, 3)
    assert waiting(first) == 3
    first._dispatcher.backlog.activate()
    first.drain()
    assert first.call("done") == [0, 1, 2]
    first.close()


def test_calls_that_another_process_runs_are_left_to_it(app, engine_app):
    opened = engine_app(app)
    queue = opened._dispatcher.backlog
    queue.deactivate()
    ids = opened.call("put_later", 0, 3)
    queue.activate(except_for=[bytes.fromhex(ids[1].replace("-", ""))])
    queue.reload()
    eventually(lambda: opened.call("done") == [0, 2])
    queue.activate()
    opened.drain()
    assert opened.call("done") == [0, 1, 2]


def test_nothing_is_taken_from_the_table_before_it_is_durable(app, sqlite_app, monkeypatch):
    opened = sqlite_app(app)
    synced = []
    monkeypatch.setattr(opened.engine, "sync", lambda: synced.append(1))
    opened.engine.queued(10)
    assert synced


FULL_PAGES = 60
NEVER = {
    "sqlite": TABLES,  # its one page more than there is room for
    "postgresql": f"""{TABLES};
        create function refuse() returns trigger language plpgsql as 'begin raise exception ''never''; end';
        create constraint trigger never after insert on done deferrable initially deferred
            for each row when (new.x = 1) execute function refuse()""",
}


@pytest.fixture
def never(make_app, engine_app, monkeypatch, request):
    """An app whose function `never` cannot be committed, for a reason that is only its own; some calls can."""
    monkeypatch.setattr(table, "RETRY_SECONDS", 0.001)
    kind = request.node.callspec.params["engine_app"]
    app = make_app(NEVER[kind])
    make_writer = SqliteEngine.writer

    def small(engine, program, guard):
        lane = make_writer(engine, program, guard)
        lane._session.connection.pragma("max_page_count", FULL_PAGES)
        return lane

    monkeypatch.setattr(SqliteEngine, "writer", small)

    @app.transaction
    def never(tx: Transaction) -> None:
        tx.execute("insert into done (x, id) values (1, :text)", text="x" * 4096 * FULL_PAGES)

    @app.transaction
    def fine(tx: Transaction) -> None:
        tx.execute("insert into done (x) values (2)")

    @app.transaction
    def later(tx: Transaction) -> list[str]:
        return [tx.enqueue(never), tx.enqueue(fine)]

    return engine_app(app)


def test_a_queued_call_that_can_never_commit_leaves_the_queue_with_a_record(never, monkeypatch):
    monkeypatch.setattr(uncommitted, "COMMIT_SECONDS", 0.0)
    identifier, fine = never.call("later")
    never.drain()
    assert waiting(never) == 0
    assert never.log.show(call=fine)["status"] == "ok"
    shown = never.log.show(call=identifier)
    assert (shown["function"], shown["kind"], shown["status"]) == ("never", "transaction", "failed")
    assert (shown["code"], shown["attempt"]) == ("not_committed", uncommitted.LAST_COMMIT)
    assert f"in {uncommitted.LAST_COMMIT} attempts: the " in shown["error"]["detail"]
    assert not never._dispatcher._handing.uncommitted._attempts


def test_a_queued_call_is_not_given_up_before_its_time(never, monkeypatch):
    monkeypatch.setattr(uncommitted, "LAST_COMMIT", 3)
    identifier, _ = never.call("later")
    attempts = never._dispatcher._handing.uncommitted._attempts
    end = time.monotonic() + 30
    while attempts.get(id_bytes(identifier), 0) <= 5:
        assert time.monotonic() < end
        time.sleep(0.001)
    assert waiting(never) == 1


@pytest.mark.parametrize(
    "cause", [NotConnected("no"), ConnectionLost("gone"), HostCrashed("died"), Rejected("no"), None], ids=repr
)
def test_what_says_nothing_of_the_call_is_no_attempt_to_commit(cause):
    written, ended = [], []
    gate = uncommitted.Uncommitted(
        Program("a", "v", {}), lambda *record: written.append(record), lambda *end: ended.append(end)
    )
    for _ in range(2 * uncommitted.LAST_COMMIT):
        gate.settle(Call(bytes(16), "f", b"{}", queued=True), Outcome(cause=cause))
    assert (len(written), len(ended)) == (0, 2 * uncommitted.LAST_COMMIT)


def test_a_call_whose_failure_cannot_be_recorded_stays_in_the_queue():
    ended = []
    gate = uncommitted.Uncommitted(
        Program("a", "v", {}),
        lambda record, written: written(len(ended) >= 20),
        lambda call, outcome: ended.append(outcome),
    )
    refused = Outcome(cause=DatabaseUnavailable("the disk is full"))
    while len(ended) < 21:
        gate.settle(Call(bytes(16), "f", b"{}", queued=True), refused)
    assert all(outcome is refused for outcome in ended[:20])
    assert isinstance(ended[20].cause, NotCommitted)


def test_a_queued_call_that_can_never_commit_is_told_of_now_and_then(caplog, monkeypatch):
    monkeypatch.setattr(table, "RETRY_SECONDS", 0.0)
    queue = backlog.Backlog(Rows(lambda limit: [Queued(bytes(16), "f", b"{}", "", None, 0, attempts=0)]), lambda: None)
    queue.activate()
    error = {"status": 503, "detail": "the disk is full"}
    for attempt in range(1, 10):
        (call,) = queue.take(10)
        assert call.attempt == attempt
        queue.done(call, Outcome(error=error))
    queue.close()
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(" came to no end in ")[2] for text in told] == [
        "4 attempts: the disk is full",
        "8 attempts: the disk is full",
    ]
