"""The clock of the machine is set, by hours, while calls run and wait: nothing waits for it, all stays in order."""

import time

import pytest

from apiary import DeadlineExceeded, Transaction

HOURS = 3600
TABLES = "create table runs (x integer not null)"


class Clock:
    """The wall clock of this process, `offset` seconds away from the machine's."""

    def __init__(self, monkeypatch):
        self.offset = 0
        time_ns, seconds = time.time_ns, time.time
        monkeypatch.setattr(time, "time_ns", lambda: time_ns() + self.offset * 10**9)
        monkeypatch.setattr(time, "time", lambda: seconds() + self.offset)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def app(make_app, clock):  # noqa: C901 - seven functions, and no branches of its own
    app = make_app(TABLES)

    @app.transaction
    def put(tx: Transaction, x: int) -> int:
        tx.execute("insert into runs (x) values (:x)", x=x)
        return x

    @app.transaction(timeout=5)
    def jump(tx: Transaction, seconds: int) -> int:
        tx.log("before")
        clock.offset += seconds
        tx.log("after")
        return put(tx, seconds)

    @app.transaction(timeout=0.2)
    def jump_and_loop(tx: Transaction, seconds: int) -> None:
        clock.offset += seconds
        while True:
            pass

    @app.transaction(timeout=0.2)
    def loop_once(tx: Transaction, seconds: int) -> None:
        if not clock.offset:
            jump_and_loop(tx, seconds)
        put(tx, 1)

    @app.action(retries=1, backoff=0.01, timeout=5)
    def jump_outside(seconds: int) -> int:
        if not clock.offset:
            clock.offset += seconds
            raise ConnectionError("try again")
        return 1

    @app.transaction
    def later(tx: Transaction, seconds: int) -> list[str]:
        return [tx.enqueue(put, 7), tx.enqueue(loop_once, seconds)]

    @app.transaction
    def name(tx: Transaction) -> str:
        return tx.id

    @app.query
    def runs(tx: Transaction) -> list[int]:
        return tx.execute("select x from runs order by x").scalars()

    return app


both_ways = pytest.mark.parametrize("seconds", [-5 * HOURS, 5 * HOURS])


@both_ways
def test_a_call_takes_no_longer_than_it_takes(app, engine_app, seconds):
    opened = engine_app(app)
    assert opened.call("jump", seconds) == seconds
    (shown,) = opened.log.calls()
    assert 0 <= shown["duration"] < HOURS * 10**6
    shown = opened.log.show(call=shown["id"])
    times = [shown["nested"][0]["at"], shown["nested"][0]["duration"], *(line["at"] for line in shown["lines"])]
    assert all(0 <= moment <= shown["duration"] for moment in times)


@both_ways
def test_deadlines_are_kept(app, engine_app, seconds):
    opened = engine_app(app)
    with pytest.raises(DeadlineExceeded):
        opened.call("jump_and_loop", seconds)
    assert opened.call("put", 1) == 1
    (latest, stopped) = opened.log.calls()
    assert (latest["function"], stopped["status"]) == ("put", "stopped")
    assert 0.1e6 < stopped["duration"] < HOURS * 10**6


@both_ways
def test_an_action_is_tried_again(app, engine_app, seconds):
    opened = engine_app(app)
    assert opened.call("jump_outside", seconds) == 1
    (shown,) = opened.log.calls()
    assert (shown["attempt"], 0 < shown["duration"] < HOURS * 10**6) == (2, True)


@both_ways
def test_queued_calls_wait_no_longer(app, engine_app, clock, seconds):
    """Those that are tried again, and those that a process finds in the table."""
    first = engine_app(app)
    first._dispatcher.backlog.deactivate()
    first.call("later", seconds)
    first.close()
    clock.offset = -seconds
    second = engine_app(app)
    clock.offset = 0
    second.call("later", seconds)
    second.drain()
    assert second.call("runs") == [1, 1, 7, 7]


@both_ways
def test_the_log_is_in_the_order_of_commits(app, engine_app, clock, seconds):
    opened = engine_app(app)
    ids = []
    for x in range(4):
        ids.append(opened.call("name"))
        clock.offset = seconds if x % 2 else 0
    found = opened.log.calls()
    assert [call["id"] for call in found] == list(reversed(ids))
