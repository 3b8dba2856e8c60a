"""Functions that collide: for how long they are known, whose turn it is, and where their calls go."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from apiary.engine.jobs import Job
from apiary.engine.postgres import turns
from apiary.engine.postgres.turns import LONGEST_SECONDS, SHORTEST_SECONDS, Turns
from apiary.engine.routes import Routes
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call


class Shared:
    """The turn of all processes, counted."""

    def __init__(self):
        self.taken_times = 0

    @contextmanager
    def taken(self):
        self.taken_times += 1
        yield

    def close(self):
        """Nothing to give back."""


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def shared():
    return Shared()


@pytest.fixture
def known(shared):
    return Turns(shared)


def span(known, clock):
    """For how long a function that collides now is known to; the clock is then at the end of that."""
    known.lost(["move"], in_turn=False)
    begun = clock.seconds
    while known.collides("move"):
        clock.seconds += SHORTEST_SECONDS / 4
    return clock.seconds - begun


def test_a_function_that_collides_again_and_again_is_known_for_longer(known, clock):
    assert not known.collides("move")
    assert [span(known, clock) for _ in range(3)] == [SHORTEST_SECONDS, 2 * SHORTEST_SECONDS, 4 * SHORTEST_SECONDS]
    assert [span(known, clock) for _ in range(9)][-1] == LONGEST_SECONDS
    clock.seconds += LONGEST_SECONDS
    assert span(known, clock) == SHORTEST_SECONDS
    assert not known.collides("other")


def test_people_are_told_once(known, clock, caplog):
    for _ in range(3):
        span(known, clock)
    assert [record.getMessage() for record in caplog.records] == [
        "calls of move change the same rows at the same time: they run one after another then"
    ]


def test_what_is_known_already_is_not_known_for_twice_as_long(known, clock):
    known.lost(["move"], in_turn=False)
    known.lost(["move"], in_turn=False)
    assert span(known, clock) == SHORTEST_SECONDS


def test_batches_with_a_function_that_collides_take_turns(known, shared):
    with known.taken(["move"], 1.0) as first, known.taken(["move"], 1.0) as second:
        assert (first, second) == (False, False)
    known.lost(["move"], in_turn=False)
    with known.taken(["other", "move"], 1.0) as first:
        assert first
        with known.taken(["other"], 1.0) as second, known.taken(["move"], 0.0) as third:
            assert (second, third) == (False, False)
    with known.taken(["move"], 0.0) as again:
        assert again
    assert shared.taken_times == 0


def test_who_loses_in_its_turn_takes_the_turn_of_all_processes(known, shared, clock):
    known.lost(["move"], in_turn=True)
    with known.taken(["move"], 1.0), known.taken(["other"], 1.0):
        assert shared.taken_times == 1
    clock.seconds += SHORTEST_SECONDS
    known.lost(["move"], in_turn=False)
    with known.taken(["move"], 1.0):
        assert shared.taken_times == 1


def test_a_turn_ends_with_its_batch_whatever_becomes_of_it(known):
    known.lost(["move"], in_turn=False)
    with pytest.raises(ZeroDivisionError), known.taken(["move"], 1.0):
        raise ZeroDivisionError
    taken = threading.Event()

    def take():
        with known.taken(["move"], 1.0) as given:
            if given:
                taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert taken.is_set()


def job(function):
    return Job(Call(new_id(), function, b"{}", "tester", frozenset(), None), None, lambda call, outcome: None)


def test_calls_that_collide_meet_in_the_last_lane():
    colliding = set()
    routes = Routes(3, colliding.__contains__)
    for _ in range(6):
        routes.put(job("move"))
    assert [queue.qsize() for queue in routes.queues] == [2, 2, 2]
    colliding.add("move")
    routes.put(job("move"))
    assert [queue.qsize() for queue in routes.queues] == [2, 2, 3]


def test_what_other_lanes_have_of_them_moves_there():
    colliding = {"move"}
    routes = Routes(2, colliding.__contains__)
    jobs = [job("move"), job("other"), job("move")]
    assert routes.here(routes.queues[0], jobs) == [jobs[1]]
    assert [routes.queues[1].get_nowait() for _ in range(2)] == [jobs[0], jobs[2]]
    assert routes.here(routes.queues[1], jobs) == jobs
    colliding.clear()
    assert routes.here(routes.queues[0], jobs) == jobs
