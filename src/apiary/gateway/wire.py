"""Small pieces of HTTP that both halves of the gateway use: types of ASGI, sending, reading, problem documents."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from apiary.runtime.errors import Error, Overloaded, PayloadTooLarge, Unavailable, WrongArguments

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", b"application/problem+json")
SECONDS = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
MAX_WAIT_SECONDS = 3600.0


class Disconnected(Exception):
    """The client went away before its request was complete."""


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole response."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body of a request; `PayloadTooLarge` as soon as it is longer than `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise PayloadTooLarge(f"a request has {limit} bytes at most", hint="send large data in parts")
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def problem_headers(error: Error) -> Headers:
    """The headers that belong to the problem document of an error."""
    headers: Headers = [PROBLEM]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, Unavailable):
        headers.append((b"retry-after", b"2" if isinstance(error, Overloaded) else b"1"))
    allow = error.details.get("allow")
    if error.status == 405 and allow:
        headers.append((b"allow", str(allow).encode()))
    return headers


def problem_body(error: Error, call_id: str | None = None) -> bytes:
    """The problem document of an error (RFC 9457)."""
    problem = error.problem()
    if call_id or error.call_id:
        problem["call_id"] = call_id or error.call_id
    return json.dumps(problem, default=str).encode()


def bearer_key(headers: Headers) -> str | None:
    """The key of `Authorization: Bearer KEY`, if there is that header."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if scheme.lower() == "bearer" else ""
    return None


def checked_key(value: bytes) -> str:
    """An idempotency key from its header, checked."""
    try:
        key = value.decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not 1 <= len(key) <= 255 or not key.isprintable():
        raise WrongArguments("an Idempotency-Key has 1 to 255 printable ASCII characters")
    return key


def idempotency_key(headers: Headers) -> str | None:
    """The idempotency key of a request, checked, if it has one; of two it is not known which one was meant."""
    given = [value for name, value in headers if name == b"idempotency-key"]
    if len(given) > 1:
        raise WrongArguments(f"a request has one Idempotency-Key, not {len(given)}")
    return checked_key(given[0]) if given else None


def preferences(headers: Headers) -> dict[bytes, bytes]:
    """What the `Prefer` headers of a request say, by name (RFC 7240); the first word on a matter counts."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name == b"prefer":
            for part in value.split(b","):
                preference, _, wanted = part.partition(b";")[0].partition(b"=")
                found.setdefault(preference.strip().lower(), wanted.strip().strip(b'"'))
    return found


def patience(preferred: Mapping[bytes, bytes]) -> float | None:
    """How many seconds a client wants to wait for the end of a workflow; `None`: as long as it takes."""
    wait = preferred.get(b"wait", b"")
    if SECONDS.fullmatch(wait):
        return min(float(wait), MAX_WAIT_SECONDS)
    return 0.0 if b"respond-async" in preferred else None
