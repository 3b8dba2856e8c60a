"""The contract of many callers: calls have the effect of running one after another; no conflict reaches a caller."""

import random

import pytest

from apiary import OpenApp

THREADS = 16


def test_increments_of_one_row_are_not_lost(crowded, together):
    def several(_):
        return [crowded.call("add", "a") for _ in range(12)]

    results = together(several, range(THREADS))
    assert sorted(value for values in results for value in values) == list(range(1, THREADS * 12 + 1))
    assert crowded.counters()["a"] == THREADS * 12


def test_what_one_reads_and_the_other_writes_happens_in_some_order(crowded, together):
    """Each writes a row that no other writes: only what they read tells that they collide."""
    for _ in range(6):
        crowded.look("delete from doctors")
        names = [f"doctor {number}" for number in range(THREADS)]
        for name in names:
            crowded.look(f"insert into doctors (name, on_call) values ('{name}', true)")
        gone = together(lambda name: crowded.call("go_home", name), names)
        assert gone.count(True) == THREADS - 1
        assert len(crowded.look("select name from doctors where on_call")) == 1


def test_a_number_that_is_counted_is_counted_once(crowded, together):
    def several(_):
        return [crowded.call("count_up") for _ in range(5)]

    results = together(several, range(THREADS))
    assert sorted(value for values in results for value in values) == list(range(THREADS * 5)) == crowded.notes()


def test_the_sum_is_the_same_in_every_snapshot(crowded, together):
    crowded.look("update counters set value = 1000")
    totals = """
def total(tx, app):
    first = tx.execute("select value from counters where name = 'a'").scalar()
    return first + tx.execute("select value from counters where name = 'b'").scalar()
"""

    def work(number):
        chance = random.Random(number)
        if number % 4 == 0:
            return {crowded.call("evaluate_query", totals, "total", "{}") for _ in range(30)}
        for _ in range(15):
            source, target = chance.sample("ab", 2)
            crowded.call("transfer", source, target, chance.randrange(5))
        return {"2000"}

    assert together(work, range(THREADS)) == [{"2000"}] * THREADS
    assert sum(crowded.counters().values()) == 2000


def test_transfers_that_wait_for_each_other_are_all_made(crowded, together):
    """Each pair of them may deadlock, and no key would keep them apart."""
    crowded.look("update counters set value = 1000")

    def several(number):
        chance = random.Random(number)
        return [crowded.outcome("transfer", source=pair[0], target=pair[1], amount=1).error for pair in pairs(chance)]

    def pairs(chance):
        return [chance.sample("ab", 2) for _ in range(20)]

    assert together(several, range(THREADS)) == [[None] * 20] * THREADS
    moved = sum((-1) ** (pair[0] == "a") for number in range(THREADS) for pair in pairs(random.Random(number)))
    assert crowded.counters() == {"a": 1000 + moved, "b": 1000 - moved}


def test_a_deadlock_is_found_soon(postgres_contract):
    def patience(tx, app):
        return tx.execute("show deadlock_timeout").scalar()

    assert postgres_contract.run(patience) == "50ms"


@pytest.mark.parametrize("name", ["inside", "beside"])
def test_calls_that_collided_meet(opened_contracts, together, name):
    """What collides is known, and then nothing is run in vain; what does not collide is not held up by that."""
    crowded = opened_contracts(name, 4)
    crowded.look("update counters set value = 1000")
    engine = crowded.opened._dispatcher.engine
    together(lambda number: [crowded.call("transfer", *"ab"[:: (-1) ** number], 1) for _ in range(20)], range(THREADS))
    assert engine.collides("transfer")
    assert not engine.collides("count_up")


@pytest.mark.parametrize("name", ["inside", "beside"])
def test_processes_that_collide_take_turns(opened_contracts, contract_app, databases, platform, together, name):
    """Two that know nothing of each other, as the hosts of two servers."""
    crowded = opened_contracts(name, 4)
    make, look, _ = databases(name)
    with OpenApp(contract_app, make(writers=2, readers=1)) as opened:
        apps = [crowded.opened, opened]

        def several(number):
            return [apps[number % 2].call("add", "a") for _ in range(12)]

        results = together(several, range(THREADS))
    assert sorted(value for values in results for value in values) == list(range(1, THREADS * 12 + 1))
    assert crowded.counters()["a"] == THREADS * 12
    assert look("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]


@pytest.mark.parametrize("name", ["inside", "beside"])
def test_a_turn_of_all_processes_is_a_lock_for_which_nobody_waits_long(opened_contracts, name, databases):
    def locks(tx, app):
        return tx.execute("select count(*) from pg_locks where locktype = 'advisory' and granted").scalar()

    crowded = opened_contracts(name, 4)
    turns = crowded.opened._dispatcher.engine._turns
    _, look, log = databases(name)
    assert crowded.run(locks) == 0
    turns.lost(["evaluate"], in_turn=True)
    assert crowded.run(locks) == 1
    look(f"select pg_advisory_lock(hashtextextended('{log.rstrip('.')}', 0))")
    turns.lost(["evaluate"], in_turn=True)
    assert crowded.run(locks) == 1
    look("select pg_advisory_unlock_all()")


def test_queued_calls_of_many_callers_run_once_each(crowded, together):
    together(lambda number: crowded.call("add_later", "ab"[number % 2], [1, 10, 100]), range(THREADS))
    crowded.drain()
    assert crowded.counters() == {"a": 111 * THREADS // 2, "b": 100 + 111 * THREADS // 2}
    assert crowded.waiting() == 0
    records = crowded.records(THREADS * 4)
    assert {record["status"] for record in records} == {"ok"}
    assert len(records) == THREADS * 4


@pytest.mark.parametrize("how", ["rejected", "error", "constraint"])
def test_failures_beside_successes(crowded, together, how):
    """What fails in one lane says nothing to the others, and what it saw was true."""

    def several(number):
        if number % 2:
            return [crowded.call("add", "a") for _ in range(6)]
        return [crowded.outcome("add_then_fail", how=how).error for _ in range(6)]

    results = together(several, range(THREADS))
    assert sorted(value for values in results[1::2] for value in values) == list(range(1, THREADS * 3 + 1))
    crowded.drain()
    assert crowded.counters()["a"] == THREADS * 3
    codes = {error["code"] for errors in results[::2] for error in errors}
    assert codes == {{"rejected": "not_today", "error": "internal_error", "constraint": "constraint_violated"}[how]}
    records = [record for record in crowded.records(THREADS * 6) if record["function"] == "add_then_fail"]
    assert {record["status"] for record in records} == {"rejected" if how == "rejected" else "failed"}


def test_an_error_that_a_function_makes_of_a_conflict_is_not_its_outcome(crowded, together):
    """`except Exception` catches a conflict too; what the function then says is not to be believed."""
    body = """
def stubborn(tx, app):
    value = tx.execute("select value from counters where name = 'a'").scalar()
    try:
        tx.execute("update counters set value = :value where name = 'a'", value=value + 1)
    except Exception as error:
        raise app.Rejected("somebody else was faster") from error
    return value
"""

    def several(_):
        return [int(crowded.call("evaluate", body, "stubborn", "{}")) for _ in range(10)]

    results = together(several, range(THREADS))
    assert sorted(value for values in results for value in values) == list(range(THREADS * 10))
    swallowed = body.replace('raise app.Rejected("somebody else was faster") from error', "return -1")
    results = together(
        lambda _: [int(crowded.call("evaluate", swallowed, "stubborn", "{}")) for _ in range(5)], range(THREADS)
    )
    assert sorted(value for values in results for value in values) == list(range(THREADS * 10, THREADS * 15))
