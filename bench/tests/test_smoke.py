"""Workloads and peers run: a second of each, through the command line. All of them with the soak.

Restate's server needs npm; without it, it is left out.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from bench import data_set, floor, provision, server_floor
from bench.peers import PEERS
from bench.tests.conftest import ROOT
from bench.workloads import DATA_NAMES, WORKLOADS

SECONDS_ALLOWED = 300


def run(tmp_path: Path, *options: str) -> dict[str, Any]:
    """The JSON of one quick run."""
    file = tmp_path / "result.json"
    argv = [sys.executable, "-m", "bench", "--quick", *options, "--json", str(file)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    written: dict[str, Any] = json.loads(file.read_text())
    return written


@pytest.mark.parametrize(
    "names",
    ["increment", pytest.param(",".join(sorted(DATA_NAMES - {"increment"})), marks=pytest.mark.soak)],
    ids=["increment", "others"],
)
def test_workloads_are_measured(wrk: str, local_postgres: Path, tmp_path: Path, names: str) -> None:
    result = run(tmp_path, "--no-floor", "--workload", names, "--peers", "apiary,fastapi")
    assert_measured(result, "apiary", "fastapi")
    for seen in result["workloads"].values():
        assert all(peer["memory"]["sum"]["rss"] > 0 for peer in seen["peers"].values())
        assert seen["peers"]["apiary"]["deploy"][0]["failed_meanwhile"] == 0


def assert_measured(result: dict[str, Any], *peers: str) -> None:
    """Each of the workloads on each of these peers, which answered alike; else the run would have failed."""
    for workload in result["workloads"].values():
        assert {run["peer"]: run["measured"]["requests"] > 0 for run in workload["closed"]} == dict.fromkeys(
            peers, True
        )
        assert all(seen["settings"]["postgres.fsync"] == "on" for seen in postgres_peers(workload))


def postgres_peers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    return [seen for seen in workload["peers"].values() if "postgres.fsync" in seen["settings"]]


@pytest.mark.parametrize("peer", [peer for peer in PEERS if not peer.startswith("apiary")])
def test_every_peer_says_what_it_is_worth(peer: str, tmp_path: Path) -> None:
    try:
        made = PEERS[peer](tmp_path)
    except provision.Missing as missing:
        pytest.skip(str(missing))
    try:
        assert made.guarantees
        assert made.lacks
        assert made.workloads <= set(WORKLOADS)
    finally:
        made.tear_down()


SMOKED = {"sqlalchemy": ("hotel",), "functions": ("tpcc",), "bare": ("increment",)}


@pytest.mark.soak
@pytest.mark.parametrize(("peer", "workloads"), SMOKED.items(), ids=SMOKED)
def test_services_agree_with_ours(
    wrk: str, local_postgres: Path, tmp_path: Path, peer: str, workloads: tuple[str, ...]
) -> None:
    options = ["--no-floor", "--workload", ",".join(workloads), "--peers", f"apiary,{peer}"]
    found = run(tmp_path, *options, "--open", "20")
    assert_measured(found, "apiary", peer)
    for name in workloads:
        opened = {run["peer"]: run["measured"]["sent"] > 0 for run in found["workloads"][name]["open"]}
        assert opened == {"apiary": True, peer: True}


@pytest.mark.soak
def test_all_services_agree_on_everything(wrk: str, local_postgres: Path, tmp_path: Path) -> None:
    names = ",".join(name for name in DATA_NAMES if name != "tpcc")
    options = ["--no-floor", "--no-costs", "--workload", names, "--peers", "apiary,fastapi,sqlalchemy,functions"]
    assert_measured(run(tmp_path, *options), "apiary", "fastapi", "sqlalchemy", "functions")


@pytest.mark.parametrize(
    "peers", ["apiary,dbos-sqlite", pytest.param("apiary,dbos,dbos-sqlite,restate", marks=pytest.mark.soak)]
)
def test_peers_for_workflows_agree(local_postgres: Path, tmp_path: Path, peers: str) -> None:
    found = run(tmp_path, "--no-floor", "--no-costs", "--workload", "workflow5", "--peers", peers)
    left_out = found["workloads"]["workflow5"]["left_out"]
    assert set(left_out) <= {"restate"}
    assert_measured(found, *(peer for peer in peers.split(",") if peer not in left_out))


@pytest.mark.soak
def test_a_queue_at_rest(local_postgres: Path, tmp_path: Path) -> None:
    found = run(tmp_path, "--no-floor", "--workload", "queued", "--peers", "apiary-postgres,procrastinate")
    assert_measured(found, "apiary-postgres", "procrastinate")
    seen = found["workloads"]["queued"]["peers"]["procrastinate"]
    assert seen["idle"]["p50_us"] > 0
    assert seen["idle_load"]["statements_per_second"] >= 0


@pytest.mark.soak
def test_peers_across_a_network(wrk: str, local_postgres: Path, tmp_path: Path) -> None:
    peers = ["apiary-postgres-remote", "apiary-beside-remote", "fastapi-remote"]
    result = run(tmp_path, "--no-costs", "--workload", "increment", "--peers", ",".join(peers))
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
