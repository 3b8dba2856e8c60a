"""SIGKILL at any moment, of the host and of the server: every effect is there once, and nothing is left behind."""

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import httpx
import pytest
from tests.service.conftest import WAIT_SECONDS, new_client

CLIENTS = 12


class Load:
    """Clients that call `effect`, each call with a key of its own, and ask again until there is an answer."""

    def __init__(self, url: Callable[[], str], prefix: str) -> None:
        self.prefix = prefix
        self.answers: dict[str, int] = {}
        self.wrong: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._done = [self._pool.submit(self._client, number) for number in range(CLIENTS)]

    def finish(self) -> dict[str, int]:
        """Stop, once every call has its answer; returns the answers by key."""
        self._stop.set()
        for done in self._done:
            done.result(60)
        self._pool.shutdown()
        assert not self.wrong, self.wrong[:3]
        return self.answers

    def _client(self, client: int) -> None:
        number = 0
        with new_client() as http:
            while not self._stop.is_set():
                number += 1
                self._call(http, f"{self.prefix}-{client}-{number}")

    def _call(self, http: httpx.Client, key: str) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            try:
                response = http.post(
                    self._url() + "/apps/zoo/effect", json={"key": key}, headers={"Idempotency-Key": key}
                )
            except httpx.TransportError:
                time.sleep(0.02)
                continue
            if response.status_code == 200:
                self.answers[key] = response.json()
                return
            if response.status_code != 503:
                self.wrong.append(response.text)
                return
        self.wrong.append(f"no answer for {key}")


def check(server, answers: dict[str, int]) -> None:
    """Every call that was answered left one row, and its answer is the number of that row."""
    prefix = next(iter(answers)).split("-")[0]
    found = server.call("effects", prefix=prefix)
    assert set(found.values()) == {1}
    assert found.keys() == answers.keys()
    assert len(set(answers.values())) == len(answers)
    for key in random.sample(sorted(answers), 20):
        again = server.post("effect", {"key": key}, key=key)
        assert (again.json(), again.headers["idempotency-replayed"]) == (answers[key], "true")


@pytest.fixture
def server(new_server, tools):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")
    return server


def kill_hosts(server, tools, times: int) -> None:
    load = Load(lambda: server.url, uuid.uuid4().hex)
    generator = random.Random(1)
    seconds = []
    for _ in range(times):
        time.sleep(generator.uniform(0.05, 1.5))  # any moment will do
        host = server.host()
        os.kill(host, signal.SIGKILL)
        killed = time.monotonic()
        tools.eventually(lambda host=host: [h for h in server.hosts() if h["pid"] != host])
        server.call("bump", name="probe")
        seconds.append(time.monotonic() - killed)
    check(server, load.finish())
    assert median(seconds) < 5
    assert server.call("count", name="probe") == times


def test_the_host_is_killed_again_and_again(server, tools):
    kill_hosts(server, tools, 6)


@pytest.mark.soak
def test_the_host_is_killed_for_minutes(server, tools):
    kill_hosts(server, tools, 120)


def test_a_host_that_is_killed_as_soon_as_it_is_there_is_soon_replaced(server, tools):
    """However often: the pauses before hosts that do not start grow to 5 s, and this one starts."""
    seconds = []
    for _ in range(7):
        host = server.host()
        killed = time.monotonic()
        os.kill(host, signal.SIGKILL)
        tools.eventually(lambda host=host: [h for h in server.hosts() if h["pid"] != host])
        seconds.append(time.monotonic() - killed)
    assert min(seconds[-2:]) < 5
    assert server.call("bump", name="there") == 1


def kill_servers(server, tools, times: int) -> None:
    load = Load(lambda: server.url, uuid.uuid4().hex)
    generator = random.Random(2)
    try:
        for number in range(times):
            server.call("later", key=f"queued{number}-", many=40)
            time.sleep(generator.uniform(0.1, 1.0))  # any moment will do
            server.kill()
            tools.eventually(lambda: not tools.marked_processes(server.mark), what="the hosts end with their server")
            server.start()
    finally:
        answers = load.finish()
    check(server, answers)
    for number in range(times):
        expected = {f"queued{number}--{item}": 1 for item in range(40)}
        tools.eventually(lambda n=number, e=expected: server.call("effects", prefix=f"queued{n}-") == e)


def test_the_server_is_killed_again_and_again(server, tools):
    kill_servers(server, tools, 3)


@pytest.mark.soak
def test_the_server_is_killed_for_minutes(server, tools):
    kill_servers(server, tools, 40)


@pytest.mark.parametrize("function", ["regex", "block", pytest.param("slow_action", marks=pytest.mark.soak)])
def test_a_host_that_is_busy_ends_with_its_server_and_blocks_nobody_after_it(server, tools, function):
    arguments = {"seconds": 25} if function == "slow_action" else {"name": "busy"}
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(server.post, function, arguments)
        tools.eventually(lambda: server.hosts()[0]["in_flight"] == 1)
        server.kill()
        with pytest.raises(httpx.TransportError):
            lost.result()
    tools.eventually(lambda: not tools.marked_processes(server.mark), 20, "the host ends with its server")
    server.start()
    assert server.call("bump", name="after") == 1
    assert server.call("count", name="busy") == 0


def test_the_queue_goes_on_when_its_host_was_killed(server, tools):
    server.call("later", key="all-", many=400)
    for _ in range(3):
        os.kill(server.host(), signal.SIGKILL)
        tools.eventually(lambda: server.post("bump", {"name": "x"}).status_code == 200)
    expected = {f"all--{number}": 1 for number in range(400)}
    tools.eventually(lambda: server.call("effects", prefix="all-") == expected)
