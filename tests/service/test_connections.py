"""Clients that send or read too slowly, too much, or too often: others are served all the same."""

import json
import socket
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from tests.service.conftest import WAIT_SECONDS

HALF = b"POST /apps/zoo/bump HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
HALF_HEAD = b"POST /apps/zoo/bump HTTP/1.1\r\nHost: x\r\nContent-"


def connect(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS)


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"apiary-call-id: " in head
    return int(head.split()[1]), json.loads(body)["code"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70_000,
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: x\r\n" * 20_000,
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /apps/zoo/bump HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: " + b"x" * 400_000,
    ],
    ids=["value", "complete", "many", "address", "trailer"],
)
def test_the_head_of_a_request_has_a_limit(zoo, data):
    with closing(connect(zoo)) as connection:
        for start in range(0, len(data), 10_000):
            try:
                connection.sendall(data[start : start + 10_000])
            except ConnectionError:
                break
        try:
            answer = connection.recv(65536)
        except ConnectionError:
            answer = b""  # it was closed while more was being sent
    assert not answer or problem(answer) == (431, "head_too_large")
    assert zoo.http.get("/healthz").status_code == 200


def test_a_head_without_end_is_refused_before_it_is_large(zoo, tools):
    with closing(connect(zoo)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 60_000)
        assert zoo.http.get("/healthz").status_code == 200
        connection.sendall(b"x" * 10_000)
        assert problem(tools.read_response(connection)) == (431, "head_too_large")
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 60_000 + b"\r\n\r\n",
        b"POST /apps/zoo/nothing HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 100_000
        + b"0\r\n\r\n",
    ],
)
def test_what_is_within_the_limits_is_taken(zoo, data):
    assert zoo.raw(data).split()[1] in (b"200", b"404")


@pytest.mark.parametrize("half", [HALF_HEAD, b""], ids=["head", "nothing"])
def test_a_request_that_does_not_arrive_in_time_is_given_up(zoo, tools, half):
    with closing(connect(zoo)) as connection:
        connection.sendall(half)
        answer = tools.read_response(connection)
    assert not half or problem(answer) == (408, "request_timeout")


def test_half_sent_requests_do_not_delay_the_end(new_server, tools):
    server = new_server("--anonymous-calls")
    server.deployed(tools.APPS / "zoo")
    with ExitStack() as held:
        connections = [held.enter_context(closing(connect(server))) for _ in range(2)]
        for connection, half in zip(connections, (HALF, HALF_HEAD), strict=True):
            connection.sendall(half)
        assert server.http.get("/healthz").status_code == 200
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 30
        assert problem(connections[0].recv(65536)) == (503, "unavailable")
    assert "Traceback" not in server.text()


@pytest.fixture
def narrow_server(new_server, tools):
    """A server that may have 256 descriptors."""
    server = new_server("--anonymous-calls", before=("sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh"))
    server.deployed(tools.APPS / "zoo")
    return server


def test_connections_beyond_the_limit_are_told_so_and_health_is_answered(narrow_server, tools):
    health = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
    with ExitStack() as held:
        connections = []
        for _ in range(400):
            connections.append(held.enter_context(closing(connect(narrow_server))))
            with suppress(ConnectionError):
                connections[-1].sendall(HALF)
        tools.eventually(lambda: answered(narrow_server, health).startswith(b"HTTP/1.1 200"))
        assert problem(answered(narrow_server, HALF)) == (503, "overloaded")
        assert answered(narrow_server, health).startswith(b"HTTP/1.1 200")
    assert "Traceback" not in narrow_server.text()
    tools.eventually(lambda: narrow_server.post("bump", {"name": "x"}).status_code == 200)


def answered(server, data: bytes) -> bytes:
    try:
        return server.raw(data)
    except ConnectionError:
        return b""


def test_a_client_that_does_not_read_is_cut_off(zoo, tools):
    body = b'{"megabytes": 12}'
    head = b"POST /apps/zoo/large_result HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with ExitStack() as held:
        for _ in range(6):
            held.enter_context(closing(connect(zoo))).sendall(head + body)
        tools.eventually(lambda: open_connections(zoo) >= 6)
        tools.eventually(lambda: open_connections(zoo) <= 2, what="those that do not read are closed")
    assert zoo.http.get("/healthz").status_code == 200


def open_connections(server) -> int:
    """How many descriptors of the server are sockets on its port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[1].endswith(f":{server.port:04X}") and row[3] == "01")
