"""The report: the same result gives the same page and plots; what is published is what its JSON makes."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bench import report
from bench.tests.conftest import ROOT

HOST = {
    "cpu": "a processor",
    "cores": 2,
    "memory_bytes": 4 * 2**30,
    "system": "a system",
    "kernel": "6",
    "filesystem": "ext4",
    "durable_write_ms": 0.2,
    "load_average_before": 0.25,
    "load_average_after": 2.5,
    "versions": {"python": "3.11.2"},
}
RATES = {
    ("checkout", "apiary"): (4000.0, 4100.0, 3900.0),
    ("checkout", "fastapi"): (400.0, 500.0, 600.0),
    ("workflow1", "apiary-postgres"): (700.0, 800.0, 900.0),
    ("workflow1", "dbos"): (70.0, 80.0, 90.0),
}


def closed(workload: str, peer: str, number: int, rate: float, keys: str = "uniform") -> dict[str, Any]:
    counts = {"non_2xx": 0, "socket_errors": 0, "timeouts": 0}
    measured = {"requests_per_second": rate, "p50_us": 2000.0, "p99_us": 9000.0, **counts}
    whose = {"workload": workload, "peer": peer, "keys": keys, "number": number}
    return {**whose, "measured": measured, "processor_us": 100.0, "others": 0.01, "network": 0.0, "fault": ""}


def opened(peer: str, rate: float) -> dict[str, Any]:
    times = {"p50_us": 1000.0, "p99_us": 4000.0, "p999_us": 9000.0}
    measured = {**times, "answered_per_second": rate, "unfinished": 0, "non_2xx": 0}
    return {"workload": "checkout", "peer": peer, "keys": "uniform", "rate": rate, "measured": measured, "fault": ""}


def peer_of(name: str) -> dict[str, Any]:
    memory = {"sum": {"rss": 90_000_000, "pss": 80_000_000}}
    settings = {"command": f"serve {name} | more"}
    load = {"seconds": 5.0, "statements_per_second": 9.5, "processor_share": 0.01}
    idle = {"calls": 10, "p50_us": 900.0, "p99_us": 3000.0, "max_us": 4000.0}
    known = {"guarantees": "everything", "lacks": "", "violations": 0}
    return {**known, "memory": memory, "settings": settings, "idle": idle, "idle_load": load}


@pytest.fixture
def result() -> dict[str, Any]:
    """Two workloads with two peers each."""
    workloads: dict[str, Any] = {}
    for (name, peer), rates in RATES.items():
        known = {"about": "does something", "clients": 8, "left_out": {}, "peers": {}, "floor": [], "server_floor": []}
        workload = workloads.setdefault(name, {**known, "closed": [], "open": []})
        workload["peers"][peer] = peer_of(peer)
        workload["closed"] += [closed(name, peer, number, rate) for number, rate in enumerate(rates)]
    workloads["checkout"]["closed"].append(closed("checkout", "apiary", 0, 3000.0, keys="zipf"))
    workloads["checkout"]["open"] = [opened(peer, rate) for peer in ("apiary", "fastapi") for rate in (100.0, 200.0)]
    settings = {"runs": 3, "seconds": 3, "warmup": 1, "clients": 32}
    when = {"made_at": "2026-05-01T10:00:00+00:00", "lasted_seconds": 1800}
    return {**when, "host": HOST, "settings": settings, "failures": [], "quick": False, "workloads": workloads}


@pytest.fixture
def curves() -> dict[str, Any]:
    """One curve of two values."""
    values = {"requests/s": [900.0, 1000.0, 1100.0], "`apiary log calls`, s": [0.5]}
    points = [{"peer": "apiary", "size": size, "values": values} for size in (0, 1000, 100_000)]
    curve = {"name": "log", "about": "the increment, by calls", "size": "calls", "points": points}
    when = {"made_at": "2026-05-01T11:00:00+00:00", "quick": False}
    return {**when, "host": HOST, "curves": [curve], "failures": []}


def test_the_page_tells_what_was_measured(result: dict[str, Any], curves: dict[str, Any]) -> None:
    text = report.files(result, curves)["benchmarks.md"]
    assert "| checkout | 4,000 | 500 |" in text
    assert "8.00x" in text
    assert "400 to 600" in text
    assert "10.0x" in text  # Apiary on PostgreSQL over DBOS
    assert "load average was 0.25\nbefore and 2.5 after" in text
    assert "9.5 statements/s" in text
    assert "**missed** | checkout, apiary, times fastapi: 8.00 (wanted ≥ 10)" in text
    assert "`serve apiary \\| more`" in text
    assert "| Apiary, SQLite | 100,000 | 1,000 | 0.50 |" in text


def test_every_plot_is_shown_and_every_picture_is_there(result: dict[str, Any], curves: dict[str, Any]) -> None:
    made = report.files(result, curves)
    plots = {name for name in made if name.endswith(".svg")}
    assert plots == {
        f"benchmarks/{name}.svg"
        for name in ("throughput-calls", "throughput-workflows", "ratios", "latency-checkout", "curve-log")
    }
    for name in plots:
        assert f"]({name})" in made["benchmarks.md"]
        assert ElementTree.fromstring(made[name]).tag.endswith("svg")
    texts = "".join(ElementTree.fromstring(made["benchmarks/throughput-calls.svg"]).itertext())
    assert "FastAPI + asyncpg" in texts
    assert "500" in texts


def test_the_same_result_gives_the_same_bytes(result: dict[str, Any], curves: dict[str, Any]) -> None:
    first, second = report.files(result, curves), report.files(json.loads(json.dumps(result)), curves)
    assert first == second


def test_a_noisy_or_incomplete_run_says_so(result: dict[str, Any]) -> None:
    result["workloads"]["checkout"]["closed"][0]["others"] = 0.4
    result["workloads"]["checkout"]["closed"][1]["fault"] = "3 failed requests"
    result["workloads"]["workflow1"]["left_out"] = {"restate": "npm is missing"}
    text = report.files(result, None)["benchmarks.md"]
    assert "**Others took up to 40%" in text
    assert "**INVALID: checkout, uniform keys, run 1, apiary: 3 failed requests**" in text
    assert "**workflow1: restate was left out. npm is missing**" in text
    assert "| checkout | invalid | 500 |" in text


def test_the_readme_has_the_table_between_its_markers(result: dict[str, Any]) -> None:
    readme = "# It\n\n<!-- bench: begin (generated) -->\nold\n<!-- bench: end -->\n\nmore\n"
    text = report.with_table(readme, result)
    assert text.startswith("# It\n\n<!-- bench: begin (generated) -->\n\nRequests a second")
    assert "| checkout | 4,000 | 500 |" in text
    assert text.endswith("<!-- bench: end -->\n\nmore\n")
    assert "old" not in text
    assert report.with_table(text, result) == text


def test_what_is_published_is_what_its_json_makes() -> None:
    docs, readme = ROOT / "docs", (ROOT / "README.md").read_text()
    kept = docs / report.PLACE / "result.json"
    if not kept.exists():
        assert not (docs / "benchmarks.md").exists()
        assert report.with_table(readme, None) == readme
        return
    result = json.loads(kept.read_text())
    assert report.with_table(readme, result) == readme
    scaling = docs / report.PLACE / "scaling.json"
    for name, text in report.files(result, json.loads(scaling.read_text()) if scaling.exists() else None).items():
        if not name.endswith(".svg"):  # another version of the plotting library may draw a line elsewhere
            assert (docs / name).read_text() == text, f"{name}: run `make report`"
    assert_plots_are_those_of_the_page(docs)


def assert_plots_are_those_of_the_page(docs: Path) -> None:
    text = (docs / "benchmarks.md").read_text()
    assert {f"benchmarks/{path.name}" for path in (docs / report.PLACE).glob("*.svg")} == {
        line.rpartition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")
    }
