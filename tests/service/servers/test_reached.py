"""Workflows are begun, followed, told and waited for on any server, whichever of them runs them."""

import threading

import pytest

INSIDE = False
API = "/api/v1/workflows"


@pytest.fixture
def flows(servers, tools):
    """The servers, with the app `flows` on both."""
    if "flows" not in {app["app"] for app in servers.a.http.get("/api/v1/apps").json()}:
        servers.a.deployed(tools.APPS / "flows")
    for server in servers.started:
        tools.eventually(lambda server=server: server.post("effects", {"key": "x"}, app="flows").status_code == 200)
    return servers


def begin(server, key):
    response = server.http.post("/apps/flows/approval", json={"key": key}, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    return response.json()["id"]


def waits(server, identifier):
    return server.http.get(f"{API}/{identifier}").json().get("status") == "waiting"


def wait(server, identifier):
    """Wait for a result, in a thread; returns what has the answer, once that is there."""
    answers = []

    def ask():
        answers.append(server.http.get(f"{API}/{identifier}/result", params={"wait": 50}))

    thread = threading.Thread(target=ask)
    thread.start()

    def answer():
        thread.join(60)
        return answers[0].status_code, answers[0].json()

    return answer


@pytest.mark.parametrize("first", [0, 1])
def test_a_workflow_is_reached_on_any_server(flows, tools, first):
    one, other = flows.started[first], flows.started[1 - first]
    identifier = begin(one, f"any-{first}")
    tools.eventually(lambda: waits(other, identifier))
    here, there = wait(one, identifier), wait(other, identifier)
    tools.eventually(lambda: all(server.hosts("flows")[0]["in_flight"] for server in flows.started))
    sent = other.http.post(f"{API}/{identifier}/messages", json={"topic": "answer", "value": first})
    assert sent.status_code == 200, sent.text
    assert here() == there() == (200, first)
    cancelled = begin(one, f"cancelled-{first}")
    tools.eventually(lambda: waits(other, cancelled))
    assert other.http.post(f"{API}/{cancelled}/cancel").status_code == 200
    assert wait(one, cancelled)()[1]["code"] == "cancelled"
    assert one.http.get(API).json() == other.http.get(API).json()


def test_a_result_comes_from_another_server_than_the_one_that_was_killed(flows, tools):
    identifier = begin(flows.a, "killed")
    tools.eventually(lambda: waits(flows.b, identifier))
    answer = wait(flows.b, identifier)
    tools.eventually(lambda: flows.b.hosts("flows")[0]["in_flight"])
    flows.kill(flows.a)
    sent = flows.b.http.post(f"{API}/{identifier}/messages", json={"topic": "answer", "value": "from b"})
    assert sent.status_code == 200, sent.text
    assert answer() == (200, "from b")
    assert flows.b.call("effects", app="flows", key="killed") == [7]
