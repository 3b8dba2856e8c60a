"""One connection to a server under test: single calls, checked and timed, on a plain blocking socket."""

import json
import socket
import time
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from bench.process import Server, ServerFailed

READY_SECONDS = 30.0
NONE: Mapping[str, str] = MappingProxyType({})
RETRY_SECONDS = 0.002


class CallFailed(RuntimeError):
    """The server answered with something else than 200."""


class Connection:
    """A keep-alive HTTP/1.1 connection to a loopback port."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self.address = f"127.0.0.1:{port}"
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def call(self, path: str, arguments: dict[str, Any]) -> Any:
        """POST the arguments; the JSON result. Raises `CallFailed` with the body of any answer but 200."""
        return result(f"POST {path} {json.dumps(arguments)}", *self.post(path, arguments))

    def get(self, path: str) -> Any:
        """As `call`, for GET."""
        return result(f"GET {path}", *self.exchange(request("GET", path, self.address)))

    def post(self, path: str, arguments: dict[str, Any], headers: Mapping[str, str] = NONE) -> tuple[int, bytes]:
        return self.exchange(request("POST", path, self.address, json.dumps(arguments).encode(), headers))

    def exchange(self, message: bytes) -> tuple[int, bytes]:
        """Send one request and read its whole answer: status and body."""
        self.socket.sendall(message)
        received = b""
        while (answer := split_answer(received)) is None:
            chunk = self.socket.recv(262144)
            if not chunk:
                raise ConnectionResetError(f"{self.address} closed the connection within an answer")
            received += chunk
        return answer


def result(asked: str, status: int, body: bytes) -> Any:
    """The JSON of an answer; raises `CallFailed` with the body of any answer but 200."""
    if status != 200:
        raise CallFailed(f"{asked} answered {status}: {body.decode(errors='replace')[:800]}")
    return json.loads(body) if body else None


def request(method: str, path: str, address: str, body: bytes = b"", headers: Mapping[str, str] = NONE) -> bytes:
    kind = "Content-Type: application/json\r\n" if body else ""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {path} HTTP/1.1\r\nHost: {address}\r\n{kind}{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def split_answer(received: bytes) -> tuple[int, bytes] | None:
    """Status and body when the answer is complete, else None. Needs Content-Length, as all servers here send it."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    status = int(received[9:12])
    length = content_length(received[:end])
    if len(received) < end + 4 + length:
        return None
    return status, received[end + 4 : end + 4 + length]


def content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"\r\ncontent-length:")
    if start < 0:
        if b"\r\ntransfer-encoding:" in lowered:
            raise ValueError("the server answered in chunks; this driver reads answers with Content-Length only")
        return 0
    end = lowered.find(b"\r\n", start + 2)
    return int(lowered[start + 17 : end if end > 0 else None])


def wait_until_healthy(server: Server, port: int, path: str) -> None:
    """Wait until GET `path` answers 200, as long as the server lives."""
    wait_for_answer(server, port, request("GET", path, f"127.0.0.1:{port}"))


def wait_for_answer(server: Server | None, port: int, message: bytes, seconds: float = READY_SECONDS) -> bytes:
    """Send the request again and again until it is answered with 200; the body of that answer."""
    deadline, last = time.monotonic() + seconds, "no answer"
    while time.monotonic() < deadline:
        if server is not None:
            server.check()
        try:
            with Connection(port, timeout=5.0) as connection:
                status, body = connection.exchange(message)
            if status == 200:
                return body
            last = f"{status}: {body.decode(errors='replace')[:400]}"
        except OSError as error:
            last = str(error)
        time.sleep(RETRY_SECONDS)
    raise ServerFailed(
        f"port {port} does not answer after {seconds} s; last: {last}\n{server.tail() if server else ''}"
    )
