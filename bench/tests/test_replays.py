"""Recorded calls of a workload are run again, and come to the same."""

import subprocess
import sys

from bench.tests.conftest import ROOT

SECONDS_ALLOWED = 120


def test_calls_of_a_workload_come_to_the_same_again():
    argv = [sys.executable, "-m", "bench.replays", "--workload", "increment", "--calls", "30"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("increment    30 same; ")
