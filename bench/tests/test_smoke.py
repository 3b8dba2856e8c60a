"""Every workload runs on every peer: a second of each, through the command line."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from bench import data_set, floor, server_floor
from bench.tests.conftest import ROOT
from bench.workloads import WORKLOADS

SECONDS_ALLOWED = 300


@pytest.fixture(scope="module")
def result(wrk: str, local_postgres: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of one quick run of everything."""
    file = tmp_path_factory.mktemp("bench") / "result.json"
    argv = [sys.executable, "-m", "bench", "--quick", "--no-floor", "--json", str(file), "--open", "50"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    written: dict[str, Any] = json.loads(file.read_text())
    return written


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_peer_is_measured(result: dict[str, Any], name: str) -> None:
    seen = result["workloads"][name]
    for loop in ("closed", "open"):
        assert [run["peer"] for run in seen[loop]] == ["apiary", "fastapi"]
    assert all(run["measured"]["requests"] > 0 for run in seen["closed"])
    assert all(run["measured"]["sent"] > 0 for run in seen["open"])
    assert all(peer["memory"]["sum"]["rss"] > 0 for peer in seen["peers"].values())


def test_a_deploy_fails_no_call(result: dict[str, Any]) -> None:
    assert result["workloads"]["increment"]["peers"]["apiary"]["deploy"][0]["failed_meanwhile"] == 0


def test_peers_are_durable(result: dict[str, Any]) -> None:
    assert result["workloads"]["increment"]["peers"]["fastapi"]["settings"]["postgres.fsync"] == "on"


def test_peers_across_a_network(wrk: str, local_postgres: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    peers = ["apiary-postgres-remote", "apiary-beside-remote", "fastapi-remote"]
    options = ["--quick", "--no-costs", "--workload", "increment", "--peers", ",".join(peers)]
    argv = [sys.executable, "-m", "bench", *options, "--json", str(file)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(file.read_text())
    assert result["network"]["added_us"] > 400
    runs = result["workloads"]["increment"]["closed"]
    assert [run["peer"] for run in runs] == peers
    assert all(run["measured"]["requests"] > 0 and run["network"] > 0 for run in runs)
    floors = result["workloads"]["increment"]["server_floor"]
    assert [run["kind"] for run in floors] == [server_floor.NOTHING, server_floor.BY_HAND, server_floor.ENGINE]
    assert all(run["calls_per_second"] > 0 and run["processor_us"] > 0 for run in floors)


def test_checkout_by_hand_is_the_checkout_of_the_app(local_postgres: Path) -> None:
    # The database's user may not walk through the folders of pytest.
    with tempfile.TemporaryDirectory() as name, server_floor.cluster(Path(name), Path(name) / "log") as postgres:
        postgres.psql("postgres", data_set.postgresql_script(WORKLOADS["checkout"]))
        postgres.psql("postgres", (server_floor.FUNCTIONS / "shop.sql").read_text())
        answer = json.loads(postgres.psql("postgres", "select checkout(7)"))
        assert postgres.psql("postgres", "select sum(quantity * cost) from cart where user_id = 7") == str(
            answer["cost"]
        )
        assert (
            postgres.psql("postgres", "select count(*), sum(quantity * cost) from order_lines") == f"5|{answer['cost']}"
        )
        assert postgres.psql("postgres", "select count(*) from items where inventory < 1000000000") == "5"


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
