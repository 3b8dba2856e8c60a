"""Functions that do harm: to their process, to its descriptors, to the clock. Each is answered, and others live on."""

import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest


def name() -> str:
    return uuid.uuid4().hex


def works(zoo) -> None:
    """The app serves, reads and writes."""
    counter = name()
    response = zoo.post("bump", {"name": counter}, key=counter)
    assert (response.status_code, response.json()) == (200, 1)
    assert zoo.call("count", name=counter) == 1


def crashed(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "host_crashed"), response.text
    assert response.headers["retry-after"]


def stopped(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded"), response.text


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("kill_host", {}),
        ("kill_host_query", {}),
        ("kill_host_action", {}),
        ("segfault", {}),
        ("leave", {"how": "os_exit"}),
        ("leave", {"how": "abort"}),
    ],
)
def test_a_function_that_ends_its_process_is_given_up_after_a_few_attempts(zoo, function, arguments):
    before = zoo.text().count("Fatal Python error")
    crashed(zoo.post(function, arguments))
    assert zoo.text().count("Fatal Python error") - before <= 3
    works(zoo)
    assert zoo.call("count", name="kill") == zoo.call("count", name="leave") == 0


def test_innocent_calls_survive_those_that_end_their_process(zoo):
    keys = [name() for _ in range(60)]
    with ThreadPoolExecutor(24) as pool:
        killers = [pool.submit(zoo.post, "kill_host", {}) for _ in range(2)]
        readers = [pool.submit(zoo.post, "slow_query", {"seconds": 0.2}) for _ in range(2)]
        actions = [pool.submit(zoo.post, "slow_action", {"seconds": 0.2}) for _ in range(2)]
        writers = [pool.submit(zoo.post, "effect", {"key": key}, key) for key in keys]
        for killer in killers:
            crashed(killer.result())
        for done in [*writers, *readers, *actions]:
            assert done.result().status_code == 200, done.result().text
    found = [zoo.call("effects", prefix=key) for key in keys]
    assert found == [{key: 1} for key in keys]


@pytest.mark.parametrize("function", ["kill_host_query", "kill_host_action"])
def test_a_queued_function_that_ends_its_process_is_given_up_after_a_few_attempts(zoo, tools, function):
    call = zoo.post("later_run", {"function": function}).json()
    tools.eventually(lambda: f"queued call {call} of zoo is given up: its host died 3 times" in zoo.text())
    shown = zoo.http.get(f"/api/v1/calls/{call}").json()
    assert (shown["status"], shown["code"], shown["attempt"]) == ("failed", "host_crashed", 3)
    assert [(attempt["attempt"], attempt["status"]) for attempt in shown["earlier_attempts"]] == [
        (1, "stopped"),
        (2, "stopped"),
    ]
    assert call in [logged["id"] for logged in zoo.http.get("/api/v1/calls?app=zoo&status=failed").json()]
    key = name()
    zoo.call("later", key=key)
    tools.eventually(lambda: zoo.call("effects", prefix=key) == {f"{key}-0": 1})
    host = zoo.host()
    works(zoo)
    assert zoo.host() == host


def test_deaths_of_a_queued_call_are_counted_beyond_the_end_of_the_server(new_server, tools):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")
    address = "/api/v1/calls/" + server.post("later_run", {"function": "kill_host_query"}).json()
    tools.eventually(lambda: server.http.get(address).status_code == 200, what="an attempt is recorded")
    server.kill()
    server.start()
    shown = tools.eventually(lambda: (found := server.http.get(address).json())["status"] == "failed" and found)
    assert len(shown["earlier_attempts"]) == 2
    assert server.http.get("/metrics").text.count('apiary_host_deaths_total{app="zoo"} 3') == 0


@pytest.mark.parametrize("how", ["exit", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException"])
@pytest.mark.parametrize("function", ["leave", "leave_query", "leave_action"])
def test_raising_what_is_no_exception_is_a_failure_like_any_other(zoo, function, how):
    if function != "leave" and how in ("exit", "GeneratorExit"):
        how = "SystemExit"
    host = zoo.host()
    response = zoo.post(function, {"how": how})
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    works(zoo)
    assert zoo.host() == host
    assert zoo.call("count", name="leave") == 0


@pytest.mark.parametrize("function", ["spin", "block", "regex"])
def test_a_function_that_does_not_end_is_stopped(zoo, function):
    counter = name()
    with ThreadPoolExecutor(9) as pool:
        late = pool.submit(zoo.post, function, {"name": counter}, counter)
        others = [pool.submit(zoo.post, "effect", {"key": f"{counter}-{number}"}, name()) for number in range(8)]
        started = time.monotonic()
        stopped(late.result())
        assert time.monotonic() - started < 25
        for other in others:
            assert other.result().status_code == 200, other.result().text
    assert zoo.call("count", name=counter) == 0
    assert set(zoo.call("effects", prefix=counter).values()) == {1}
    works(zoo)


def test_an_action_that_holds_the_interpreter_is_stopped_at_its_timeout(zoo):
    host = zoo.host()
    started = time.monotonic()
    stopped(zoo.post("regex_action"))
    assert time.monotonic() - started < 25
    works(zoo)
    assert zoo.host() != host


@pytest.mark.parametrize(
    "what",
    ["write", "small", pytest.param("close", marks=pytest.mark.soak), pytest.param("half", marks=pytest.mark.soak)],
)
def test_a_function_that_spoils_the_descriptors_of_its_host_harms_itself_only(zoo, what):
    response = zoo.post("descriptors", {"what": what})
    assert response.status_code in (200, 503, 504), response.text
    works(zoo)


@pytest.mark.parametrize("what", ["fork", "pty", "multiprocessing"])
def test_a_function_cannot_fork(zoo, tools, what):
    processes = tools.working_processes(zoo.mark)
    response = zoo.post("fork", {"what": what})
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    shown = zoo.http.get(f"/api/v1/calls/{response.headers['apiary-call-id']}").json()
    assert "RuleBroken: a function cannot fork its process" in shown["error"]["traceback"]
    assert zoo.call("count", name="fork") == 0
    assert tools.working_processes(zoo.mark) == processes
    works(zoo)


def test_an_action_can_start_a_program(zoo):
    assert zoo.call("run_program", word="bee") == "bee\n"


def test_the_death_of_a_host_is_noticed_though_a_child_has_its_descriptors(zoo, tools):
    zoo.call("fork", what="by a library in C")
    host = zoo.host()
    os.kill(host, signal.SIGKILL)
    tools.eventually(lambda: zoo.host() != host, 9)  # and not because it is silent, which takes longer
    works(zoo)
    for process in tools.working_processes(zoo.mark):
        if process not in (zoo.process.pid, zoo.host()):
            os.kill(process, signal.SIGKILL)


def test_what_functions_print_reaches_the_output_of_the_server(zoo, tools):
    zoo.call("print_much", lines=20_000)
    tools.eventually(lambda: "a line 19999" in zoo.text())
    works(zoo)


def test_a_host_that_is_suspended_goes_on_when_it_is_resumed(zoo):
    host = zoo.host()
    counter = name()
    with ThreadPoolExecutor(4) as pool:
        os.kill(host, signal.SIGSTOP)
        try:
            calls = [pool.submit(zoo.post, "bump", {"name": counter}) for _ in range(4)]
            assert zoo.http.get("/healthz").status_code == 200
            with pytest.raises(TimeoutError):
                calls[0].result(0.3)
        finally:
            os.kill(host, signal.SIGCONT)
        assert sorted(call.result().json() for call in calls) == [1, 2, 3, 4]
    assert zoo.host() == host


def test_no_call_stays_in_flight_and_no_descriptor_open(zoo, tools):
    works(zoo)
    tools.eventually(lambda: sum(host["in_flight"] for host in zoo.hosts()) == 0, what="all calls end")
    tools.eventually(lambda: len(zoo.hosts()) == 1, what="one host is left")
    descriptors = Path(f"/proc/{zoo.process.pid}/fd")
    tools.eventually(lambda: len(list(descriptors.iterdir())) < 60, what="few descriptors stay open")
