"""The hot path: `POST /apps/{app}/{function}` and `GET /apps/{app}/{query}`, from the socket to the host and back."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs

from apiary.events import CallEnded, CallRefused, WorkflowBegun
from apiary.gateway.wire import (
    JSON,
    PROBLEM,
    Disconnected,
    Headers,
    Receive,
    Scope,
    Send,
    bearer_key,
    idempotency_key,
    patience,
    preferences,
    problem_body,
    problem_headers,
    read_body,
    respond,
)
from apiary.platform.hosts import AppHosts
from apiary.platform.messages import Answer, Invoke
from apiary.platform.platform import Caller, Platform
from apiary.runtime.call import unknown_function
from apiary.runtime.control import PREFIX
from apiary.runtime.errors import (
    Error,
    Forbidden,
    MethodNotAllowed,
    NotAuthenticated,
    UnsupportedMediaType,
    WrongArguments,
)
from apiary.runtime.ids import id_text, new_id

ANONYMOUS = Caller("anonymous", ())
LOOPBACK = {b"localhost", b"127.0.0.1", b"[::1]"}
MAX_KNOWN_CALLERS = 10_000
WORKFLOWS = b"/api/v1/workflows/"


class Calls:
    """Answers calls of functions. `anonymous` is who calls without a key, or none where a key is wanted."""

    def __init__(self, platform: Platform, anonymous: Caller | None) -> None:
        self._platform = platform
        self._anonymous = anonymous
        self._limit = platform.settings.max_request_bytes
        self._callers: dict[str, Caller] = {}

    async def handle(self, app: str, function: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call_id = new_id()
        text = id_text(call_id)
        identified = (b"apiary-call-id", text.encode())
        try:
            hosts, message = await self._message(app, function, call_id, scope, receive)
            answer = await hosts.call(message)
        except Disconnected:
            return
        except Error as error:
            self._platform.emit(CallRefused(app, function, error.code))
            await respond(send, error.status, [identified, *problem_headers(error)], problem_body(error, text))
            return
        status, headers, body, event = _answered(app, message, answer)
        self._platform.emit(event)
        await respond(send, status, headers, body)

    def caller(self, headers: Headers) -> Caller:
        """Who sends a request; `NotAuthenticated` where that cannot be told."""
        key = bearer_key(headers)
        if key is None:
            return self._without_key(headers)
        known = self._callers.get(key)
        if known is None:
            try:
                known = self._platform.identify(key)
            except NotAuthenticated:
                if self._anonymous is None or not self._anonymous.roles:
                    raise
                return self._without_key(headers)  # no keys are wanted here, and this one is for another server
            if len(self._callers) >= MAX_KNOWN_CALLERS:
                self._callers.clear()
            self._callers[key] = known
        return known

    def _without_key(self, headers: Headers) -> Caller:
        if self._anonymous is None:
            raise NotAuthenticated("a key is needed here")
        if self._anonymous.roles:
            _check_origin(headers)
        return self._anonymous

    async def _message(
        self, app: str, function: str, call_id: bytes, scope: Scope, receive: Receive
    ) -> tuple[AppHosts, Invoke]:
        headers: Headers = scope["headers"]
        caller = self.caller(headers)
        hosts = self._platform.app(app)
        method = scope["method"]
        declared = _declared(hosts, app, function, method, headers)
        if method == "GET" and declared.get("kind", "query") == "query":
            body, lax = _query_arguments(scope["query_string"]), True
        elif method == "POST":
            body, lax = await read_body(receive, self._limit), False
        else:
            allowed = "GET, POST" if declared.get("kind") == "query" else "POST"
            raise MethodNotAllowed(f"{function} is called with {allowed}, not {method}", allow=allowed)
        key, wait = idempotency_key(headers), None
        for name, value in headers:
            if name == b"prefer":
                wait = _wait(function, declared.get("kind", "workflow"), headers)
            elif name == b"content-type" and not lax:
                check_type(body, value.decode("latin-1"))
        return hosts, Invoke(call_id, function, body, caller.name, caller.roles, key, lax, wait=wait)


def _wait(function: str, kind: str, headers: Headers) -> float | None:
    """How many seconds the client waits for the end of a workflow, if it said so."""
    preferred = preferences(headers)
    if kind == "workflow":
        return patience(preferred)
    if b"respond-async" in preferred and preferred.get(b"handling") == b"strict":
        raise WrongArguments(
            f"{function} is no workflow, and is not started without waiting for its end",
            hint=f"call it; or have a transaction call tx.enqueue({function}, …)",
        )
    return None


def _answered(app: str, message: Invoke, answer: Answer) -> tuple[int, Headers, bytes, CallEnded | WorkflowBegun]:
    """The status, the headers and the body that an answer makes, and what there is to tell of it."""
    meant = id_text(answer.replayed or message.id).encode()
    headers: Headers = [(b"apiary-call-id", meant)]
    if answer.replayed is not None:
        headers.append((b"idempotency-replayed", b"true"))
    if answer.begun:
        applied = b"respond-async" if message.wait == 0 else b"wait"
        headers += [JSON, (b"location", WORKFLOWS + meant), (b"preference-applied", applied)]
        return 202, headers, b'{"id": "%s"}' % meant, WorkflowBegun(app, message.function, message.id)
    problem = None if answer.error is None else json.loads(answer.error)
    event = CallEnded(app, message.function, message.id, answer.duration, problem)
    if problem is None:
        return 200, [*headers, JSON], answer.output, event
    headers.append(PROBLEM)
    if problem["status"] == 503:
        headers.append((b"retry-after", b"1"))
    return problem["status"], headers, answer.error or b"", event


def _declared(hosts: AppHosts, app: str, function: str, method: str, headers: Headers) -> dict[str, Any]:
    """What the manifest says of a function; `UnknownFunction` with the nearest names.

    Nothing, where only the host can tell: with a key, an earlier version may have recorded the outcome.
    """
    functions = hosts.manifest.get("functions")
    if functions is None:
        return {}
    declared: dict[str, Any] | None = functions.get(function)
    if declared is None:
        recorded = method == "POST" and any(name == b"idempotency-key" for name, _ in headers)
        if recorded and not function.startswith(PREFIX):
            return {}
        raise unknown_function(app, function, functions)
    return declared


def _query_arguments(query: bytes) -> bytes:
    try:
        given = parse_qs(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError as error:
        raise WrongArguments(f"the query string cannot be read: {error}") from None
    return json.dumps(given).encode()


def _check_origin(headers: Headers) -> None:
    """Where this machine is trusted, the pages of other sites are not, though it is its browser that sends for them."""
    found = dict(headers)
    host = found.get(b"host", b"")
    origin = found.get(b"origin")
    if host.rpartition(b":")[0] not in LOOPBACK and host not in LOOPBACK:
        raise Forbidden("calls without a key must be sent to localhost", hint="or run: apiary serve, with keys")
    if origin is not None and origin.partition(b"://")[2] != host:
        raise Forbidden("a page of another site cannot call this server without a key")


def check_type(body: bytes, declared: str | None) -> None:
    """`UnsupportedMediaType` where a body is declared to be something else than JSON."""
    kind = "application/json" if declared is None else declared.partition(";")[0].strip().lower()
    if body and kind != "application/json" and not re.fullmatch(r"application/.*\+json", kind):
        raise UnsupportedMediaType(
            f"arguments are JSON, not {kind}",
            hint="send the header Content-Type: application/json (curl: --json)",
        )
