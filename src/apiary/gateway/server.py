"""`apiary serve`: one process that answers HTTP and looks after the hosts."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import cast

import uvicorn
import uvloop

from apiary.config import ConfigurationError, Settings
from apiary.gateway.api import Api
from apiary.gateway.calls import ANONYMOUS, Calls
from apiary.gateway.connection import KEEP_ALIVE_SECONDS, Connection, most_connections, sweep
from apiary.gateway.metrics import Metrics
from apiary.gateway.wire import Message, Receive, Scope, Send
from apiary.platform.platform import Caller, Platform
from apiary.runtime.ids import id_text, new_id

log = logging.getLogger("apiary")

BACKLOG = 1024
DRAIN_SECONDS = 60
PATIENT_SECONDS = 1.0
SAME_SIGNAL_SECONDS = 0.3

Prepare = Callable[[Platform], Awaitable[None]]


class Gateway:
    """The ASGI application: calls take the short way, all else goes through Starlette."""

    def __init__(self, platform: Platform, anonymous: Caller | None) -> None:
        self._calls = Calls(platform, anonymous)
        self._rest = Api(platform, self._calls, Metrics(platform)).starlette()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            parts = scope["path"].split("/")
            if len(parts) == 4 and parts[1] == "apps" and parts[3] not in ("docs", "openapi.json", "web"):
                await self._calls.handle(parts[2], parts[3], scope, receive, send)
                return
            await self._other(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the request an id, as every request has one, and hand it to Starlette."""
        call_id = scope["apiary.call_id"] = id_text(new_id())

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = (b"apiary-call-id", call_id.encode())
                headers = message["headers"]
                message["headers"] = headers if own[0] in dict(headers) else [*headers, own]
            await send(message)

        await self._rest(scope, receive, identified)


class Server(uvicorn.Server):
    """A server whose end is decided by `serve`, which must end the hosts after it. `up` is set when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Signals:
    """The first signal ends the server when its calls are answered, the second at once."""

    def __init__(self, platform: Platform, stop: asyncio.Event) -> None:
        self._platform = platform
        self._stop = stop
        self._first = 0.0

    def handle(self, number: signal.Signals) -> None:
        """SIGTERM or SIGINT arrived. What a wrapper passes on, beside the terminal, counts once."""
        loop = asyncio.get_running_loop()
        if not self._stop.is_set():
            self._stop.set()
            self._first = loop.time()
            loop.call_later(PATIENT_SECONDS, log.warning, "stopping when what runs has ended; another signal ends it")
        elif loop.time() - self._first > SAME_SIGNAL_SECONDS:
            log.warning("ended at once by a second signal; what was answered is kept")
            self._platform.kill()
            os._exit(128 + number)


async def serve(settings: Settings, prepare: Prepare, ready: Callable[[Platform], None], *, trusting: bool) -> None:
    """Run a server until SIGTERM or SIGINT; a second one ends the process at once.

    `prepare` runs when the apps are up, before the port opens; `ready` is called when calls are taken. `trusting`:
    whoever calls without a key is an administrator (`apiary dev`, on loopback only).
    """
    with listen(settings.address, settings.port) as listener:
        platform = Platform(replace(settings, port=listener.getsockname()[1]))
        anonymous = Caller("local", ("admin",)) if trusting else ANONYMOUS if settings.anonymous_calls else None
        server = Server(
            uvicorn.Config(
                Gateway(platform, anonymous),
                loop="none",
                http=cast(type[asyncio.Protocol], partial(Connection, most_connections())),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        signals = Signals(platform, stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signals.handle, number)
        await platform.start()
        try:
            await prepare(platform)
            listener.listen(BACKLOG)
            serving = loop.create_task(server.serve(sockets=[listener]))
            sweeping = loop.create_task(sweep(server.server_state))
            serving.add_done_callback(lambda _: sweeping.cancel())
            serving.add_done_callback(lambda _: server.up.set())
            serving.add_done_callback(lambda _: stop.set())
            await server.up.wait()
            if not serving.done():
                ready(platform)
            await stop.wait()
            server.should_exit = True
            await serving
        finally:
            await platform.close()


def listen(address: str, port: int) -> socket.socket:
    """The bound socket of the server; port 0 is any that is free."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except (OSError, OverflowError) as error:
        listener.close()
        taken = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        hint = "name another port: --port" if taken else "name an address of this machine: --host"
        raise ConfigurationError(f"cannot listen on {address}:{port}: {error}", hint=hint) from None
    return listener


async def nothing(platform: Platform) -> None:
    """Prepare nothing."""


def run(
    settings: Settings,
    ready: Callable[[Platform], None],
    *,
    prepare: Prepare = nothing,
    trusting: bool = False,
) -> None:
    """Run a server in this process until it is told to stop."""
    uvloop.run(serve(settings, prepare, ready, trusting=trusting))
