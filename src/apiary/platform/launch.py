"""Starts hosts: code and packages from the registry, a place in the database, an identity among all hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from apiary.config import Settings
from apiary.engine.places import Places, Source
from apiary.platform import packages
from apiary.platform.messages import Start
from apiary.platform.peers import Peers
from apiary.platform.process import HostProcess
from apiary.platform.registry import Code

TEMPORARY = "tmp"
"""The folder of what is being uploaded or backed up."""

Ask = Callable[..., Awaitable[Any]]


class Launcher:
    """Starts hosts on this machine. `ask` calls a function of the registry."""

    def __init__(self, settings: Settings, places: Places, peers: Peers, ask: Ask) -> None:
        self._settings = settings
        self._places = places
        self._peers = peers
        self._ask = ask

    @property
    def code(self) -> Path:
        """The folder with the sources of versions, made again from the registry where they are missing."""
        return self.folder("code")

    def folder(self, name: str) -> Path:
        """A folder of this machine's own."""
        folder = self._settings.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    async def load(self, app: str, version: str) -> HostProcess:
        """A host that has loaded a version which the registry knows; raises what it refuses with."""
        return await self.launch(await self._ask("code", app=app, version=version, into=str(self.code)))

    async def launch(self, code: Code) -> HostProcess:
        """A host that has loaded a version whose sources are here."""
        host = HostProcess(code.version)
        await host.start(await self._start_message(code), partial(self._make, host))
        return host

    async def _start_message(self, code: Code) -> Start:
        folder = (self.code / code.version).resolve()
        site = await packages.install(code.packages, folder / "wheels", self.folder("packages"))
        return Start(
            module=code.module,
            version=code.version,
            code=str(folder),
            packages=str(site.resolve()) if site else None,
            folder=str(self._settings.folder.resolve()),
            memory_bytes=self._settings.host_memory_bytes,
            recording=self._settings.recording,
            capture=self._settings.capture,
            host=str(uuid4()),
        )

    async def _make(self, host: HostProcess, app: str, start: Start) -> dict[str, Any]:
        """Make a place for an app and the version that a host has loaded, and make the host known to other servers."""
        await self._peers.add(host, app)
        folders = tuple(Path(folder) for folder in (start.code, start.packages) if folder is not None)
        source = Source(start.module, start.version, folders)
        return await asyncio.to_thread(self._places.make, app, source, UUID(start.host))
