"""Workflows of many steps, and of large results: what a process takes to go on with them does not grow with either."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apiary import Transaction, Workflow
from apiary.runtime import ledger
from apiary.runtime.errors import TooManySteps

MIB = 1024 * 1024
PROGRAM = Path(__file__).with_name("long_workflow.py")


def ran(database: str, workflow: str, steps: int, size: int) -> dict[str, Any]:
    """What a process tells that begins such a workflow, or has it go on."""
    command = [sys.executable, str(PROGRAM), database, workflow, str(steps), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/long.db"
    return str(request.getfixturevalue("postgres_url"))


def test_large_results_are_not_held(database):
    steps, size = 300, 512 * 1024  # 150 MiB
    begun = ran(database, "", steps, size)
    assert begun["grew"] < 48 * MIB, begun
    resumed = ran(database, begun["id"], steps, size)
    assert resumed["result"] == (steps + 1) * size
    assert resumed["grew"] < 48 * MIB, resumed


@pytest.mark.soak
def test_a_hundred_thousand_steps_are_gone_on_with_soon_and_in_little_memory(database):
    steps = 100_000
    begun = ran(database, "", steps, 10)
    assert begun["grew"] < 256 * MIB, begun
    resumed = ran(database, begun["id"], steps, 10)
    assert resumed["result"] == (steps + 1) * 10
    assert resumed["seconds"] < 10, resumed
    assert resumed["grew"] < 32 * MIB, resumed


def test_too_many_steps_are_an_error_with_a_name(make_app, engine_app, monkeypatch, alarm):
    monkeypatch.setattr(ledger, "MAX_STEPS", 20)
    app = make_app("create table marks (n integer)")

    @app.transaction
    def mark(tx: Transaction, n: int) -> None:
        tx.execute("insert into marks (n) values (:n)", n=n)

    @app.transaction
    def unmark(tx: Transaction, nothing: None) -> None:
        tx.execute("delete from marks where n = (select max(n) from marks)")

    @app.query
    def marks(tx: Transaction) -> int:
        return tx.execute("select count(*) from marks").scalar()

    @app.workflow
    def endless(wf: Workflow) -> None:
        n = 0
        while True:
            wf.run(mark, n, undo=unmark)
            n += 1

    opened = engine_app(app)
    with pytest.raises(TooManySteps, match="at most 20 steps"):
        opened.call(endless)
    assert opened.call(marks) == 0
