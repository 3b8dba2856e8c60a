"""The measurement of conflicts runs, on two servers that share a database."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.tests.conftest import ROOT

SECONDS_ALLOWED = 120


@pytest.mark.soak
def test_all_functions_are_measured(local_postgres: Path, wrk: str, tmp_path: Path) -> None:
    file = tmp_path / "conflicts.json"
    short = ["--runs", "1", "--seconds", "1", "--clients", "4", "--servers", "2", "--rows", "100"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.conflicts", *short, "--json", str(file)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=SECONDS_ALLOWED,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    cases = json.loads(file.read_text())["cases"]
    assert [(case["function"], case["keys"]) for case in cases] == [
        (function, keys) for function in ("keyed", "unkeyed", "move") for keys in ("uniform", "zipf")
    ]
    assert all(case["rate"] > 0 and case["failures"] == 0 for case in cases)
