"""The contract of deadlines: a function that runs too long is stopped, keeps nothing, and harms nobody else."""

import pytest

# A stop that arrives in a finalizer is lost there, as Python has it; the next one is sent soon after.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ENDLESS = [
    "loop",
    "loop_in_query",
    "statements",
    "long_read",
    "long_write",
    "long_query",
    "asleep",
    "nested_without_end",
    "stubborn",
    "stubborn_in_sql",
    "turns_it_into_a_refusal",
]


def is_stopped(contract, function):
    contract.call("add", "a")  # no time goes into waking up
    outcome = contract.outcome(function)
    assert (outcome.error["code"], outcome.error["status"]) == ("deadline_exceeded", 504)
    assert outcome.duration > 0
    contract.drain()
    assert (contract.notes(), contract.counters()["a"]) == ([], 1)
    assert contract.call("add", "a") == 2
    assert contract.call("read", "a") == 2
    stopped = [record for record in contract.records(4) if record["function"] == function]
    assert [record["status"] for record in stopped] == ["stopped"]
    assert stopped[0]["lines"][0] == {"message": "it began"}


@pytest.mark.parametrize("function", ENDLESS)
def test_a_function_that_runs_too_long_is_stopped(contract, function):
    is_stopped(contract, function)


def test_a_statement_that_sleeps_is_stopped(postgres_contract):
    is_stopped(postgres_contract, "asleep_in_sql")


@pytest.mark.parametrize("function", ["loop", "long_write", "asleep", "nested_without_end", "stubborn_in_sql"])
def test_the_others_of_its_batch_are_answered_and_kept(contract, function):
    contract.call("add", "a")
    before = [contract.submit("add", _key=f"before {number}", name="a") for number in range(5)]
    stopped = contract.submit(function, _key="stopped")
    after = [contract.submit("add", _key=f"after {number}", name="a") for number in range(5)]
    assert stopped.outcome().error["code"] == "deadline_exceeded"
    assert [int(one.outcome().output) for one in (*before, *after)] == list(range(2, 12))
    assert contract.counters()["a"] == 11


def test_a_stop_never_reaches_another_call(contract):
    """Calls that end at about their deadline, many of them: each is done and kept, or stopped and not."""
    kept = []
    for number in range(50):
        risky = contract.submit("straddle", id=number * 2, rest=(number % 20) / 1000 - 0.005)
        safe = contract.submit("innocent", id=number * 2 + 1)
        outcome = risky.outcome()
        if outcome.error is None:
            kept.append(number * 2)
        else:
            assert outcome.error["code"] == "deadline_exceeded"
        assert safe.outcome().error is None
        kept.append(number * 2 + 1)
    assert contract.notes() == kept
