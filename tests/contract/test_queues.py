"""Queues with limits, on every engine: who is first, what waits once only, exactly once whatever the limit."""

import json
import time
from itertools import pairwise

import pytest


@pytest.fixture
def ran(contract):
    """A function: the ids of the calls of the queue `turns` that ran, in the order of their records."""

    def ran() -> list[int]:
        rows = contract.look(
            f"select input from {contract._log}calls where function in ('take_turn', 'act_in_turn') order by seq"
        )
        return [json.loads(row[0])["id"] for row in rows]

    return ran


@pytest.fixture
def stopped(contract):
    """The app, whose queue is not run until it is activated; afterwards, it is run again."""
    backlog = contract.opened._dispatcher.backlog
    backlog.deactivate()
    yield contract
    backlog.activate()


def go_on(contract) -> None:
    contract.opened._dispatcher.backlog.activate()
    contract.drain()


def test_the_urgent_first_and_then_each_share_in_turn(stopped, ran):
    def body(tx, app):
        for id in range(20):
            tx.enqueue(app.take_turn, id, "large")
        tx.enqueue(app.take_turn, 100, "small")
        tx.enqueue(app.take_turn.with_options(priority=1), 200, "large")
        tx.enqueue(app.take_turn.with_options(priority=-1), 300, "tiny")

    stopped.run(body)
    go_on(stopped)
    assert ran() == [200, 0, 100, *range(1, 20), 300]
    assert stopped.waiting() == 0


def test_what_waits_under_a_name_waits_once(stopped, ran):
    def body(tx, app):
        once = app.take_turn.with_options(unique="a")
        quiet = app.act_in_turn.with_options(unique="a", debounce=0.05)
        return [tx.enqueue(once, 1), tx.enqueue(once, 2)], [tx.enqueue(quiet, id) for id in (3, 4, 5)]

    once, quiet = stopped.run(body)
    more, _ = stopped.run(body)
    assert len({*once, *more}) == 1
    assert len(set(quiet)) == 1
    go_on(stopped)
    assert sorted(ran()) == [1, 5]
    assert not {*stopped.run(body)[0]} & {*once}
    go_on(stopped)
    assert sorted(ran()) == [1, 1, 5, 5]


def test_a_name_that_was_given_in_a_part_that_is_undone_is_free(contract):
    def body(tx, app):
        once = app.take_turn.with_options(unique="a")

        def part():
            app.play(tx, [["enqueue", [["write", 5]]], ["fail", "value"]])

        failed = app.attempt(part)
        return failed, tx.enqueue(once, 1)

    contract.run(body)
    contract.drain()
    assert contract.notes() == [1]


def test_a_delay_holds(contract, ran):
    def body(tx, app):
        tx.enqueue(app.take_turn.with_options(delay=0.2), 1)
        tx.enqueue(app.take_turn, 2)

    now = time.monotonic()
    contract.run(body)
    contract.drain()
    assert time.monotonic() - now > 0.2
    assert ran() == [2, 1]


def test_workflows_follow_one_another(contract):
    def body(tx, app):
        return [tx.enqueue(app.go_in_turn, id) for id in range(4)]

    contract.run(body)
    while len(contract.notes()) < 4:  # a workflow that sleeps is not waited for
        contract.drain()
    assert contract.notes() == [0, 1, 2, 3]
    look = f"select started, duration from {contract._log}calls where kind = 'workflow' order by seq"
    times = [(row[0], row[0] + row[1]) for row in contract.look(look)]
    assert len(times) == 4
    assert all(ended <= began for (_, ended), (began, _) in pairwise(times))


def test_a_workflow_that_somebody_starts_waits_for_its_turn_and_is_answered(contract):
    assert contract.call("go_in_turn", 7) == 7
    assert contract.code("go_in_turn", id="x") == "wrong_arguments"
    assert contract.waiting() == 0


def test_the_same_name_given_by_many_at_once_is_one_call(crowded, together):
    def body(tx, app):
        return tx.enqueue(app.take_turn.with_options(unique="a", delay=3600), 1)

    ids = together(lambda number: crowded.run(body), range(16))
    assert len(set(ids)) == 1
    assert crowded.waiting() == 1


def test_a_call_that_somebody_removed_is_forgotten(contract):
    def body(tx, app):
        tx.enqueue(app.take_turn.with_options(unique="a", debounce=0.1), 1)

    contract.run(body)
    contract.look(f"delete from {contract._log}queue")
    contract.drain()
    assert contract.notes() == []


def test_a_rate_is_kept_by_the_database(contract):
    engine = contract.opened.engine
    granted = [engine.admit("rated", 3, 5, 60.0) for _ in range(3)]
    assert [number for number, _ in granted] == [3, 2, 0]
    assert 55 < granted[2][1] <= 60
    assert engine.admit("other", 3, 5, 60.0)[0] == 3
    assert engine.admit("rated", 1, 5, 0.0001)[0] == 1


def test_a_queue_is_paused_and_goes_on(contract):
    def body(tx, app):
        for id in range(3):
            tx.enqueue(app.take_turn, id)

    assert contract.code("apiary.pause", queue="turns") == "ok"
    contract.run(body)
    assert contract.waiting() == 3
    assert contract.opened._dispatcher.backlog.take(10) == []
    assert contract.code("apiary.unpause", queue="turns") == "ok"
    contract.drain()
    assert contract.notes() == [0, 1, 2]
    assert contract.code("apiary.pause", queue="none") == "not_found"


def test_a_queued_call_of_what_is_a_workflow_by_now_fails(contract):
    def body(tx, app):
        return tx.enqueue(app.go_in_turn, 1)

    contract.opened._dispatcher.backlog.deactivate()
    try:
        contract.run(body)
        contract.look(f"update {contract._log}queue set epoch = 0, roles = null, step = null")
    finally:
        contract.opened._dispatcher.backlog.activate()
    contract.drain()
    look = f"select status, error from {contract._log}calls where function = 'go_in_turn'"
    ((status, error),) = contract.look(look)
    assert (status, json.loads(error)["code"], contract.waiting()) == ("failed", "unknown_function", 0)
