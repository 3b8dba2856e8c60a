"""The tables: medians, ratios, verdicts, and what makes a result invalid."""

import io
from typing import Any

from bench import summary, tables
from bench.closed_loop import Measured
from bench.rounds import audit
from rich.console import Console

HOST = {
    "cpu": "a processor",
    "cores": 2,
    "system": "a system",
    "kernel": "6",
    "filesystem": "ext4",
    "durable_write_ms": 0.2,
    "load_average_before": 0.1,
}


def run(peer: str, number: int, rate: float, fault: str = "") -> dict[str, Any]:
    measured = {"requests_per_second": rate, "p50_us": 2000, "p99_us": 9000}
    counts = {"non_2xx": 3 if fault else 0, "socket_errors": 0, "timeouts": 0}
    whose = {"workload": "checkout", "peer": peer, "keys": "uniform", "number": number}
    return {
        **whose,
        "measured": measured | counts,
        "processor_us": 100.0,
        "others": 0.01,
        "network": 0.0,
        "fault": fault,
    }


def result(*runs: dict[str, Any]) -> dict[str, Any]:
    peer = {"memory": {"sum": {"rss": 90_000_000, "pss": 80_000_000}}}
    closed = {"about": "17 statements", "clients": 32, "closed": list(runs), "open": [], "floor": []}
    names = dict.fromkeys(run["peer"] for run in runs)
    workload = {**closed, "peers": dict.fromkeys(names, peer)}
    return {
        "host": HOST,
        "settings": {"clients": 32},
        "failures": [],
        "quick": False,
        "workloads": {"checkout": workload},
    }


def printed(what: dict[str, Any]) -> str:
    output = io.StringIO()
    tables.show(what, Console(file=output, width=200))
    return output.getvalue()


def test_ratio_is_of_medians() -> None:
    rates = {"apiary": (900, 4000, 5000), "fastapi": (400, 500, 600)}
    text = printed(result(*(run(peer, n, rate) for peer, all_ in rates.items() for n, rate in enumerate(all_))))
    assert "8.00x" in text
    assert "900 to 5,000" in text
    assert "missed checkout, apiary, times fastapi: 8.00" in text
    assert "INVALID" not in text


def test_peers_that_had_no_hot_keys_are_left_out_there() -> None:
    hot = run("apiary", 1, 3000) | {"keys": "zipf"}
    text = printed(result(run("apiary", 1, 4000), run("fastapi", 1, 500), hot))
    assert text.count("fastapi") == 3  # a row of uniform keys, one of costs, and a target
    assert "zipf" in text


def test_a_failed_request_makes_the_number_invalid() -> None:
    what = result(run("apiary", 1, 4000), run("fastapi", 1, 500, fault="3 failed requests"))
    text = printed(what)
    assert summary.faults(what) == ["checkout, uniform keys, run 1, fastapi: 3 failed requests"]
    assert "INVALID checkout, uniform keys, run 1, fastapi: 3 failed requests" in text
    assert "8.00x" not in text


def test_a_busy_machine_is_called_out() -> None:
    assert "Others took" not in printed(result(run("apiary", 1, 4000)))
    assert "Others took up to 40%" in printed(result(run("apiary", 1, 4000) | {"others": 0.4}))


def test_effects_are_held_against_answers() -> None:
    counts = {"requests": 100, "non_2xx": 0, "socket_errors": 0, "timeouts": 0, "received_bytes": 0}
    times = dict.fromkeys(("p50_us", "p90_us", "p99_us", "p999_us", "max_us", "mean_us"), 1.0)
    measured = Measured(**counts, **times, seconds=1.0, requests_per_second=100.0)
    assert audit(measured, 50, 150, cut_off=4) == ""
    assert audit(measured, 50, 154, cut_off=4) == ""
    assert audit(measured, 50, 155, cut_off=4) == "5 effects without request"
    assert audit(measured, 50, 149, cut_off=4) == "1 answered requests without effect"
    assert audit(measured, None, None, cut_off=4) == ""
