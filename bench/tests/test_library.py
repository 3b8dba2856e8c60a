"""Programs of libraries answer line by line, tell what failed, and load themselves from threads."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.library import Program
from bench.loop import MOST_FAILURES
from bench.mix import UNIFORM
from bench.probe import CallFailed
from bench.process import ServerFailed
from bench.workloads import WORKLOADS

PROGRAM = """
import sys, time
from bench.library import serve

def call(function, arguments):
    print("this is no answer")
    if function == "five":
        raise ValueError("five is too many")
    if function == "end":
        sys.exit("the program has had enough")
    time.sleep(0.01)
    return [function, arguments]

serve(call, lambda function, arguments: ["queued", function])
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A program that is no library's."""
    program = Program([sys.executable, "-c", PROGRAM], tmp_path / "log", {})
    yield program
    program.stop()


def test_calls_are_answered(program: Program) -> None:
    assert program.call("one", {"item": 3}) == ["one", {"item": 3}]
    assert program.call("one", {}, queued=True) == ["queued", "one"]


def test_a_call_that_fails_says_so(program: Program) -> None:
    with pytest.raises(CallFailed, match="five is too many"):
        program.call("five", {})
    assert program.call("one", {}) == ["one", {}]


def test_a_program_that_ends_says_so(program: Program) -> None:
    with pytest.raises(ServerFailed, match="the program has had enough"):
        program.call("end", {})


def test_a_closed_loop_of_threads(program: Program) -> None:
    seen = program.load(WORKLOADS["workflow1"], UNIFORM, seed=1, clients=4, seconds=0.5)
    assert 8 <= seen.requests <= 204
    assert seen.failures == 0
    assert seen.seconds >= 0.5
    assert 10_000 <= seen.p50_us <= seen.max_us


def test_failures_are_counted_and_end_a_client(program: Program) -> None:
    seen = program.load(WORKLOADS["workflow5"], UNIFORM, seed=1, clients=2, seconds=0.5)
    assert seen.failures == seen.requests == 2 * MOST_FAILURES
    assert seen.requests_per_second == 0
