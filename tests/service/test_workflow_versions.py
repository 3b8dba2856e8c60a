"""A workflow ends on the version on which it began, whatever is deployed meanwhile."""

import os
import signal
import threading

import pytest

APP = """
import os
import time
from apiary import App, Transaction, Workflow

app = App("flow")


@app.transaction
def put(tx: Transaction, name: str) -> str:
    tx.execute("insert into effects (name, version) values (:name, 'VERSION')", name=name)
    return "VERSION"


@app.query
def effects(tx: Transaction) -> list[str]:
    return tx.execute("select name || ' ' || version from effects order by name").scalars()


@app.action(timeout=30)
def outside(name: str, until: str) -> str:
    with open(until + ".begun", "a") as file:
        file.write("VERSION ")
    while not os.path.exists(until):
        time.sleep(0.01)
    return "VERSION"


@app.workflow
def act(wf: Workflow, name: str, until: str) -> str:
    first = wf.run(outside, name, until)
    return first + " " + wf.run(put, name)


@app.workflow
def nap(wf: Workflow, name: str, seconds: float) -> str:
    first = wf.run(put, name + "-1")
    wf.sleep(seconds)
    return first + " " + wf.run(put, name + "-2")
"""
TABLES = "create table effects (name text primary key, version text not null);"


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request, new_server):
    database = request.getfixturevalue("postgres_database") if request.param == "postgresql" else None
    return new_server("--anonymous-calls", database=database)


def write(tools, folder, version):
    return tools.write_app(folder, {"flow.py": APP.replace("VERSION", version), "migrations/001.sql": TABLES})


def outcome(served, identifier):
    response = served.http.get(f"/api/v1/calls/{identifier}")
    return response.json()["output"] if response.status_code == 200 else None


def test_it_ends_on_its_version_after_deploys(served, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    begun = served.http.post("/apps/flow/nap", json={"name": "a", "seconds": 2}, headers={"Prefer": "respond-async"})
    assert begun.status_code == 202, begun.text
    identifier = begun.json()["id"]
    assert begun.headers["location"] == f"/api/v1/workflows/{identifier}"
    served.deployed(write(tools, tmp_path / "two", "two"))
    assert served.call("nap", "flow", name="b", seconds=0) == "two two"
    assert tools.eventually(lambda: outcome(served, identifier), 30) == "one one"
    assert served.call("effects", "flow") == ["a-1 one", "a-2 one", "b-1 two", "b-2 two"]


def test_who_waits_for_it_gets_its_end_across_deploys(served, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    answers = []

    def wait():
        answers.append(served.post("nap", {"name": "a", "seconds": 6}, app="flow"))

    thread = threading.Thread(target=wait)
    thread.start()
    tools.eventually(lambda: "a-1 one" in served.post("effects", app="flow").text)
    served.deployed(write(tools, tmp_path / "two", "two"))
    thread.join(60)
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, "one one")]


@pytest.mark.parametrize("who", [pytest.param("host", marks=pytest.mark.soak), "server"])
def test_it_goes_on_where_its_host_was_killed_after_it_served(served, tools, tmp_path, who):
    """Its action was running there, and nothing else would say that it is due."""
    until = tmp_path / "until"
    begun = until.with_suffix(".begun")
    served.deployed(write(tools, tmp_path / "one", "one"))
    old = served.host("flow")
    arguments = {"name": "a", "until": str(until)}
    identifier = served.http.post("/apps/flow/act", json=arguments, headers={"Prefer": "respond-async"}).json()["id"]
    tools.eventually(begun.exists)
    served.deployed(write(tools, tmp_path / "two", "two"))
    if who == "host":
        os.kill(old, signal.SIGKILL)
    else:
        served.kill()
        served.start()
    tools.eventually(lambda: begun.read_text() == "one one ")
    until.touch()
    assert tools.eventually(lambda: outcome(served, identifier), 30) == "one one"
    assert served.call("effects", "flow") == ["a one"]
    assert begun.read_text() == "one one "


def test_it_goes_on_after_the_server_was_killed(served, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    begun = served.http.post("/apps/flow/nap", json={"name": "a", "seconds": 1}, headers={"Prefer": "respond-async"})
    identifier = begun.json()["id"]
    served.kill()
    served.start()
    assert tools.eventually(lambda: outcome(served, identifier), 30) == "one one"
    assert served.call("effects", "flow") == ["a-1 one", "a-2 one"]
