"""A hold: nothing is written, queries go on, what may not run is given back, what has run is recorded in the end."""

import threading

import pytest

from apiary import Transaction
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call, Outcome

WAIT_SECONDS = 20


class Held:
    """An app whose transactions and actions wait until they are let go, and the calls that it gives back."""

    def __init__(self, opened, calls) -> None:
        self.opened = opened
        self.calls = calls
        self.dispatcher = calls.dispatcher
        self.given_back: list[Call] = []
        self._changed = threading.Condition()

    def give_back(self, call: Call) -> None:
        with self._changed:
            self.given_back.append(call)
            self._changed.notify_all()

    def begin(self) -> threading.Thread:
        """Begin a hold in a thread of its own, which ends when nothing is written any more."""
        thread = threading.Thread(target=self.dispatcher.hold, args=(self.give_back,), daemon=True)
        thread.start()
        return thread

    def returned(self, count: int) -> list[bytes]:
        """The calls that were given back, once they are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.given_back) >= count, WAIT_SECONDS)
            return [call.id for call in self.given_back]

    def recorded(self, function: str) -> int:
        return len(self.opened.log.calls(function=function))


@pytest.fixture
def entered():
    return threading.Event()


@pytest.fixture
def let_go():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def held(make_app, engine_app, platform, entered, let_go):
    app = make_app("create table t (x integer)")

    @app.transaction(timeout=0.2)
    def put(tx: Transaction, x: int = 1) -> int:
        tx.execute("insert into t (x) values (:x)", x=x)
        return x

    @app.transaction(timeout=WAIT_SECONDS)
    def wait(tx: Transaction) -> None:
        put(tx)
        entered.set()
        let_go.wait(WAIT_SECONDS)

    @app.action(timeout=WAIT_SECONDS)
    def act() -> str:
        entered.set()
        let_go.wait(WAIT_SECONDS)
        return "done"

    @app.transaction
    def put_later(tx: Transaction) -> None:
        tx.enqueue(put, 5)

    @app.query
    def count(tx: Transaction) -> int:
        return tx.execute("select count(*) from t").scalar()

    opened = engine_app(app, writers=1)
    return Held(opened, platform(opened))


def test_a_hold_begins_when_what_is_written_has_ended(held, entered, let_go):
    running = held.calls.submit("wait")
    assert entered.wait(WAIT_SECONDS)
    beginning = held.begin()
    assert held.opened.call("count") == 0
    assert beginning.is_alive()
    let_go.set()
    assert running.outcome().error is None
    beginning.join(WAIT_SECONDS)
    assert not beginning.is_alive()
    assert held.opened.call("count") == 1


def test_what_waits_and_what_comes_is_given_back_and_has_not_run(held, entered, let_go):
    held.calls.submit("wait")
    assert entered.wait(WAIT_SECONDS)
    waiting = [held.calls.submit("put") for _ in range(3)]
    beginning = held.begin()
    entered.wait(0.3)  # longer than they may wait: a call that is given back is not refused for it
    let_go.set()
    beginning.join(WAIT_SECONDS)
    later = [held.calls.submit("put"), held.calls.submit("act"), held.calls.submit("count", key="a key")]
    assert sorted(held.returned(6)) == sorted(pending.call.id for pending in [*waiting, *later])
    assert held.opened.call("count") == 1
    assert held.recorded("put") == held.recorded("act") == 0


def test_calls_run_again_after_a_hold(held):
    held.dispatcher.hold(held.give_back)
    given = held.calls.submit("put")
    held.returned(1)
    held.dispatcher.resume()
    assert held.calls.run("put", id=given.call.id).error is None
    assert held.opened.call("count") == 1
    assert len(held.given_back) == 1


@pytest.mark.parametrize("end", ["resume", "retire", "close"])
def test_what_has_run_is_recorded_after_the_hold(held, entered, let_go, end):
    action = held.calls.submit("act")
    assert entered.wait(WAIT_SECONDS)
    held.dispatcher.hold(held.give_back)
    let_go.set()
    assert held.opened.call("count") == 0
    held.calls.submit("put")
    held.returned(1)  # so the writer has looked at what there is to do
    assert held.recorded("act") == held.recorded("count") == 0
    if end == "close":
        held.opened._dispatcher.close()
    else:
        getattr(held.dispatcher, end)()
    assert action.outcome().output == b'"done"'
    assert held.recorded("act") == 1


def test_who_is_retired_gives_back_for_good(held):
    held.dispatcher.hold(held.give_back)
    held.dispatcher.retire()
    for count in range(1, 4):
        held.calls.submit("put")
        held.returned(count)
    assert held.opened.call("count") == 0


def test_the_queue_is_left_and_taken_up_again(held):
    held.dispatcher.backlog.deactivate()
    held.opened.call("put_later")
    held.dispatcher.backlog.activate()
    held.opened.drain()
    assert held.opened.call("count") == 1
    held.dispatcher.backlog.deactivate()
    held.opened.call("put_later")
    held.dispatcher.hold(held.give_back)
    assert [queued.function for queued in held.opened.engine.queued(10)] == ["put"]
    held.dispatcher.resume()
    held.dispatcher.backlog.activate()
    held.opened.drain()
    assert held.opened.call("count") == 2


def test_holds_at_any_moment_lose_no_call_and_run_none_twice(held, together):
    """Calls that are given back are sent again under their ids, as the server does."""
    replies = {}
    failed = []

    def send_again(call: Call) -> None:
        held.dispatcher.submit(call, replies[call.id])

    def hold_often() -> None:
        for _ in range(100):
            held.dispatcher.hold(send_again)
            held.dispatcher.resume()

    def write() -> None:
        for _ in range(100):
            answered = threading.Event()

            def reply(call: Call, outcome: Outcome, answered: threading.Event = answered) -> None:
                failed.extend([outcome.error] if outcome.error else [])
                answered.set()

            call = Call(new_id(), "put", b"{}", roles=frozenset({"admin"}))
            replies[call.id] = reply
            held.dispatcher.submit(call, reply)
            assert answered.wait(WAIT_SECONDS)

    together(lambda work: work(), [hold_often, write, write, write, write])
    assert not failed
    assert held.opened.call("count") == 400
