"""Who waits for workflows: told once, in time, whether the end comes here or is found in the database."""

import threading
import time

import pytest

from apiary.engine import waiters as module
from apiary.engine.waiters import Waiters
from apiary.runtime.errors import DatabaseUnavailable, Unavailable
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call, Outcome, Record

SECONDS = 20.0


class Found:
    """What is found in the database, and how often it was looked for."""

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}
        self.asked: list[list[bytes]] = []
        self.fails = 0

    def find(self, identifiers):
        self.asked.append(list(identifiers))
        if self.fails:
            self.fails -= 1
            raise DatabaseUnavailable("not now")
        return [self.records[identifier] for identifier in identifiers if identifier in self.records]

    def end(self, workflow: bytes) -> None:
        self.records[workflow] = Record(workflow, "f", "workflow", "v", "c", 1, 0, 0, "ok", b"{}", b"7")


class Told:
    """A reply, and what it was told."""

    def __init__(self) -> None:
        self.call = Call(new_id(), "f", b"{}")
        self.outcomes: list[Outcome] = []
        self._came = threading.Event()

    def reply(self, call: Call, outcome: Outcome) -> None:
        assert call is self.call
        self.outcomes.append(outcome)
        self._came.set()

    def one(self) -> Outcome:
        assert self._came.wait(SECONDS)
        (outcome,) = self.outcomes
        return outcome


@pytest.fixture
def found():
    return Found()


@pytest.fixture
def waiters(found):
    waiters = Waiters(found.find)
    yield waiters
    waiters.close(Unavailable("closed"))


def test_an_end_is_told_to_all_who_wait_and_once(waiters, found):
    caller, other = Told(), Told()
    workflow = caller.call.id
    waiters.add(workflow, caller.call, caller.reply, None)
    waiters.add(workflow, other.call, other.reply, 60, begun=True)
    assert waiters.tell(workflow, Outcome(b"1"))
    assert not waiters.tell(workflow, Outcome(b"2"))
    assert (caller.one().output, caller.one().replayed) == (b"1", None)
    assert (other.one().output, other.one().replayed) == (b"1", workflow)


def test_nobody_is_told_to_go_on_waiting_before_it_has_begun(waiters, found):
    caller = Told()
    waiters.add(caller.call.id, caller.call, caller.reply, 0.0)
    assert caller.outcomes == []
    waiters.begun(caller.call.id)
    assert caller.one().pause is not None
    assert caller.one().pause.of is None


def test_who_waits_for_a_time_is_told_when_it_is_over(waiters, found):
    began = time.monotonic()
    caller, other = Told(), Told()
    waiters.add(caller.call.id, caller.call, caller.reply, 0.1)
    waiters.begun(caller.call.id)
    waiters.add(caller.call.id, other.call, other.reply, 0.2, begun=True)
    assert caller.one().pause is not None
    assert other.one().pause.of == caller.call.id
    assert time.monotonic() - began >= 0.2
    assert waiters.workflows() == []


def test_an_end_elsewhere_is_found_whatever_fails_meanwhile(waiters, found):
    caller, workflow = Told(), new_id()
    waiters.add(caller.call.id, caller.call, caller.reply, None)
    found.fails = 2
    waiters.join(caller.call.id, workflow)
    found.end(workflow)
    assert (caller.one().output, caller.one().replayed) == (b"7", workflow)


def test_all_are_looked_for_in_one_question(waiters, found, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", (0.1, 0.1))
    told = [Told() for _ in range(50)]
    workflows = [new_id() for _ in told]
    for one, workflow in zip(told, workflows, strict=True):
        waiters.add(workflow, one.call, one.reply, None, begun=True)
    end = time.monotonic() + SECONDS
    while len(found.asked) < 55 and max(map(len, found.asked), default=0) < 50:
        assert time.monotonic() < end
        time.sleep(0.01)
    for workflow in workflows:
        found.end(workflow)
    assert {one.one().output for one in told} == {b"7"}
    assert max(map(len, found.asked)) == 50


def test_who_waits_when_all_is_closed_is_told_so(found):
    waiters, caller = Waiters(found.find), Told()
    waiters.add(caller.call.id, caller.call, caller.reply, None)
    waiters.begun(caller.call.id)
    before = threading.active_count()
    waiters.close(Unavailable("closed"))
    assert isinstance(caller.one().cause, Unavailable)
    assert threading.active_count() < before
    late = Told()
    waiters.add(caller.call.id, late.call, late.reply, None, begun=True)
    assert isinstance(late.one().cause, Unavailable)


def test_no_thread_is_left_where_nobody_waits(waiters, found):
    caller = Told()
    waiters.add(caller.call.id, caller.call, caller.reply, 0.05)
    waiters.begun(caller.call.id)
    caller.one()
    end = time.monotonic() + SECONDS
    while any(thread.name == "apiary-waiters" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
