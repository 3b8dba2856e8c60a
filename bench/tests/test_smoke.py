"""Every workload and every peer runs: a second of each, through the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import floor
from bench.tests.conftest import ROOT
from bench.workloads import WORKLOADS

SECONDS_ALLOWED = 120


def bench(tmp_path: Path, *options: str) -> dict[str, Any]:
    """Run the bench quickly; its JSON."""
    file = tmp_path / "result.json"
    argv = [sys.executable, "-m", "bench", "--quick", "--json", str(file), *options]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@pytest.mark.parametrize("name", WORKLOADS)
def test_apiary(wrk: str, tmp_path: Path, name: str) -> None:
    result = bench(tmp_path, "--peers", "apiary", "--workload", name, "--open", "50")
    seen = result["workloads"][name]
    assert seen["closed"][0]["measured"]["requests"] > 0
    assert seen["open"][0]["measured"]["sent"] > 0
    assert seen["peers"]["apiary"]["memory"]["sum"]["rss"] > 0
    if name == "increment":
        assert seen["peers"]["apiary"]["deploy"][0]["failed_meanwhile"] == 0


@pytest.mark.bench_peer
@pytest.mark.parametrize("name", WORKLOADS)
def test_fastapi(wrk: str, tmp_path: Path, name: str) -> None:
    result = bench(tmp_path, "--peers", "fastapi", "--workload", name)
    seen = result["workloads"][name]
    assert seen["closed"][0]["measured"]["requests"] > 0
    assert seen["peers"]["fastapi"]["settings"]["postgres.fsync"] == "on"


@pytest.mark.bench_peer
@pytest.mark.parametrize("name", WORKLOADS)
def test_peers_agree(wrk: str, tmp_path: Path, name: str) -> None:
    result = bench(tmp_path, "--peers", "apiary,fastapi", "--workload", name)
    assert [run["peer"] for run in result["workloads"][name]["closed"]] == ["apiary", "fastapi"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_floor(tmp_path: Path, name: str) -> None:
    runs = floor.measure(WORKLOADS[name], tmp_path, seconds=0.05)
    assert [run.calls_per_commit for run in runs] == [1, 64]
    assert all(run.calls_per_second > 0 for run in runs)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "bench", "--workload", "incremnt"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED)
    assert done.returncode == 2
    assert "incremnt" in done.stderr
