"""Requests as no well-behaved client sends them: bytes over a socket, odd paths, odd headers."""

import json
import re
import socket
import uuid

import httpx
import pytest
from tests.service.conftest import WAIT_SECONDS


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    assert found, answer[:200]
    return int(found[1])


def alive(zoo) -> None:
    assert zoo.call("bump", name=uuid.uuid4().hex) == 1


def request(
    path: bytes, body: bytes = b"", *headers: bytes, method: bytes = b"POST", length: int | None = None
) -> bytes:
    size = b"Content-Length: %d" % (len(body) if length is None else length)
    return b"\r\n".join([b"%s %s HTTP/1.1" % (method, path), b"Host: test", size, *headers, b"", body])


def test_a_chunked_body_is_taken(zoo):
    counter = uuid.uuid4().hex
    body = json.dumps({"name": counter}).encode()
    response = zoo.http.post("/apps/zoo/bump", content=(body[i : i + 1] for i in range(len(body))))
    assert (response.status_code, response.json()) == (200, 1)


def test_a_dribbled_body_is_taken_and_holds_nobody_up(zoo):
    counter = uuid.uuid4().hex
    data = request(b"/apps/zoo/bump", json.dumps({"name": counter}).encode())
    with socket.create_connection(("127.0.0.1", zoo.port), timeout=WAIT_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(data)):
            connection.sendall(data[number : number + 1])
            if number % 40 == 0:
                alive(zoo)
        assert status(connection.recv(65536)) == 200
    assert zoo.call("count", name=counter) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b"{}   "])
def test_a_body_that_is_cut_off_is_not_run(zoo, body):
    before = zoo.call("count", name="default")
    with socket.create_connection(("127.0.0.1", zoo.port), timeout=WAIT_SECONDS) as connection:
        connection.sendall(request(b"/apps/zoo/bump_default", body, length=len(body) + 5))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)
    with socket.create_connection(("127.0.0.1", zoo.port), timeout=WAIT_SECONDS) as connection:
        connection.sendall(
            b"POST /apps/zoo/bump_default HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
        )
    alive(zoo)
    assert zoo.call("count", name="default") == before


def test_pipelined_requests_are_answered_in_order(zoo):
    counter = uuid.uuid4().hex
    one = request(b"/apps/zoo/bump", json.dumps({"name": counter}).encode())
    last = request(b"/apps/zoo/bump", json.dumps({"name": counter}).encode(), b"Connection: close")
    with socket.create_connection(("127.0.0.1", zoo.port), timeout=WAIT_SECONDS) as connection:
        connection.sendall(one * 9 + last)
        data = b""
        while part := connection.recv(65536):
            data += part
    assert re.findall(rb"\r\n\r\n(\d+)", data) == [b"%d" % number for number in range(1, 11)]


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET /apps/zoo/openapi.json HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET /apps/zoo/openapi.json HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET /apps/zoo/openapi.json HTTP/1.1\r\nHost: a b<>\r\n\r\n",
        b"GET /apps/zoo/openapi.json HTTP/1.1\r\nHost: a:b:c\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
        b"POST /apps/zoo/bump_default HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /apps/zoo/bump_default HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /apps/zoo/bump_default HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /apps/zoo/bump HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /apps/zoo/bump HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: frob\r\n\r\n",
        b"CONNECT example:80 HTTP/1.1\r\nHost: example\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_bytes_of_any_kind_are_no_fault_of_the_server(zoo, data):
    with socket.create_connection(("127.0.0.1", zoo.port), timeout=WAIT_SECONDS) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except OSError:  # it was closed before all was sent
            answer = b""
    if answer.startswith(b"HTTP/1"):
        assert status(answer) < 500, answer
    alive(zoo)


@pytest.mark.parametrize("data", [b"GARBAGE\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nA\r\n\r\n"])
def test_what_is_no_http_is_answered_with_a_problem(zoo, data):
    head, _, body = zoo.raw(data).partition(b"\r\n\r\n")
    assert status(head) == 400
    problem = json.loads(body)
    assert problem["code"] == "malformed_request"
    assert b"\r\napiary-call-id: " + problem["call_id"].encode() in head
    assert b"\r\ncontent-type: application/problem+json" in head
    alive(zoo)


@pytest.mark.parametrize("place", ["/apps/zoo/web/", "/apps/", "/apps/zoo/", "/api/v1/apps/", "/static/docs/", "/"])
@pytest.mark.parametrize(
    "path",
    [
        "%00",
        "a%00b",
        "%ff",
        "%",
        "%zz",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "//etc/passwd",
        "..\\..\\etc\\passwd",
        "%f0%9f%90%9d",
        "x" * 5000,
        "/".join(["x"] * 2000),
        "%0d%0aX-Injected:%20yes",
        "<script>alert(1)</script>",
        "bump%20",
        "a?b#c",
    ],
    ids=lambda path: path[:20],
)
def test_odd_paths_are_no_fault_of_the_server(zoo, place, path):
    answer = zoo.raw(request((place + path).encode(), method=b"GET"))
    if not answer:
        return
    assert status(answer) < 500, answer[:300]
    assert b"root:" not in answer
    assert b"\r\nx-injected" not in answer.lower()
    assert b"<script>alert" not in answer or b"json" in answer.split(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/metrics", "/nothing", "/apps/zoo/docs", "/apps/zoo/openapi.json", "/apps/zoo/web/none",
             "/apps/none/docs", "/api/v1/apps", "/api/v1/nothing", "/static/docs/none", "/apps/zoo/web/"]
)  # fmt: skip
def test_every_answer_bears_an_id_and_every_refusal_is_a_problem(zoo, path):
    for method in ("GET", "PUT", "POST"):
        response = httpx.request(method, zoo.url + path)
        assert re.match(r"[0-9a-f-]{36}\Z", response.headers["apiary-call-id"]), response
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            found = response.json()
            assert (found["status"], found["call_id"]) == (response.status_code, response.headers["apiary-call-id"])
            assert {"type", "title", "code", "detail"} <= found.keys()
        if response.status_code == 405:
            assert response.headers["allow"]


def test_a_trailing_slash_is_not_a_call(zoo):
    response = zoo.http.post("/apps/zoo/bump/", json={"name": "slash"})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=²", "limit=-1", "limit=", "before=" + "9" * 30, "after=" + "9" * 5000, "limit=" + "9" * 30,
     "nothing=1", "status=%00", "app=none", "app=", "function=%ff", "limit=1&limit=2",
     "since=x", "until=-1", "text=", "text=%00", "text=a&since=5&until=9&function=b"],
    ids=lambda query: query[:20],
)  # fmt: skip
def test_questions_about_the_log_are_checked(zoo, query):
    response = zoo.http.get("/api/v1/calls?" + query)
    assert response.status_code in (200, 400, 404), response.text


@pytest.mark.parametrize(
    ("query", "code"),
    [("sql", "wrong_arguments"), ("sql?statement=select+1&more=1", "wrong_arguments"),
     ("history?table=counters", "wrong_arguments"), ("sql?statement=select+9e999,x'00'", None),
     ("history?table=counters&key=name", "wrong_arguments"), ("history?table=counters&key=[1]", "wrong_arguments"),
     ("history?table=counters&key={}&limit=few", "wrong_arguments"), ("sql?statement=select+1&app=none", "unknown_app"),
     ("sql?statement=delete+from+counters", "rule_broken"), ("sql?statement=selec", "wrong_arguments"),
     ("sql?statement=%00", "wrong_arguments"), ("sql?statement=select+1", None),
     ("history?table=%00&key={%22a%22:1e400}", None), ("readers?table=t&key={%22a%22:1}", None),
     ("readers?table=t&key={%22a%22:1}&since=now", "wrong_arguments"),
     ("sql?statement=select+1&limit=0&seconds=1.5", None),
     ("sql?statement=select+1&seconds=inf", "wrong_arguments"), ("as-of?table=t&key={%22a%22:1}", "wrong_arguments"),
     ("as-of?table=t&key={%22a%22:1}&at=now", "wrong_arguments"), ("as-of?table=t&key={%22a%22:1}&at=5", None),
     ("downstream", "wrong_arguments"), ("downstream?call=none", "not_found"),
     ("downstream?call=none&table=t&key={%22a%22:1}", "wrong_arguments"), ("downstream?table=t&key={%22a%22:1}", None),
     ("leaks?table=counters", "wrong_arguments"), ("leaks?table=none&allowed=true", "not_found"),
     ("leaks?table=counters&allowed=true&limit=5", None), ("leaks?table=counters&allowed=)", "wrong_arguments"),
     ("leaks?table=counters&allowed=%00", "wrong_arguments"), ("leaks?table=%00&allowed=true", "not_found"),
     ("trace", "wrong_arguments"), ("trace?call=none", "not_found"), ("trace?call=%00&app=zoo&depth=2", "not_found")],
)  # fmt: skip
def test_questions_about_effects_are_checked(zoo, query, code):
    response = zoo.http.get(f"/api/v1/log/{query}")
    answer = response.json()
    assert (answer.get("code") if isinstance(answer, dict) else None) == code, answer


@pytest.mark.parametrize("call", ["none", "%00", "0198f1c2-0000-7000-8000-000000000000", "x" * 3000, "%f0%9f%90%9d"])
def test_an_unknown_call_is_not_found(zoo, call):
    response = zoo.http.get(f"/api/v1/calls/{call}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v1/apps"), ("POST", "/api/v1/apps"), ("GET", "/api/v1/apps/zoo"), ("GET", "/api/v1/calls"),
     ("GET", "/api/v1/apps/zoo/versions"), ("POST", "/api/v1/apps/zoo/rollback"), ("GET", "/api/v1/backup"),
     ("GET", "/api/v1/calls/x"), ("GET", "/api/v1/log/sql"), ("GET", "/api/v1/log/history"),
     ("GET", "/api/v1/log/readers"), ("GET", "/api/v1/log/as-of"), ("GET", "/api/v1/log/trace"),
     ("GET", "/api/v1/log/downstream"), ("GET", "/api/v1/log/leaks")],
)  # fmt: skip
def test_the_platform_is_for_administrators(zoo, method, path):
    assert httpx.request(method, zoo.url + path).json()["code"] == "forbidden"
    response = httpx.request(method, zoo.url + path, headers={"Authorization": "Bearer wrong"})
    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")
