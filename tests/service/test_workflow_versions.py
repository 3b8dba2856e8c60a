"""A workflow ends on the version on which it began, whatever is deployed meanwhile."""

import threading

import pytest

APP = """
from apiary import App, Transaction, Workflow

app = App("flow")


@app.transaction
def put(tx: Transaction, name: str) -> str:
    tx.execute("insert into effects (name, version) values (:name, 'VERSION')", name=name)
    return "VERSION"


@app.query
def effects(tx: Transaction) -> list[str]:
    return tx.execute("select name || ' ' || version from effects order by name").scalars()


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
        answers.append(served.post("nap", {"name": "a", "seconds": 3}, app="flow"))

    thread = threading.Thread(target=wait)
    thread.start()
    tools.eventually(lambda: served.call("effects", "flow") == ["a-1 one"])
    served.deployed(write(tools, tmp_path / "two", "two"))
    thread.join(60)
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, "one one")]


def test_it_goes_on_after_the_server_was_killed(served, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    begun = served.http.post("/apps/flow/nap", json={"name": "a", "seconds": 1}, headers={"Prefer": "respond-async"})
    identifier = begun.json()["id"]
    served.kill()
    served.start()
    assert tools.eventually(lambda: outcome(served, identifier), 30) == "one one"
    assert served.call("effects", "flow") == ["a-1 one", "a-2 one"]
