"""Curves are measured, at their smallest sizes. One always, all with the soak."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench.scaling.__main__ import CURVES
from bench.scaling.log import made_id
from bench.tests.conftest import ROOT

SECONDS_ALLOWED = 600


def run(tmp_path: Path, *options: str) -> dict[str, Any]:
    """The curves by their names, each as the values of its points."""
    file = tmp_path / "scaling.json"
    argv = [sys.executable, "-m", "bench.scaling", "--quick", *options, "--json", str(file)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {curve["name"]: curve["points"] for curve in json.loads(file.read_text())["curves"]}


def assert_measured(curves: dict[str, Any]) -> None:
    for points in curves.values():
        assert points
        assert all(values and min(values) >= 0 for point in points for values in point["values"].values())
        assert all(point["values"].get("requests/s", [1])[0] > 0 for point in points)


def test_a_curve_is_measured(wrk: str, tmp_path: Path) -> None:
    curves = run(tmp_path, "steps", "--peers", "apiary")
    assert_measured(curves)
    assert [point["size"] for point in curves["steps"]] == [1, 10, 100]


@pytest.mark.soak
def test_every_curve_is_measured_on_every_peer(wrk: str, local_postgres: Path, tmp_path: Path) -> None:
    curves = run(tmp_path)
    assert_measured(curves)
    assert set(curves) == set(CURVES)


def test_generated_ids_are_all_different_and_in_order() -> None:
    ids = [made_id(number) for number in range(1, 10_000)]
    assert ids == sorted(set(ids))
    assert all(len(one) == 16 and one[6] >> 4 == 7 and one[8] >> 6 == 0b10 for one in ids)


def test_an_unknown_curve_is_refused(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "bench.scaling", "clouds"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS_ALLOWED)
    assert done.returncode == 2
    assert "clouds" in done.stderr
