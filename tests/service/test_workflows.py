"""Workflows over HTTP: begun, shown, waited for, told, cancelled, forked; on both engines."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import apiary
from apiary.testing import replay

ENGINES = ["sqlite", "postgresql"]
NOWHERE = "0198f1c2-0000-7000-8000-000000000000"
API = "/api/v1/workflows"


@pytest.fixture(scope="module", params=ENGINES)
def flows(request, tmp_path_factory, tools, new_postgres_database):
    """A server of this module with the app `flows`, which takes calls without a key too."""
    if request.param == "sqlite":
        yield from serving(tools, tmp_path_factory, None)
    else:
        with new_postgres_database() as url:
            yield from serving(tools, tmp_path_factory, url)


def serving(tools, tmp_path_factory, database):
    server = tools.Server(tmp_path_factory.mktemp("flows"), "--anonymous-calls", database=database).start()
    try:
        server.deployed(tools.APPS / "flows")
        server.call("put", "flows", key="first")  # once its program is loaded, tests do not wait for that
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def anonymous(flows):
    """A client without a key."""
    with httpx.Client(base_url=flows.url, timeout=60, verify=False) as client:
        yield client


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def post(server, function, arguments=None, **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.http.post(f"/apps/flows/{function}", json=arguments or {}, headers=given)


def begin(server, function="approval", **arguments) -> str:
    """Begin a workflow, and do not wait; its id."""
    response = post(server, function, arguments, Prefer="respond-async")
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def shown(server, identifier):
    response = server.http.get(f"{API}/{identifier}")
    assert response.status_code == 200, response.text
    return response.json()


def settled(server, tools, identifier, *states):
    """What is shown of a workflow, once its status is one of these."""
    wanted = states or ("waiting",)
    return tools.eventually(lambda: (found := shown(server, identifier))["status"] in wanted and found)


def result(server, identifier, wait=30):
    return server.http.get(f"{API}/{identifier}/result", params={"wait": wait})


def tell(server, identifier, value, topic="answer", **headers):
    return server.http.post(f"{API}/{identifier}/messages", json={"topic": topic, "value": value}, headers=headers)


def test_a_workflow_is_awaited_like_any_call(flows, name):
    response = post(flows, "five", {"key": name})
    assert (response.status_code, response.json()) == (200, 10)
    assert "location" not in response.headers
    assert shown(flows, response.headers["apiary-call-id"])["status"] == "ok"


def test_who_does_not_want_to_wait_is_answered_at_once(flows, tools, name):
    response = post(flows, "approval", {"key": name}, Prefer="respond-async")
    assert response.status_code == 202
    identifier = response.json()["id"]
    assert response.headers["location"] == f"{API}/{identifier}"
    assert response.headers["apiary-call-id"] == identifier
    assert response.headers["preference-applied"] == "respond-async"
    assert flows.http.get(response.headers["location"]).json()["status"] in ("running", "waiting")
    assert tell(flows, identifier, "yes").json() == {"id": identifier}
    answer = result(flows, identifier)
    assert (answer.status_code, answer.json()) == (200, "yes")
    assert answer.headers["apiary-call-id"] == identifier


def test_who_wants_to_wait_for_a_time_waits_so_long(flows, name):
    began = time.monotonic()
    response = post(flows, "nap", {"seconds": 3600.0}, Prefer="wait=0.3")
    assert response.status_code == 202
    assert time.monotonic() - began >= 0.3
    assert response.headers["preference-applied"] == "wait"
    for prefer in ("wait=60", "respond-async, wait=60", 'WAIT="60"; x=y', "wait=soon", "return=minimal", "wait=-1"):
        answer = post(flows, "five", {"key": name}, Prefer=prefer)
        assert (answer.status_code, answer.json()) == (200, 10), prefer
    for prefer in ("wait=0", "respond-async;x", "handling=strict, respond-async"):
        assert post(flows, "five", {"key": name}, Prefer=prefer).status_code == 202, prefer


def test_preferences_are_for_workflows(flows, name):
    assert post(flows, "put", {"key": name}, Prefer="respond-async").json() == 1
    assert post(flows, "put", {"key": name}, Prefer="wait=1").json() == 1
    strict = post(flows, "put", {"key": name}, Prefer="respond-async, handling=strict")
    assert (strict.status_code, strict.json()["code"]) == (400, "wrong_arguments")
    assert flows.call("effects", "flows", key=name) == [1, 1]


def test_a_key_begins_one_workflow(flows, name):
    first = post(flows, "approval", {"key": name}, Prefer="respond-async", Idempotency_Key=name)
    again = post(flows, "approval", {"key": name}, Prefer="respond-async", Idempotency_Key=name)
    soon = post(flows, "approval", {"key": name}, Prefer="wait=0.1", Idempotency_Key=name)
    assert [answer.status_code for answer in (first, again, soon)] == [202] * 3
    assert {answer.json()["id"] for answer in (first, again, soon)} == {first.json()["id"]}
    assert {answer.headers["location"] for answer in (again, soon)} == {first.headers["location"]}
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert post(flows, "approval", {"key": "x"}, Idempotency_Key=name).json()["code"] == "idempotency_key_reused"
    assert post(flows, "approval", {"key": 7}, Idempotency_Key=name).status_code in (400, 422)
    broken = flows.http.post("/apps/flows/approval", content=b"{", headers={"Idempotency-Key": name})
    assert broken.json()["code"] == "wrong_arguments"
    tell(flows, first.json()["id"], "yes")
    end = post(flows, "approval", {"key": name}, Idempotency_Key=name)
    assert (end.status_code, end.json()) == (200, "yes")
    assert end.headers["apiary-call-id"] == first.json()["id"]
    assert post(flows, "approval", {"key": name}, Prefer="respond-async", Idempotency_Key=name).status_code == 202
    assert flows.call("effects", "flows", key=name) == [7]


def test_what_does_not_begin_is_refused_also_without_waiting(flows, anonymous, name):
    for function, arguments, status, code in [
        ("approval", {"key": 7}, 400, "wrong_arguments"),
        ("approvla", {}, 404, "unknown_function"),
        ("five", {}, 400, "wrong_arguments"),
    ]:
        answer = post(flows, function, arguments, Prefer="respond-async")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "location" not in answer.headers
    refused = anonymous.post("/apps/flows/for_clerks", json={}, headers={"Prefer": "respond-async"})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert post(flows, "for_clerks").json() == "admin"
    got = flows.http.get("/apps/flows/five", params={"key": name})
    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    assert flows.call("effects", "flows", key=name) == []


def test_what_ends_at_once_is_found_all_the_same(flows, name):
    for function, status, code in (("refuse", 422, "not_today"), ("fail", 500, "internal_error")):
        arguments = {"key": name} if function == "refuse" else {}
        identifier = begin(flows, function, **arguments)
        answer = result(flows, identifier)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["call_id"] == identifier
        assert "LookupError" not in answer.text
    assert "LookupError: a mistake of the app" in shown(flows, identifier)["error"]["traceback"]
    for _ in range(10):
        assert result(flows, begin(flows, "reads", key=name), 0).json() == [3]


def test_a_result_is_waited_for(flows, tools, name):
    identifier = begin(flows, key=name)
    for wait in ("0", "0.2"):
        answer = result(flows, identifier, wait)
        assert answer.status_code == 202
        assert answer.json()["id"] == identifier
        assert answer.json()["status"] in ("running", "waiting")
        assert answer.headers["retry-after"] == "1"
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(result, flows, identifier) for _ in range(20)]
        tools.eventually(lambda: flows.hosts("flows")[0]["in_flight"] == 20)
        tell(flows, identifier, {"x": 1})
        assert [answer.result().json() for answer in answers] == [{"x": 1}] * 20
    for wait in ("soon", "-1", "", "1e3"):
        assert result(flows, identifier, wait).status_code == 400


def test_everything_about_a_workflow_is_shown(flows, tools, name):
    identifier = begin(flows, key=name)
    found = settled(flows, tools, identifier)
    assert (found["app"], found["function"], found["status"], found["caller"]) == (
        "flows",
        "approval",
        "waiting",
        "admin",
    )
    assert (found["input"], found["result"], found["error"], found["ended"]) == ({"key": name}, None, None, None)
    assert found["waits_for"] == {"for": "message", "topic": "answer", "until": None}
    assert found["published"] == {"state": {"waits": True}}
    assert [(step["function"], step["status"]) for step in found["steps"]] == [
        ("put", "ok"),
        ("wf.publish", "ok"),
        ("wf.receive", "waiting"),
    ]
    assert (found["steps"][0]["input"], found["steps"][0]["output"]) == ({"key": name, "n": 7}, 7)
    page = flows.http.get(f"{API}/{identifier}", params={"limit": 1, "after": 0, "app": "flows"}).json()
    assert ([step["step"] for step in page["steps"]], page["more"]) == ([1], 1)
    tell(flows, identifier, "no")
    assert result(flows, identifier).json() == "no"
    found = shown(flows, identifier)
    assert (found["status"], found["result"]) == ("ok", "no")
    assert found["started"] < found["ended"] < time.time_ns() / 1000 + 1e6


def test_what_a_workflow_did_is_exported_and_run_again(flows, tools, anonymous, name, tmp_path):
    done = post(flows, "guarding", {"key": name, "code": "hunter2"}, Prefer="respond-async").json()["id"]
    child = tools.eventually(lambda: [step for step in shown(flows, done)["steps"] if step["status"] == "waiting"])
    tell(flows, child[0]["id"], "yes")
    settled(flows, tools, done, "ok")
    exported = flows.http.get(f"{API}/{done}/export").json()
    file = tmp_path / "run.json"
    where = {"APIARY_URL": flows.url, "APIARY_KEY": tools.KEY}
    command = [sys.executable, "-m", "apiary", "workflow", "export", done, "--output", str(file)]
    subprocess.run(command, env={**os.environ, **where}, check=True, timeout=60)
    assert json.loads(file.read_text()) == exported
    assert "hunter2" not in file.read_text()
    replayed = replay(tools.APPS / "flows", file)
    assert (replayed.status, replayed.result) == ("ok", f"{name} 7 yes")
    assert anonymous.get(f"{API}/{done}/export").status_code in (401, 403)
    with apiary.Client(flows.url, key=tools.KEY, app="flows") as client:
        assert client.workflow(done).export() == exported


def test_a_child_is_a_workflow_of_its_own(flows, tools, name):
    identifier = begin(flows, "parent", key=name)
    child = tools.eventually(
        lambda: [step["id"] for step in shown(flows, identifier)["steps"] if step["function"] == "approval"]
    )[0]
    settled(flows, tools, child)
    found = settled(flows, tools, identifier)
    assert found["waits_for"] == {"for": "step", "step": 0, "kind": "workflow", "function": "approval", "id": child}
    assert shown(flows, child)["parent"] == identifier
    tell(flows, child, 5)
    assert result(flows, identifier).json() == 5


def test_secrets_are_not_shown_while_a_workflow_runs(flows, tools, name):
    identifier = begin(flows, "guarding", key=name, code="sesame")
    child = tools.eventually(lambda: [step["id"] for step in shown(flows, identifier)["steps"]])[0]
    for one in (identifier, child):
        found = settled(flows, tools, one)
        assert found["input"] == {"key": name, "code": "**********"}
        assert "sesame" not in str(found)
    assert found["status"] == "waiting"
    tell(flows, child, "opens")
    assert result(flows, identifier).json() == f"{name} 6 opens"
    assert "sesame" not in str(shown(flows, identifier)) + str(shown(flows, child))


def test_workflows_are_listed(flows, tools, name):
    mine = [begin(flows, key=name) for _ in range(3)]
    for identifier in mine:
        settled(flows, tools, identifier)
    parent = begin(flows, "parent", key=name)
    settled(flows, tools, parent)

    def listed(**asked):
        response = flows.http.get(API, params=asked)
        assert response.status_code == 200, response.text
        return [entry["id"] for entry in response.json()]

    assert listed(function="approval", roots="true", limit=3) == mine[::-1]
    assert listed(function="approval", roots="true", limit=2, before=mine[2]) == mine[1::-1]
    assert listed(app="flows", limit=1, roots="true", caller="admin") == [parent]
    assert set(mine) <= set(listed(status="waiting", limit=1000))
    assert not set(mine) & set(listed(status="ok", limit=1000))
    assert len(listed()) <= 50
    for asked in ({"status": "done"}, {"limit": "x"}, {"limit": -1}, {"roots": "yes"}, {"frob": 1}, {"a\0": "b"}):
        answer = flows.http.get(API, params=asked)
        assert (answer.status_code, answer.json()["code"]) == (400, "wrong_arguments")
    assert flows.http.get(API, params={"app": "none"}).json()["code"] == "unknown_app"
    assert flows.http.get(API, params={"before": "x"}).status_code == 404


def test_a_cancelled_workflow_undoes_what_it_did(flows, tools, name):
    identifier = begin(flows, key=name)
    settled(flows, tools, identifier)
    before = len(flows.call("effects", "flows", key="undone"))
    assert flows.http.post(f"{API}/{identifier}/cancel").json() == {"id": identifier}
    answer = result(flows, identifier)
    assert (answer.status_code, answer.json()["code"]) == (409, "cancelled")
    assert shown(flows, identifier)["status"] == "cancelled"
    assert len(flows.call("effects", "flows", key="undone")) == before + 1
    again = flows.http.post(f"{API}/{identifier}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert flows.http.post(f"{API}/{identifier}/resume").status_code == 409


def test_a_fork_goes_on_from_a_step(flows, name):
    first = post(flows, "five", {"key": name}).headers["apiary-call-id"]
    response = flows.http.post(f"{API}/{first}/fork", json={"step": 3})
    assert response.status_code == 201
    fork = response.json()
    assert response.headers["location"] == f"{API}/{fork['id']}"
    assert (fork["from"], fork["step"]) == (first, 3)
    assert result(flows, fork["id"]).json() == 10
    assert flows.call("effects", "flows", key=name) == [0, 1, 2, 3, 3, 4, 4]
    version = flows.http.get("/api/v1/apps/flows").json()["version"]
    onto = flows.http.post(f"{API}/{first}/fork", json={"version": version[:6]})
    assert result(flows, onto.json()["id"]).json() == 10
    for wanted, status in (("zzz", 404), (7, 400), ("", 400)):
        assert flows.http.post(f"{API}/{first}/fork", json={"version": wanted}).status_code == status


def test_a_message_with_a_key_is_left_once(flows, tools, name):
    identifier = begin(flows, key=name)
    sent = [tell(flows, identifier, 1, "other", **{"Idempotency-Key": name}) for _ in range(3)]
    assert [answer.status_code for answer in sent] == [200] * 3
    assert ["idempotency-replayed" in answer.headers for answer in sent] == [False, True, True]
    (call,) = {answer.headers["apiary-call-id"] for answer in sent}
    record = flows.http.get(f"/api/v1/calls/{call}").json()
    assert (record["function"], record["caller"], record["input"]["topic"]) == ("apiary.send", "admin", "other")
    assert shown(flows, identifier)["messages"] == {"other": 1}


def test_transactions_start_and_tell_workflows(flows, tools, name):
    identifier = flows.call("order", "flows", key=name)
    settled(flows, tools, identifier)
    flows.call("answer", "flows", workflow=identifier, value="by a transaction")
    assert result(flows, identifier).json() == "by a transaction"
    gone = post(flows, "answer", {"workflow": identifier, "value": "x"})
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


def test_nonsense_is_the_clients_fault(flows, tools, name):
    """No request is a fault of the server, whatever it says."""
    identifier = begin(flows, key=name)
    deep = b'{"topic": "a", "value": ' + b"[" * 300 + b"]" * 300 + b"}"
    bodies = [
        b"{", b"[]", b"null", b"7", b'"x"', b"\xff", b"[" * 100_000, deep, b'{"topic": 7}', b'{"value": 1}', b"{}",
        b'{"topic": "", "value": 1}', b'{"topic": "a\\u0000", "value": 1}', b'{"topic": "\\ud800", "value": 1}',
        b'{"topic": "a", "value": "\\ud800"}', b'{"topic": "a", "value": NaN}', b'{"topic": "a", "value": 1e999}',
        b'{"topic": "a", "frob": 1}', b'{"step": -1}', b'{"step": 1.5}', b'{"step": "x"}', b'{"step": 1e400}',
        b'{"version": ["x"]}', b'{"workflow": "x", "topic": "a"}', b'{"step": ' + b"9" * 5000 + b"}",
        b'{"topic": "a", "value": "' + b"x" * 2_000_000 + b'"}',
    ]  # fmt: skip
    asked = {"messages": bodies, "resume": bodies, "fork": [body for body in bodies if body != b"{}"]}
    for operation, wrong in asked.items():
        for body in wrong:
            answer = flows.http.post(f"{API}/{identifier}/{operation}", content=body)
            assert 400 <= answer.status_code < 500, (operation, body[:40], answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
    for place in ("x", NOWHERE, "%00", "%0d%0a" + NOWHERE, "..", identifier + "0", "a" * 5000, "%ff"):
        for path in ("", "/result", "/result?wait=5"):
            assert 400 <= flows.http.get(f"{API}/{place}{path}").status_code < 500, place
        for operation in ("messages", "cancel", "resume", "fork", "frob"):
            body = {"topic": "a"} if operation == "messages" else {}
            answer = flows.http.post(f"{API}/{place}/{operation}", json=body)
            assert 400 <= answer.status_code < 500, (place, answer.text)
    typed = flows.http.post(f"{API}/{identifier}/messages", content=b"{}", headers={"Content-Type": "text/plain"})
    assert typed.json()["code"] == "unsupported_media_type"
    keyed = flows.http.post(f"{API}/{identifier}/cancel", headers={"Idempotency-Key": "x" * 300})
    assert keyed.status_code == 400
    for method, path in (("DELETE", ""), ("PUT", "/cancel"), ("GET", "/cancel"), ("POST", "/result"), ("POST", "")):
        assert flows.http.request(method, f"{API}/{identifier}{path}").status_code == 405
    assert flows.http.get(f"{API}/{identifier}", params={"frob": "1"}).status_code == 400
    assert settled(flows, tools, identifier)["status"] == "waiting"


def test_operations_of_the_platform_are_no_functions(flows, anonymous, name):
    identifier = begin(flows, key=name)
    for function in ("apiary.cancel", "apiary.result", "apiary.send", "apiary.frob"):
        for client in (flows.http, anonymous):
            answer = client.post(
                f"/apps/flows/{function}",
                json={"workflow": identifier},
                headers={"Idempotency-Key": uuid.uuid4().hex, "Prefer": "wait=1"},
            )
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_function")
    assert shown(flows, identifier)["status"] in ("running", "waiting")


def test_who_started_a_workflow_may_follow_it(flows, tools, anonymous, name):
    response = anonymous.post("/apps/flows/approval", json={"key": name}, headers={"Prefer": "respond-async"})
    own = response.json()["id"]
    settled(flows, tools, own)
    found = anonymous.get(f"{API}/{own}").json()
    assert (found["status"], found["published"], found["input"]) == (
        "waiting",
        {"state": {"waits": True}},
        {"key": name},
    )
    assert [step["function"] for step in found["steps"]] == ["put", "wf.publish", "wf.receive"]
    assert {step[part] for step in found["steps"] for part in ("input", "output", "error")} == {None}
    assert anonymous.get(f"{API}/{own}/result").status_code == 202
    others = begin(flows, key=name)
    for method, path in [
        ("GET", f"{API}/{others}"),
        ("GET", f"{API}/{others}/result?wait=5"),
        ("POST", f"{API}/{others}/cancel"),
        ("POST", f"{API}/{others}/messages"),
        ("POST", f"{API}/{own}/fork"),
        ("POST", f"{API}/{own}/resume"),
        ("GET", API),
        ("GET", f"{API}?caller=anonymous"),
    ]:
        body = {"topic": "answer", "value": 1} if path.endswith("messages") else None
        answer = anonymous.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    wrong = httpx.get(f"{flows.url}{API}/{own}", headers={"Authorization": "Bearer wrong"}, verify=False)
    assert wrong.status_code == 401
    assert anonymous.post(f"{API}/{own}/messages", json={"topic": "answer", "value": 8}).status_code == 200
    assert anonymous.get(f"{API}/{own}/result?wait=30").json() == 8
    failed = anonymous.post("/apps/flows/fail", json={}, headers={"Prefer": "respond-async"}).json()["id"]
    assert "LookupError" not in anonymous.get(f"{API}/{failed}").text
    assert (
        anonymous.post("/apps/flows/nap", json={"seconds": 3600.0}, headers={"Prefer": "wait=0.1"}).status_code == 202
    )


def test_ends_are_counted_whoever_waits(flows, tools, name):
    def count() -> float:
        text = flows.http.get("/metrics").text
        found = re.search(r'apiary_calls_total\{app="flows",code="not_today",function="refuse"\} ([0-9.]+)', text)
        return float(found[1]) if found else 0.0

    before = count()
    post(flows, "refuse", {"key": name})
    begin(flows, "refuse", key=name)
    post(flows, "refuse", {"key": name}, Prefer="wait=30")
    tools.eventually(lambda: count() == before + 3)


def test_results_are_waited_for_across_the_death_of_a_host(flows, tools, name):
    identifier = begin(flows, key=name)
    settled(flows, tools, identifier)
    got = []
    waiting = threading.Thread(target=lambda: got.append(result(flows, identifier, 60)))
    waiting.start()
    tools.eventually(lambda: flows.hosts("flows")[0]["in_flight"] > 0)
    os.kill(flows.host("flows"), signal.SIGKILL)
    tools.eventually(lambda: tell(flows, identifier, "still there").status_code == 200)
    waiting.join(60)
    assert [(answer.status_code, answer.json()) for answer in got] == [(200, "still there")]


@pytest.fixture
def small(new_server, tools):
    """A server of the test's own, on SQLite."""
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "flows")
    return server


def test_a_workflow_that_does_something_else_is_blocked(small, tools, tmp_path, name):
    path = tmp_path / "changed"
    answer = small.http.post("/apps/flows/shifty", json={"path": str(path)}, headers={"Prefer": "respond-async"})
    identifier = answer.json()["id"]
    settled(small, tools, identifier)
    got = []
    waiting = threading.Thread(target=lambda: got.append(result(small, identifier, 60)))
    waiting.start()
    path.touch()
    tell(small, identifier, None, "go")
    waiting.join(60)
    assert (got[0].status_code, got[0].json()["code"]) == (500, "nondeterministic")
    assert "put(" not in got[0].text
    found = settled(small, tools, identifier, "blocked")
    assert (found["status"], found["waits_for"]) == ("blocked", None)
    assert '"n":1' in found["error"]["detail"]
    assert "is blocked: step 0 was transaction put" in small.text()
    again = result(small, identifier, 30)
    assert (again.status_code, again.json()["code"]) == (500, "nondeterministic")
    path.unlink()
    assert small.http.post(f"{API}/{identifier}/resume").status_code == 200
    assert result(small, identifier).json() == "done"


def test_a_fork_runs_on_the_version_that_is_named(small, tools, tmp_path, name):
    source = (tools.APPS / "flows" / "flows.py").read_text()
    tables = (tools.APPS / "flows" / "migrations" / "001-tables.sql").read_text()
    first = post(small, "five", {"key": name}).headers["apiary-call-id"]
    old = small.http.get("/api/v1/apps/flows").json()["version"]
    changed = source.replace("wf.run(put, key, n) for", "wf.run(put, key, 10 * n) for")
    small.deployed(tools.write_app(tmp_path / "new", {"flows.py": changed, "migrations/001-tables.sql": tables}))
    blocked = small.http.post(f"{API}/{first}/fork", json={"step": 2}).json()["id"]
    assert settled(small, tools, blocked, "blocked")["error"]["code"] == "nondeterministic"
    fork = small.http.post(f"{API}/{first}/fork", json={"step": 2, "version": old[:8]}).json()["id"]
    assert result(small, fork, 60).json() == 10
    assert shown(small, fork)["version"] == old
    fresh = small.http.post(f"{API}/{first}/fork", json={"step": 0}).json()["id"]
    assert result(small, fresh).json() == 100


def test_results_are_waited_for_across_a_deploy(small, tools, tmp_path, name):
    identifier = begin(small, key=name)
    settled(small, tools, identifier)
    got = []
    waiting = [
        threading.Thread(target=lambda: got.append(result(small, identifier, 60))),
        threading.Thread(target=lambda: got.append(post(small, "approval", {"key": name}, Idempotency_Key=name))),
    ]
    for thread in waiting:
        thread.start()
    tools.eventually(lambda: small.hosts("flows")[0]["in_flight"] == 2)
    tools.eventually(lambda: len(small.http.get(API, params={"status": "waiting"}).json()) == 2)
    source = (tools.APPS / "flows" / "flows.py").read_text() + "\n# another version\n"
    tables = (tools.APPS / "flows" / "migrations" / "001-tables.sql").read_text()
    small.deployed(tools.write_app(tmp_path / "new", {"flows.py": source, "migrations/001-tables.sql": tables}))
    for entry in small.http.get(API, params={"status": "waiting"}).json():
        assert tell(small, entry["id"], "old and new").status_code == 200
    for thread in waiting:
        thread.join(60)
    assert [(answer.status_code, answer.json()) for answer in got] == [(200, "old and new")] * 2


def test_a_result_is_there_after_a_restart_of_the_server(small, tools, name):
    ended, waiting = begin(small, "five", key=name), begin(small, key=name)
    assert result(small, ended).json() == 10
    settled(small, tools, waiting)
    small.kill()
    small.start()
    assert result(small, ended).json() == 10
    tell(small, waiting, 3)
    assert result(small, waiting).json() == 3
