"""A client's connection, within limits of size, time and number; what is beyond them is answered with a problem.

Nothing here runs a timer for a request: a sweep looks at all connections once a second.
"""

from __future__ import annotations

import asyncio
import http
import logging
import os
import resource
import time
from enum import Enum
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from apiary.gateway.wire import Receive, Scope, Send, problem_body, problem_headers, respond
from apiary.runtime.errors import Error, HeadTooLarge, MalformedRequest, Overloaded, RequestTimeout, Unavailable
from apiary.runtime.ids import id_text, new_id

log = logging.getLogger("apiary")

MAX_HEAD_BYTES = 64 * 1024
FRAMING_BYTES_PER_BYTE = 8
"""Of a chunked body: what the sizes of its chunks may take, where each has one byte."""
KEEP_ALIVE_SECONDS = 75  # longer than clients keep idle connections, so that none is closed under a request
MIN_BODY_BYTES_PER_SECOND = 16 * 1024
LEAVING_SECONDS = 2.0
CROWDED_FACTOR = 0.2
"""Of each of the times, while there are as many connections as there may be."""
SWEEP_SECONDS = 1.0
EXTRA_CONNECTIONS = 32
"""Beyond the limit: each is told so, or that the server is healthy."""
SPARE_DESCRIPTORS = 32
"""For databases, processes of apps, backups."""
DESCRIPTORS = "/proc/self/fd"


class Awaits(Enum):
    """What a connection waits for."""

    FIRST_BYTE = "first byte"
    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    NEXT_REQUEST = "next request"
    READER = "reader"


PATIENCE_SECONDS = {
    Awaits.FIRST_BYTE: 10.0,
    Awaits.HEAD: 10.0,
    Awaits.BODY: 60.0,
    Awaits.ANSWER: float("inf"),
    Awaits.NEXT_REQUEST: KEEP_ALIVE_SECONDS + 5.0,
    Awaits.READER: 15.0,
}
"""A client that takes nothing of its answer for so long is a lost reader."""


class Connection(HttpToolsProtocol):
    """A connection of a client. `most`: how many of them the server takes."""

    def __init__(
        self,
        most: int,
        config: Any,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._most = most
        self._extra = False
        self._leaving = False
        self._refusal: Error | None = None
        self._received = 0
        self._head_bytes = 0
        self._large = False
        self._begun_at = 0
        self._body_bytes = 0
        self._awaits = Awaits.ANSWER
        self._of: Any = None
        self._since = 0.0
        self._unread = 0
        self._received_then = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Part of `asyncio.Protocol`."""
        super().connection_made(transport)
        number = len(self.connections)
        if number > self._most + EXTRA_CONNECTIONS:
            transport.abort()
        elif number > self._most:
            self._extra = True
            self.app = self._crowded

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        self._unset_keepalive_if_required()
        self._received += len(data)
        self._large = self._head_bytes > 0 or len(data) > MAX_HEAD_BYTES
        scope, last = self.scope, self.cycle
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or MalformedRequest(said(error), hint="speak HTTP/1.1 to this port"))
            return
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            alone = last is None or (last.response_complete and not last.more_body)
            begun = len(data) if alone else 1  # with others, where it begins is not known
            self._head_bytes = self._head_bytes + len(data) if scope is self.scope else begun
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(head_too_large())
        elif cycle.more_body:
            framing = self._received - self._begun_at - self._body_bytes
            if framing > MAX_HEAD_BYTES + len(data) + FRAMING_BYTES_PER_BYTE * self._body_bytes:
                self._refuse(head_too_large())

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._large and len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers) > MAX_HEAD_BYTES:
            self._refusal = head_too_large()
            raise self._refusal
        self._head_bytes = self._body_bytes = 0
        self._begun_at = self._received
        super().on_headers_complete()
        if self._extra:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body_bytes += len(body)
        super().on_body(body)

    def shutdown(self) -> None:
        """The server ends: what runs is answered; a request that is not complete has little time left."""
        self._leaving = True
        super().shutdown()

    def check(self, now: float) -> None:
        """Close the connection where its client takes too long. Called every second."""
        unread = self.transport.get_write_buffer_size()
        awaits = Awaits.READER if unread else self._awaited()
        of = None if unread else self.scope
        if awaits is not self._awaits or of is not self._of or unread < self._unread:
            self._awaits, self._of, self._since, self._received_then = awaits, of, now, self._received
        elif now - self._since > self._patience():
            self._give_up()
        self._unread = unread

    def _awaited(self) -> Awaits:
        cycle: Any = self.cycle
        scope: Any = self.scope
        if cycle is not None and not cycle.response_complete:
            incomplete = cycle.scope is scope and cycle.more_body and not self.flow.read_paused
            return Awaits.BODY if incomplete else Awaits.ANSWER
        if scope is None:
            return Awaits.FIRST_BYTE
        return Awaits.NEXT_REQUEST if cycle is not None and cycle.scope is scope else Awaits.HEAD

    def _patience(self) -> float:
        seconds = PATIENCE_SECONDS[self._awaits]
        if self._awaits is Awaits.BODY:
            seconds += (self._received - self._received_then) / MIN_BODY_BYTES_PER_SECOND
        if self._leaving and self._awaits is not Awaits.ANSWER:
            return min(seconds, LEAVING_SECONDS)
        return seconds * CROWDED_FACTOR if len(self.connections) >= self._most else seconds

    def _give_up(self) -> None:
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self._awaits is Awaits.READER or answering:
            self.transport.abort()
        elif self._awaits in (Awaits.HEAD, Awaits.BODY):
            if self._leaving:
                self._refuse(Unavailable("the server is stopping, and the request is not complete"))
            else:
                what = self._awaits.value
                self._refuse(RequestTimeout(f"the {what} of the request did not arrive in time; nothing was run"))
        else:
            self.transport.close()

    def _refuse(self, error: Error) -> None:
        """Answer with a problem in the place of the application, and close."""
        if self.transport.is_closing():
            return
        call_id = id_text(new_id())
        body = problem_body(error, call_id)
        headers = [
            *problem_headers(error),
            (b"apiary-call-id", call_id.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        reason = http.HTTPStatus(error.status).phrase.encode()
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (error.status, reason, lines, body))
        self.transport.close()

    async def _crowded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/healthz":
            await self.config.loaded_app(scope, receive, send)
            return
        error = Overloaded(f"the server has {self._most} connections, as many as it takes; try again later")
        call_id = id_text(new_id())
        headers = [(b"apiary-call-id", call_id.encode()), *problem_headers(error)]
        await respond(send, error.status, headers, problem_body(error, call_id))


async def sweep(state: ServerState) -> None:
    """Look after the connections of a server, until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = time.monotonic()
        for connection in list(state.connections):
            if isinstance(connection, Connection):
                connection.check(now)


def most_connections() -> int:
    """How many connections the limit of descriptors of this process leaves room for."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return 2**20
    used = len(os.listdir(DESCRIPTORS)) if os.path.isdir(DESCRIPTORS) else SPARE_DESCRIPTORS
    spare = max(SPARE_DESCRIPTORS, allowed // 8)
    return max(8, allowed - used - spare - EXTRA_CONNECTIONS)


def said(error: Exception) -> str:
    """What the parser found wrong, as a part of a sentence."""
    text = str(error).rstrip(".")
    return f"invalid HTTP request: {text[:1].lower()}{text[1:]}" if text else "invalid HTTP request"


def head_too_large() -> HeadTooLarge:
    """The error of a request whose head goes on and on."""
    return HeadTooLarge(
        f"the head of a request has {MAX_HEAD_BYTES} bytes at most", hint="send what is large in the body"
    )
