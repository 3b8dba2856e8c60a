"""A server as a process: its start, its end, its limits, its keys."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.service.conftest import WAIT_SECONDS, new_client


def serve(folder, *options, environment=None, seconds=WAIT_SECONDS):
    """`apiary serve` that is to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "apiary", "serve", *options],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=folder,
        env={**os.environ, **(environment or {})},
    )


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.soak)])
def test_a_signal_ends_the_server_when_its_calls_are_answered(new_server, tools, name):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")
    idle = socket.create_connection(("127.0.0.1", server.port))
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(server.post, "slow", {"seconds": 3, "key": "drain"}),
            pool.submit(server.post, "slow_query", {"seconds": 3}),
            pool.submit(server.post, "slow_action", {"seconds": 3}),
        ]
        tools.eventually(lambda: server.hosts()[0]["in_flight"] == 3)
        server.process.send_signal(signal.Signals[name])
        assert [call.result().status_code for call in calls] == [200, 200, 200]
        assert server.process.wait(30) == 0  # and not after the minute that calls may take
    idle.close()
    assert "Traceback" not in server.text()
    server.start()
    assert server.call("effects", prefix="drain") == {"drain": 1}


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.soak)])
def test_a_second_signal_ends_the_server_at_once(new_server, tools, name):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")
    assert server.call("effect", key="before") == 1
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(server.post, "slow", {"seconds": 25, "key": "lost"})
        tools.eventually(lambda: server.hosts()[0]["in_flight"] == 1)
        server.process.send_signal(signal.Signals[name])
        tools.eventually(lambda: "another signal ends it" in server.text())
        assert server.process.poll() is None
        server.process.send_signal(signal.Signals[name])
        assert server.process.wait(20) == 128 + signal.Signals[name]
        with pytest.raises(httpx.TransportError):
            lost.result()
    tools.eventually(lambda: not tools.marked_processes(server.mark))
    assert "ended at once" in server.text()
    assert "Traceback" not in server.text()
    server.start()
    assert server.call("effects", prefix="") == {"before": 1}


def test_a_signal_that_arrives_twice_at_once_is_one(new_server, tools):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.post, "slow", {"seconds": 3})
        tools.eventually(lambda: server.hosts()[0]["in_flight"] == 1)
        for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            server.process.send_signal(number)
        assert call.result().status_code == 200
        assert server.process.wait(WAIT_SECONDS) == 0


def test_a_server_ends_though_a_call_does_not(new_server, tools):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.post, "block", {"name": "x"})
        tools.eventually(lambda: server.hosts()[0]["in_flight"] == 1)
        assert server.stop() == 0
        assert call.result().status_code == 504


def test_a_second_server_is_refused(new_server, tools):
    server = new_server()
    done = serve(server.folder, "--database", f"sqlite:///{server.data}", "--port", "0")
    assert done.returncode == 1
    assert f"process {server.process.pid}" in done.stderr
    assert "Traceback" not in done.stderr
    done = serve(server.folder, "--database", f"sqlite:///{server.folder}/other", "--port", str(server.port))
    assert done.returncode == 1
    assert str(server.port) in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        ("--host", "999.9.9.9"),
        ("--host", "no.such.name.invalid"),
        ("--port", "99999"),
        ("--port", "-1"),
        ("--port", "x"),
        ("--database", "mysql://here"),
        ("--database", "sqlite:////proc/nothing/here"),
        ("--database", "sqlite:////dev/null"),
        ("--max-waiting-calls", "0"),
        ("--max-request-bytes", "-1"),
        ("--host-memory-mb", "-1"),
        ("--nothing",),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_words(tmp_path, options):
    done = serve(tmp_path, "--port", "0", *options)
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_a_server_listens_on_ipv6(new_server, tools):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    server = new_server("--host", "::1")
    assert server.url.startswith("http://[::1]:")
    assert server.http.get("/healthz").json()["status"] == "ok"


def test_the_first_key_is_made_and_shown_once(new_server):
    server = new_server(environment={"APIARY_ADMIN_KEY": ""})
    words = server.text().split()
    key = next(word for word in words if word.startswith("apiary_"))
    headers = {"Authorization": f"Bearer {key}"}
    assert server.http.get("/api/v1/apps", headers=headers).json() == []
    assert server.stop() == 0
    server.start()
    assert "apiary_" not in server.text()
    assert server.http.get("/api/v1/apps", headers=headers).json() == []
    assert key.encode() not in b"".join(file.read_bytes() for file in server.data.iterdir() if file.is_file())


def test_the_first_key_can_be_given_and_is_never_shown(new_server, tools):
    server = new_server()
    server.deployed(tools.APPS / "zoo")
    server.post("fail")
    assert server.http.get("/api/v1/apps", headers={"Authorization": f"Bearer {tools.KEY}"}).status_code == 200
    assert tools.KEY not in server.text()
    assert tools.KEY.encode() not in b"".join(file.read_bytes() for file in server.data.iterdir() if file.is_file())
    for process in tools.marked_processes(server.mark):
        if process != server.process.pid:
            with open(f"/proc/{process}/environ", "rb") as environment:
                assert tools.KEY.encode() not in environment.read()
    server.stop()
    server.environment["APIARY_ADMIN_KEY"] = "another"
    server.start()
    assert server.http.get("/api/v1/apps").status_code == 200
    assert server.http.get("/api/v1/apps", headers={"Authorization": "Bearer another"}).status_code == 401


def test_calls_want_a_key_unless_told_otherwise(new_server, tools):
    server = new_server()
    server.deployed(tools.APPS / "zoo")
    with new_client(base_url=server.url) as anonymous:
        response = anonymous.post("/apps/zoo/bump", json={"name": "a"})
        assert anonymous.post("/apps/nothing/bump").status_code == 401
    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Authorization" in response.json()["hint"]
    assert server.call("count", name="a") == 0


def test_too_many_calls_are_refused_and_the_server_recovers(new_server, tools):
    server = new_server("--anonymous-calls", "--max-waiting-calls", "8")
    server.deployed(tools.APPS / "zoo")
    with ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(server.post, "slow", {"seconds": 0.05}) for _ in range(40)]
        answers = [call.result() for call in calls]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(refused) >= 8
    assert refused
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
    assert server.call("bump", name="after") == 1
    assert server.hosts()[0]["in_flight"] == 0


def test_callers_that_wait_for_workflows_leave_room_for_others(new_server, tools):
    server = new_server("--anonymous-calls", "--max-waiting-calls", "2")
    server.deployed(tools.APPS / "flows")
    url = f"{server.url}/apps/flows"
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(httpx.post, f"{url}/approval", json={"key": key}, timeout=60) for key in "ab"]
        list_of = "/api/v1/workflows?status=waiting"
        tools.eventually(lambda: len(server.http.get(list_of).json()) == 2)
        refused = httpx.post(f"{url}/approval", json={"key": "c"})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert "wait for workflows" in refused.json()["detail"]
        assert httpx.post(f"{url}/put", json={"key": "d"}).json() == 1
        for workflow in server.http.get(list_of).json():
            server.call("answer", "flows", workflow=workflow["id"], value="yes")
        assert [answer.result().json() for answer in waiting] == ["yes", "yes"]


def test_requests_have_a_greatest_size(new_server, tools):
    server = new_server("--anonymous-calls", "--max-request-bytes", "1000")
    server.deployed(tools.APPS / "zoo")
    base = len('{"name": ""}')
    fits = server.http.post("/apps/zoo/bump", content=b'{"name": "%s"}' % (b"x" * (1000 - base)))
    assert fits.status_code == 200
    for content in (b'{"name": "%s"}' % (b"x" * (1001 - base)), b"x" * 10_000_000, (b"x" * 100 for _ in range(1000))):
        try:
            response = server.http.post("/apps/zoo/bump", content=content)
        except httpx.TransportError:
            continue
        assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
    assert server.call("bump", name="after") == 1


def metric(server, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(server.http.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


def test_metrics_count_what_happens(new_server, tools):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")
    for _ in range(3):
        server.call("bump", name="m")
    server.post("refuse", {"name": "m"})
    server.call("later", key="m")
    tools.eventually(lambda: metric(server, "apiary_calls_total", function="effect", code="ok") == 1)
    os.kill(server.host(), signal.SIGKILL)
    server.call("bump", name="m")
    assert metric(server, "apiary_calls_total", app="zoo", function="bump", code="ok") == 4
    assert metric(server, "apiary_calls_total", app="zoo", function="refuse", code="not_today") == 1
    assert metric(server, "apiary_call_duration_seconds_count", app="zoo", function="bump") == 4
    assert metric(server, "apiary_call_duration_seconds_bucket", app="zoo", function="bump", le="+Inf") == 4
    assert metric(server, "apiary_host_deaths_total", app="zoo") == 1
    assert metric(server, "apiary_activations_total", app="zoo") >= 1
    assert metric(server, "apiary_calls_in_flight", app="zoo") == 0
    assert metric(server, "apiary_host_resident_bytes", app="zoo") > 10 * 2**20
    assert metric(server, "apiary_calls_total", function="none") == 0


def test_metrics_count_what_is_refused_and_no_text_of_a_client_is_a_label(new_server, tools, tmp_path):
    server = new_server("--max-request-bytes", "1000", "--max-waiting-calls", "1")
    code = "import os\nfrom apiary import App\nassert not os.path.exists('bad')\napp = App('flaky')\n"
    server.deployed(tools.write_app(tmp_path / "flaky", {"flaky.py": code}))
    server.deployed(tools.APPS / "zoo")
    with new_client(base_url=server.url) as anonymous:
        anonymous.post("/apps/zoo/bump", json={"name": "a"})
        anonymous.post("/apps/strange-1/bump", json={"name": "a"})
    server.post("bump", app="strange-2")
    server.post("strange_3")
    server.post("strange_4", key="k")
    server.post("bump", {"name": "x" * 2000})
    server.post("bump", {"name": 7})
    server.http.put("/apps/zoo/bump")
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(server.post, "slow", {"seconds": 2}) for _ in range(2)]
        assert sorted(done.result().status_code for done in slow) == [200, 503]
    for function, code in [
        ("bump", "not_authenticated"),
        ("bump", "payload_too_large"),
        ("bump", "wrong_arguments"),
        ("bump", "method_not_allowed"),
        ("slow", "overloaded"),
    ]:
        assert metric(server, "apiary_calls_total", app="zoo", function=function, code=code) == 1
    assert metric(server, "apiary_calls_total", app="zoo", function="", code="unknown_function") == 2
    assert metric(server, "apiary_calls_total", app="", function="", code="not_authenticated") == 1
    assert metric(server, "apiary_calls_total", app="", function="", code="unknown_app") == 1
    (server.folder / "bad").touch()
    os.kill(server.host("flaky"), signal.SIGKILL)
    tools.eventually(lambda: server.post("strange_5", app="flaky").status_code == 503)
    assert metric(server, "apiary_calls_total", app="flaky", function="", code="unavailable") >= 1
    assert "strange" not in server.http.get("/metrics").text


def test_codes_of_an_app_do_not_fill_the_metrics(tmp_path, new_server, tools):
    code = """
from apiary import App, Rejected, Transaction
app = App("talker")
@app.transaction
def refuse(tx: Transaction, code: str) -> None:
    raise Rejected("no", code=code)
"""
    server = new_server()
    server.deployed(tools.write_app(tmp_path / "talker", {"talker.py": code}))
    for number in range(110):
        server.post("refuse", {"code": f"code-{number}"}, app="talker")
    assert metric(server, "apiary_calls_total", function="refuse", code="code-99") == 1
    assert metric(server, "apiary_calls_total", function="refuse", code="other") == 10


def test_health_tells_which_apps_are_down(new_server, tools, tmp_path):
    server = new_server("--anonymous-calls")
    assert server.http.get("/healthz").json() == {"status": "ok", "apps_down": []}
    code = f"import os\nfrom apiary import App\nassert not os.path.exists('{tmp_path}/bad')\napp = App('flaky')\n"
    files = {"flaky.py": code}
    server.deployed(tools.write_app(tmp_path / "flaky", files))
    server.deployed(tools.APPS / "zoo")
    (tmp_path / "bad").touch()
    server.stop()
    server.start()
    assert server.http.get("/healthz").json() == {"status": "degraded", "apps_down": ["flaky"]}
    assert server.call("bump", name="others") == 1
    response = server.post("anything", app="flaky")
    assert (response.status_code, response.headers.get("retry-after") is not None) == (503, True)
    (tmp_path / "bad").unlink()
    tools.eventually(lambda: server.http.get("/healthz").json()["status"] == "ok")


@pytest.mark.soak
def test_memory_and_descriptors_stay_where_they_are(new_server, tools):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")

    def load(calls: int) -> None:
        with new_client(base_url=server.url) as http:
            for _ in range(calls):
                assert http.post("/apps/zoo/bump", json={"name": "soak"}).status_code == 200

    def spread(calls: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(load, calls // 8) for _ in range(8)]:
                done.result()

    def memory() -> int:
        with open(f"/proc/{server.process.pid}/statm") as file:
            return int(file.read().split()[1]) * 4096

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    spread(8_000)
    before = memory()
    spread(50_000)
    assert memory() - before < 8 * 2**20
    assert server.hosts()[0]["in_flight"] == 0
    before = descriptors()
    for _ in range(50):
        server.deployed(tools.APPS / "zoo")
    tools.eventually(lambda: len(server.hosts()) == 1)
    tools.eventually(lambda: descriptors() <= before + 2)


def test_a_server_keeps_of_effects_what_it_is_told_to(new_server, tools):
    server = new_server("--anonymous-calls", "--capture", "reads")
    server.deployed(tools.APPS / "zoo")
    server.call("bump", name="a")
    query = {
        "statement": "select (select count(*) from writes where kind <> 'migration'), (select count(*) from statements)"
    }
    rows = server.http.get("/api/v1/log/sql", params=query).json()["rows"]
    assert (rows[0][0], rows[0][1] > 0) == (0, True)


def test_effects_are_taken_apart_while_calls_come(new_server, tools):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")

    def taken_apart(counted="select count(*) from writes where table_name = 'counters'") -> int:
        path = server.data / "zoo.log.db"
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                return connection.execute(counted).fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0

    assert not tools.expanders(server.mark)
    for calls in (1, 2):
        server.call("bump", name="a")
        tools.eventually(lambda calls=calls: taken_apart() == calls)
    tools.eventually(lambda: metric(server, "apiary_log_lag_seconds", app="zoo") == 0)
    (process,) = tools.expanders(server.mark)
    os.kill(process, signal.SIGKILL)
    server.call("bump", name="a")
    tools.eventually(lambda: taken_apart() == 3)
    tools.eventually(lambda: taken_apart("select count(*) from called where function = 'bump'") == 3)
