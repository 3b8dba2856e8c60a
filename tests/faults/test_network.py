"""The network between lanes and server is cut at any message, or swallows all: effects are there once, answers true."""

import threading
import time
from contextlib import closing

import pytest
from bench.proxy import Direction, Kind
from tests.faults.conftest import UNKNOWN, eventually, new_key

from apiary.engine.postgres.connection import Access
from apiary.engine.postgres.errors import NotConnected

WRITERS = 1
"""So that the next message is one of the call that a test makes."""
MANY = 100
TIMEOUT_SECONDS = 30.0
"""Of the functions of the app."""
SOON_SECONDS = TIMEOUT_SECONDS - 5.0


def cut(world, direction, function, number, keyed):
    """Cut the connection at a message of a call, which happens all the same, once; returns the fault."""
    key = new_key()
    assert world.run("effect", key=new_key()).error is None
    fault = world.proxy.fault(Kind.CUT, direction, number)
    outcome = world.run(function, _key=key if keyed else None, key=key)
    world.proxy.heal()
    assert outcome.error is None
    if function == "later":
        eventually(lambda: len(world.numbers(key)) == 1)
    else:
        world.true(outcome, key)
    return fault


@pytest.mark.parametrize("direction", Direction, ids=["before", "after"])
def test_a_connection_may_be_cut_at_the_first_the_middle_and_the_last_message(world, direction):
    messages = min(MANY - cut(world, direction, "effect", MANY, keyed=True).left for _ in range(4))
    assert messages > 2
    for number in (1, messages // 2 + 1, messages):
        assert cut(world, direction, "effect", number, keyed=number > 1).hit.is_set()


@pytest.mark.soak
@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "unkeyed"])
@pytest.mark.parametrize("direction", Direction, ids=["before", "after"])
@pytest.mark.parametrize("function", ["effect", "later"])
def test_a_connection_may_be_cut_at_any_message_of_any_call(world, direction, function, keyed):
    for number in range(1, MANY):
        if not cut(world, direction, function, number, keyed).hit.is_set():
            break
    assert 3 < number < MANY - 1


def test_a_network_that_falls_silent_as_soon_as_there_is_a_connection(inside, hasty, promptly):
    """The first question on it is watched, too: it is the last message of opening one."""
    with closing(Access(inside.target)) as access:
        counting = inside.proxy.fault(Kind.CUT, Direction.TO_SERVER, MANY)
        first = access.open()
        fault = inside.proxy.fault(Kind.SWALLOW, Direction.TO_SERVER, MANY - counting.left)
        with pytest.raises(NotConnected, match="was lost"):
            promptly(access.open)
        assert fault.hit.is_set()
        inside.proxy.heal()
        first.close()


def silent(world, kind, seconds):
    """Calls do not hang while the network says nothing; afterwards all is well, by itself."""
    world.works()
    world.proxy.silence(kind)
    started = time.monotonic()
    keys = [new_key() for _ in range(6)]
    pending = [world.submit("touch", key=key, row=1) for key in keys[:3]]
    pending += [world.submit("effect", _key=key, key=key) for key in keys[3:]]
    pending += [world.submit("effects", key="any"), world.submit("act", key="any", _key=keys[0])]
    outcomes = [one.outcome() for one in pending]
    assert time.monotonic() - started < seconds
    assert {one.error and one.error["status"] for one in outcomes[:3]} <= {503, 504}
    assert {one.error and one.error["status"] for one in outcomes[3:]} == {503}
    world.proxy.heal()
    world.recovers()
    for key in keys[3:]:
        again = world.run("effect", _key=key, key=key)
        assert again.error is None
        world.true(again, key)
    for key, outcome in zip(keys[:3], outcomes[:3], strict=True):
        world.true(outcome, key)
    world.works()


@pytest.mark.soak
def test_calls_do_not_hang_where_the_network_is_silent(world, impatient):
    silent(world, Kind.SWALLOW, SOON_SECONDS)


@pytest.mark.soak
@pytest.mark.parametrize("kind", [Kind.SWALLOW, Kind.HOLD])
def test_calls_do_not_hang_beyond_their_timeout(world, kind):
    silent(world, kind, TIMEOUT_SECONDS + 6.0)


@pytest.mark.soak
def test_a_call_with_a_short_timeout_is_answered_soon(world):
    world.works()
    world.proxy.silence(Kind.SWALLOW)
    started = time.monotonic()
    keys = [new_key(), new_key()]
    outcomes = [world.run("touch", key=keys[0], row=1)]
    assert time.monotonic() - started < SOON_SECONDS
    started = time.monotonic()
    outcomes.append(world.run("touch", key=keys[1], row=1))
    assert time.monotonic() - started < 2.5  # so long it takes to find out that nobody answers
    assert (outcomes[1].error["status"], UNKNOWN in outcomes[1].error["detail"]) == (503, False)
    world.proxy.heal()
    for key, outcome in zip(keys, outcomes, strict=True):
        world.true(outcome, key)


@pytest.mark.soak
@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "unkeyed"])
def test_what_arrives_late_takes_effect_once(world, hasty, keyed):
    """The statement is on its way when its lane gives up, and is sent again; then both arrive."""
    world.works()
    key = new_key()
    world.proxy.fault(Kind.HOLD, Direction.TO_CLIENT, 1)
    pending = world.submit("slow_effect", _key=key if keyed else None, key=key, seconds=0.5)
    world.proxy.silence(Kind.HOLD)
    threading.Timer(3.5, world.proxy.heal).start()
    outcome = pending.outcome()
    assert outcome.error is None
    world.true(outcome, key)
    world.works()


def test_a_call_that_takes_long_is_not_taken_for_lost(world, hasty):
    """The server is asked, and says that it works."""
    key = new_key()
    before = set(world.backends())
    outcome = world.run("effect_then_sleep", key=key, seconds=2.0)
    assert outcome.error is None
    world.true(outcome, key)
    assert set(world.backends()) == before


def test_connections_that_end_while_nothing_is_asked(world):
    """A firewall forgets them: whatever comes next is answered all the same."""
    world.works()
    world.proxy.silence(Kind.SWALLOW)
    world.submit("effect", key=new_key())  # so that there is something to lose
    time.sleep(0.1)
    world.proxy.heal()
    world.works()
