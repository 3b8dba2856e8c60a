"""Queues on a server: seen, paused, and kept to beyond deploys and the death of hosts."""

import json
import os
import signal
import subprocess
import sys

import pytest

APP = """

from apiary import App, Transaction, Workflow

app = App("post")
app.queue("mail", concurrency=2, fair_by="tenant")
app.queue("single", concurrency=1)


@app.transaction(queue="mail")
def put(tx: Transaction, name: str, tenant: str = "") -> None:
    tx.execute("insert into effects (name, version) values (:name, 'VERSION')", name=name)


@app.transaction
def put_later(tx: Transaction, names: list[str], tenant: str = "") -> None:
    for name in names:
        tx.enqueue(put, name, tenant)


@app.query
def effects(tx: Transaction) -> list[str]:
    return tx.execute("select name || ' ' || version from effects order by name").scalars()




@app.workflow(queue="single")
def hold(wf: Workflow, name: str) -> str:
    wf.publish("began", name)
    wf.receive("go")
    wf.run(put, name)
    return "VERSION"
"""
TABLES = "create table effects (name text primary key, version text not null);"


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request, new_server):
    database = request.getfixturevalue("postgres_database") if request.param == "postgresql" else None
    return new_server("--anonymous-calls", database=database)


def write(tools, folder, version):
    return tools.write_app(folder, {"post.py": APP.replace("VERSION", version), "migrations/001.sql": TABLES})


def start(served, name):
    response = served.http.post("/apps/post/hold", json={"name": name}, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    return response.json()["id"]


def began(served, workflow):
    return served.http.get(f"/api/v1/workflows/{workflow}").json()["published"] != {}


def go(served, workflow):
    response = served.http.post(f"/api/v1/workflows/{workflow}/messages", json={"topic": "go"})
    assert response.status_code == 200, response.text


def queue(served, name):
    found = {queue["queue"]: queue for queue in served.http.get("/api/v1/apps/post/queues").json()}
    return found[name]


def result(served, workflow):
    response = served.http.get(f"/api/v1/workflows/{workflow}/result?wait=30")
    return response.json()


def test_a_turn_comes_at_once_also_behind_a_workflow_of_another_version(served, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    first = start(served, "a")
    tools.eventually(lambda: began(served, first))
    second = start(served, "b")
    served.deployed(write(tools, tmp_path / "two", "two"))
    third = start(served, "c")
    assert queue(served, "single")["running"] == 1
    assert (queue(served, "single")["waiting"], began(served, second)) == (2, False)
    for workflow in (first, second, third):
        tools.eventually(lambda workflow=workflow: began(served, workflow), 20)
        go(served, workflow)
    assert [result(served, workflow) for workflow in (first, second, third)] == ["one", "two", "two"]
    assert served.call("effects", "post") == ["a one", "b two", "c two"]


def test_a_host_that_is_killed_leaves_every_call_and_every_limit(served, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    first, second = start(served, "a"), start(served, "b")
    tools.eventually(lambda: began(served, first))
    for number in range(3):
        served.call("put_later", "post", names=[f"x{number}{name}" for name in range(100)], tenant=str(number))
        os.kill(served.host("post"), signal.SIGKILL)
    tools.eventually(lambda: len(served.call("effects", "post")) == 300)
    assert not began(served, second)
    go(served, first)
    go(served, second)
    assert result(served, second) == "one"
    assert len(served.call("effects", "post")) == 302


def test_a_queue_is_paused_and_resumed_and_seen(served, tools, tmp_path):
    def apiary(*words):
        command = [sys.executable, "-m", "apiary", *words]
        environment = {**os.environ, "APIARY_URL": served.url, "APIARY_KEY": tools.KEY}
        done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
        return json.loads(done.stdout or done.stderr)

    served.deployed(write(tools, tmp_path / "one", "one"))
    assert apiary("queues", "pause", "post", "mail") == {"queue": "mail", "paused": True}
    served.call("put_later", "post", names=["a", "b", "c"])
    (seen,) = [found for found in apiary("queues", "--app", "post") if found["queue"] == "mail"]
    assert (seen["waiting"], seen["running"], seen["paused"]) == (3, 0, True)
    assert (seen["concurrency"], seen["rate"], seen["fair_by"]) == (2, None, "tenant")
    assert seen["oldest"] > 0
    metrics = served.http.get("/metrics").text
    assert 'apiary_queue_calls{app="post",queue="mail",state="waiting"} 3.0' in metrics
    assert 'apiary_queue_paused{app="post",queue="mail"} 1.0' in metrics
    os.kill(served.host("post"), signal.SIGKILL)
    start(served, "d")
    tools.eventually(lambda: queue(served, "single")["running"] == 1)
    assert served.call("effects", "post") == []
    assert apiary("queues", "resume", "post", "mail") == {"queue": "mail", "paused": False}
    tools.eventually(lambda: len(served.call("effects", "post")) == 3)
    assert queue(served, "mail")["waiting"] == 0
    refused = apiary("queues", "pause", "post", "nothing")
    assert (refused["code"], refused["hint"]) == ("not_found", "there are: mail, single")


def test_queues_are_for_administrators(served, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    for method, path in (("GET", ""), ("POST", "/mail/pause"), ("POST", "/mail/resume")):
        response = served.http.request(method, f"/api/v1/apps/post/queues{path}", headers={"Authorization": ""})
        assert response.status_code in (401, 403), response.text
    assert served.http.get("/api/v1/apps/nothing/queues").status_code == 404


def test_an_app_with_a_queue_that_is_not_there_is_refused(served, tools, tmp_path):
    source = APP.replace('queue="single"', 'queue="double"')
    path = tools.write_app(tmp_path / "bad", {"post.py": source, "migrations/001.sql": TABLES})
    response = served.deploy(path)
    assert response.status_code == 422, response.text
    assert "hold is for the queue 'double', which the app does not have" in response.json()["detail"]
