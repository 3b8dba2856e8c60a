"""`apiary serve`: one process that answers HTTP and looks after the hosts."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server as Granian

from apiary.config import ConfigurationError, Settings
from apiary.gateway.api import Api
from apiary.gateway.calls import ANONYMOUS, Calls
from apiary.gateway.metrics import Metrics
from apiary.gateway.wire import Receive, Scope, Send
from apiary.platform.platform import Caller, Platform

BACKLOG = 1024


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
        await self._rest(scope, receive, send)


async def serve(settings: Settings, ready: Callable[[Platform], None], *, trusting: bool = False) -> None:
    """Run a server until SIGTERM or SIGINT. `ready` is called when it takes calls.

    `trusting`: whoever calls without a key is an administrator (`apiary dev`, on loopback only).
    """
    port = free_port(settings.address, settings.port)
    platform = Platform(replace(settings, port=port))
    await platform.start()
    anonymous = Caller("local", ("admin",)) if trusting else ANONYMOUS if settings.anonymous_calls else None
    server = Granian(
        Gateway(platform, anonymous),
        address=settings.address,
        port=port,
        interface=Interfaces.ASGINL,
        backlog=BACKLOG,
        log_enabled=False,
        websockets=False,
    )
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    serving = loop.create_task(server.serve())
    try:
        await _until_open(settings.address, port, serving)
        ready(platform)
        await asyncio.wait({serving, loop.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=30)
        await platform.close()


def free_port(address: str, port: int) -> int:
    """The port to listen on: the given one, checked to be free, or for 0 any that is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {address}:{port}: {error.strerror}", hint="name another port: --port"
            ) from None
        number: int = probe.getsockname()[1]
        return number


async def _until_open(address: str, port: int, serving: asyncio.Task[None]) -> None:
    """Wait until the port takes connections."""
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.005)
    await serving


def run(settings: Settings, ready: Callable[[Platform], None], *, trusting: bool = False) -> None:
    """Run a server in this process until it is told to stop."""
    uvloop.run(serve(settings, ready, trusting=trusting))
