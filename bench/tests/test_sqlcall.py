"""The measurement of calls from SQL runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.tests.conftest import ROOT

SECONDS_ALLOWED = 120


@pytest.mark.soak
def test_both_statements_are_measured(local_postgres: Path, tmp_path: Path) -> None:
    file = tmp_path / "sqlcall.json"
    argv = [sys.executable, "-m", "bench.sqlcall", "--runs", "1", "--seconds", "1", "--clients", "2"]
    done = subprocess.run(
        [*argv, "--json", str(file)], check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED
    )
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(file.read_text())
    assert all(rate > 0 for rates in result["rates"].values() for rate in rates)
    assert "of select 1" in done.stdout
