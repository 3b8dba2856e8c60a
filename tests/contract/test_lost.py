"""The contract of connections that go away: calls are run again, take effect once, and nobody hears of it."""

import time
from threading import Semaphore

import pytest

WAIT_SECONDS = 10.0
OURS = "from pg_stat_activity where datname = current_database() and usename like '%contract'"
TERMINATE = f"select pg_terminate_backend(pid) {OURS}"
ASLEEP = f"select pid {OURS} and wait_event = 'PgSleep'"


@pytest.fixture(autouse=True)
def connected_again(postgres_contract):
    """For the tests after these, all lanes have connections."""
    yield
    postgres_contract.call("add", "a")
    postgres_contract.call("read", "a")


def wait_for(contract, statement):
    deadline = time.monotonic() + WAIT_SECONDS
    while not contract.look(statement):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sleep_once(tx, app):
    """Sleeps in its first run only: what a sequence counts is not undone."""
    app.write(tx, 1)
    tx.enqueue(app.add, "a")
    if tx.execute("select nextval('runs')").scalar() == 1:
        tx.execute("select pg_sleep(8)")
    return tx.execute("select id from notes").scalars()


@pytest.mark.parametrize("key", [None, "a-key"])
def test_a_call_whose_connection_goes_away_is_run_again(postgres_contract, key):
    postgres_contract.look(
        "create sequence if not exists runs; alter sequence runs restart; grant all on runs to public"
    )
    pending = postgres_contract.submit("evaluate", _key=key, **postgres_contract.sent(sleep_once))
    others = [postgres_contract.submit("add", name="a") for _ in range(3)]
    wait_for(postgres_contract, ASLEEP)
    assert postgres_contract.look(TERMINATE)
    assert pending.outcome().output == b'"[1]"'
    assert all(other.outcome().error is None for other in others)
    postgres_contract.drain()
    assert (postgres_contract.notes(), postgres_contract.counters()["a"]) == ([1], 4)
    first = postgres_contract.records(5)[0]
    assert (first["status"], first["attempt"], first["key"]) == ("ok", 2, key)


def test_connections_that_went_away_while_nothing_ran_are_made_again(postgres_contract):
    for number in range(1, 4):
        postgres_contract.look(TERMINATE)
        assert postgres_contract.call("add", "a") == number
        assert postgres_contract.call("read", "a") == number
        assert postgres_contract.code("add_then_fail", how="rejected") == "not_today"


def test_nothing_is_lost_or_done_twice_while_connections_go_away(postgres_contract, together):
    """Whatever a connection was doing: running, committing, or waiting for the next batch."""
    answered = Semaphore(0)
    over = False

    def terminate():
        for _ in range(4):
            for _ in range(20):
                assert answered.acquire(timeout=WAIT_SECONDS)
            postgres_contract.look(TERMINATE)

    def work(number):
        nonlocal over
        if number == 0:
            try:
                return terminate() or []
            finally:
                over = True
        done = []
        while not over:
            outcome = postgres_contract.outcome("add", _key=f"{number} {len(done)}" if number % 2 else None, name="a")
            assert outcome.error is None
            done.append(int(outcome.output))
            answered.release()
        return done

    results = together(work, range(6))
    values = sorted(value for done in results for value in done)
    assert values == list(range(1, len(values) + 1))
    assert postgres_contract.counters()["a"] == len(values)
