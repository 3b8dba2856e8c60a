"""Actions on a running server: many at once, and what becomes of them when a version or the server ends."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

APP = """
import time
from pathlib import Path
from apiary import App, Transaction

app = App("acts")


@app.action(timeout=20)
def act(path: str, seconds: float) -> int:
    with Path(path).open("a") as file:
        file.write("start\\n")
    time.sleep(seconds)
    with Path(path).open("a") as file:
        file.write("end\\n")
    return 1


@app.action(timeout=60)
def act_until(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("start\\n")
    while not Path(path + ".end").exists():
        time.sleep(0.01)
    with Path(path).open("a") as file:
        file.write("end\\n")


@app.transaction
def later_until(tx: Transaction, path: str) -> None:
    tx.enqueue(act_until, path)


@app.transaction
def later(tx: Transaction, path: str, seconds: float, count: int) -> None:
    for _ in range(count):
        tx.enqueue(act, path, seconds)
"""


@pytest.fixture
def server(new_server, tools, tmp_path):
    server = new_server()
    server.app = tools.write_app(tmp_path / "app", {"acts.py": APP})
    server.deployed(server.app)
    return server


def counts(path):
    return Counter(path.read_text().split()) if path.exists() else Counter()


def test_two_hundred_queued_actions_run_once_each(server, tools, tmp_path):
    path = tmp_path / "effects"
    host = server.host("acts")
    server.call("later", app="acts", path=str(path), seconds=0.05, count=200)
    tools.eventually(lambda: counts(path)["end"] == 200)
    assert counts(path) == {"start": 200, "end": 200}
    assert server.host("acts") == host


def test_two_hundred_callers_of_an_action_are_all_answered(server, tmp_path):
    path = tmp_path / "effects"
    host = server.host("acts")

    def one(_: int) -> int:
        return server.post("act", {"path": str(path), "seconds": 0.05}, app="acts").status_code

    with ThreadPoolExecutor(100) as pool:
        assert Counter(pool.map(one, range(200))) == {200: 200}
    assert counts(path) == {"start": 200, "end": 200}
    assert server.host("acts") == host


def test_a_queued_action_ends_on_the_version_on_which_it_began(server, tools, tmp_path):
    path = tmp_path / "effects"
    server.call("later", app="acts", path=str(path), seconds=1.0, count=1)
    tools.eventually(lambda: counts(path)["start"] == 1)
    server.app.joinpath("acts.py").write_text(APP + "# changed\n")
    server.deployed(server.app)
    tools.eventually(lambda: len(server.hosts("acts")) == 1)
    assert counts(path) == {"start": 1, "end": 1}


def test_a_queued_action_runs_once_while_versions_follow_one_another(server, tools, tmp_path):
    """When the first of two hosts has ended that end what they began, the second is still busy."""
    first, second = tmp_path / "first", tmp_path / "second"
    for number, path in enumerate((first, second)):
        server.call("later_until", app="acts", path=str(path))
        tools.eventually(path.exists)
        server.app.joinpath("acts.py").write_text(APP + f"# {number}\n")
        server.deployed(server.app)
    assert len(server.hosts("acts")) == 3
    (tmp_path / "first.end").touch()
    tools.eventually(lambda: len(server.hosts("acts")) == 2)
    threading.Event().wait(1)  # the host that serves has the queue of the first by now
    (tmp_path / "second.end").touch()
    tools.eventually(lambda: len(server.hosts("acts")) == 1)
    assert counts(first) == counts(second) == {"start": 1, "end": 1}


def test_a_queued_action_ends_before_the_server_does(server, tools, tmp_path):
    path = tmp_path / "effects"
    server.call("later", app="acts", path=str(path), seconds=1.0, count=1)
    tools.eventually(lambda: counts(path)["start"] == 1)
    assert server.stop() == 0
    assert counts(path) == {"start": 1, "end": 1}
