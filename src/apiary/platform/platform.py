"""The platform of one server: its registry, its apps with their hosts, and who may do what."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
import tarfile
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from apiary.bundle import Bundle
from apiary.codec import convert_rows
from apiary.config import Capturing, Settings
from apiary.embedded import OpenApp
from apiary.engine.members import Members
from apiary.engine.places import Places, open_places
from apiary.events import CallEnded, Event, Watcher
from apiary.log.questions import QUESTIONS
from apiary.platform import locks
from apiary.platform.deploys import Deploys
from apiary.platform.expander import Expander
from apiary.platform.follow import Followers
from apiary.platform.hosts import AppHosts
from apiary.platform.launch import TEMPORARY, Launcher
from apiary.platform.peers import Peers
from apiary.platform.process import HostProcess
from apiary.platform.registry import Version, digest_of, registry
from apiary.platform.retention import Retention
from apiary.platform.turns import Turns
from apiary.runtime.errors import Error, NotAuthenticated, NotFound, UnknownApp

log = logging.getLogger("apiary")

PUBLISH_AGAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a name for the log, and roles. The role `admin` may do everything."""

    name: str
    roles: tuple[str, ...]


class Platform:
    """Everything that a server knows and runs; the gateway is its only caller."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.apps: dict[str, AppHosts] = {}
        self.new_admin_key: str | None = None
        self._watchers: list[Watcher] = []
        self._places: Places
        self._registry: OpenApp | None = None
        self._registry_broken = False
        self._opening = threading.Lock()
        self._lock: IO[str]
        self._turns: Turns
        self._peers: Peers
        self.expander: Expander
        self._launcher: Launcher
        self._followers: Followers
        self._deploys: Deploys
        self.retention: Retention
        self._publishing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the registry and start a host for each app."""
        folder = self.settings.folder
        self._lock = locks.own(folder)
        shutil.rmtree(folder / "code", ignore_errors=True)  # a copy of what the registry has
        shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
        await asyncio.to_thread(self._open)
        self._connect(self._places.members(self.settings.lease_seconds))
        await self._peers.join(f"{self.settings.url}, process {os.getpid()} on {socket.gethostname()}")
        await self._followers.read()
        if not self._followers.state.keys:
            await self._first_key()
        await self._followers.start()
        self.retention.start()

    def _connect(self, members: Members) -> None:
        """Put the parts together."""

        async def look() -> None:
            await self._followers.look()

        async def serves(app: str) -> bool:
            await self._followers.read()
            return app in self._followers.state.active

        self._turns = Turns(members)
        self._peers = Peers(members, self.apps, self.emit, self._turns, look, serves)
        effects = self.settings.recording and self.settings.capture is not Capturing.OFF
        self.expander = Expander(self._places.expander if effects else None)
        self._launcher = Launcher(self.settings, self._places, self._peers, self._ask)
        parts = (self._ask, self._launcher, self._peers)
        self._followers = Followers(*parts, self.apps, self._hosts, self.settings.folder)
        self._deploys = Deploys(*parts, self._followers, self.apps, self._hosts)
        self.retention = Retention(self._places, self.apps, self.settings.keep_workflows_days, self.emit)

    def _open(self) -> None:
        self._places = open_places(self.settings.database, self.settings.folder)
        self._opened()

    def _opened(self) -> OpenApp:
        """The registry, open; again where its disk has failed, after which what was open knows nothing for certain."""
        with self._opening:
            if self._registry is not None and self._registry_broken:
                self._registry.close()
                self._registry = None
            if self._registry is None:
                engine = self._places.registry(convert_rows)
                self._registry_broken = False
                try:
                    self._registry = OpenApp(registry, engine, caller="platform", broken=self._broke)
                except BaseException:
                    engine.close()
                    raise
            return self._registry

    def _broke(self) -> None:
        self._registry_broken = True

    @property
    def description(self) -> str:
        """Where the data is, for people."""
        return self._places.description

    async def close(self) -> None:
        """Let what is in flight finish, then end the hosts."""
        for task in self._publishing:
            task.cancel()
        await self.retention.close()
        await self._followers.close()
        await asyncio.gather(*(hosts.close() for hosts in self.apps.values()))
        await self.expander.close()
        await self._peers.leave()
        if self._registry is not None:
            await asyncio.to_thread(self._registry.close)
        await asyncio.to_thread(self._places.close)
        self._lock.close()

    def kill(self) -> None:
        """End the hosts at once. Their databases stay as they were after the last commit."""
        for hosts in self.apps.values():
            hosts.kill()

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` for every event from now on."""
        self._watchers.append(watcher)

    def emit(self, event: Event) -> None:
        """Tell every watcher."""
        if isinstance(event, CallEnded):
            self.expander.tell(event.app)
        for watcher in self._watchers:
            watcher(event)

    def identify(self, key: str) -> Caller:
        """Who a key belongs to; `NotAuthenticated` where nobody knows it."""
        known = self._followers.state.keys.get(digest_of(key))
        if known is None:
            raise NotAuthenticated("the key is not known here")
        return Caller(known.name, tuple(known.roles))

    def app(self, name: str) -> AppHosts:
        """The hosts of an app, or `UnknownApp`."""
        hosts = self.apps.get(name)
        if hosts is None:
            raise UnknownApp(
                f"no app {name!r} is deployed here",
                hint="deployed are: " + ", ".join(sorted(self.apps)) if self.apps else "deploy one: apiary deploy PATH",
            )
        return hosts

    async def deploy(self, bundle: Bundle, caller: Caller) -> tuple[str, str, tuple[str, ...]]:
        """Load a bundle beside what serves and, if all is well, let it take over; see `Deploys.deploy`."""
        return await self._deploys.deploy(bundle, caller.name)

    async def rollback(self, app: str, version: str | None, caller: Caller) -> str:
        """Let an older version serve again: the given one, or the one before the present. Returns its name."""
        return await self._deploys.rollback(self.app(app), version, caller.name)

    async def versions(self, app: str) -> list[Version]:
        """The versions of an app, the latest activated first."""
        found: list[Version] = await self._ask("versions", app=app)
        return found

    async def ask_log(self, app: str, question: str, **arguments: Any) -> Any:
        """The answer to one of the questions about the log of an app."""
        self.app(app)
        return await asyncio.to_thread(lambda: QUESTIONS[question](self._places.log(app), **arguments))

    async def ask_logs(self, question: str, **arguments: Any) -> tuple[str, Any]:
        """The answer to a question for something that is in the log of one app; which one, and the answer."""
        missing = NotFound("there are no apps yet", hint="deploy one: apiary deploy PATH")
        for app in self.apps:
            try:
                return app, await self.ask_log(app, question, **arguments)
            except NotFound as error:
                missing = error
        raise missing

    async def queues(self, app: str) -> list[dict[str, Any]]:
        """The queues of an app, what waits and what runs; see `log/queues.py`."""
        declared = self.app(app).manifest.get("queues", {})
        running = await self._turns.of(app).running()
        found: list[dict[str, Any]] = await self.ask_log(app, "queues", declared=declared, running=running)
        return found

    async def backup(self) -> IO[bytes]:
        """All databases in one tar archive, each consistent in itself, while everything runs.

        The archive is an open file without a name: whatever happens to its reader, nothing is left behind.
        """
        with tempfile.TemporaryDirectory(dir=self._launcher.folder(TEMPORARY)) as folder:
            copies = Path(folder)
            for name in list(self.apps):
                await asyncio.to_thread(self._places.backup, name, copies / f"{name}.db")
            # Last, so that it knows of every deployment that a copy can have met.
            await asyncio.to_thread(self._places.backup, None, copies / "_platform.db")
            return await asyncio.to_thread(_pack, copies)

    async def servers(self) -> list[dict[str, Any]]:
        """The servers that share the database, with their hosts; none where it has one owner."""
        return await self._peers.listed()

    async def _ask(self, function: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(lambda: self._opened().call(function, **arguments))

    async def _first_key(self) -> None:
        """Make the first key, unless another server that starts at the same time is faster."""
        key = self.settings.admin_key or f"apiary_{secrets.token_urlsafe(24)}"
        await self._ask("add_key", name="admin", digest=digest_of(key), roles=["admin"])
        await self._followers.read()
        if self.settings.admin_key is None and digest_of(key) in self._followers.state.keys:
            self.new_admin_key = key

    def _hosts(self, app: str) -> AppHosts:
        waiting, one = self.settings.max_waiting_calls, self._places.one_writer
        load, turn = self._launcher.load, self._turns.of(app)
        return AppHosts(app, load, turn, self._publish, self.emit, waiting, one_writer=one)

    async def _publish(self, host: HostProcess) -> None:
        """Let other clients of the database call the version that serves now; later, where that cannot be at once."""
        if not await self._published(host):
            task = asyncio.get_running_loop().create_task(self._publish_later(host))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def _publish_later(self, host: HostProcess) -> None:
        app = host.manifest["app"]
        done = False
        while not done:
            await asyncio.sleep(PUBLISH_AGAIN_SECONDS)
            hosts = self.apps.get(app)
            done = hosts is None or hosts.active is not host or await self._published(host)

    async def _published(self, host: HostProcess) -> bool:
        try:
            told = await asyncio.to_thread(
                self._places.publish, host.place, host.manifest, recording=self.settings.recording
            )
        except Error as error:
            log.error("%s %s: %s; it is tried again", host.manifest["app"], host.version, error.message)
            return False
        for line in told:
            log.warning("%s %s: %s", host.manifest["app"], host.version, line)
        return True


def _pack(folder: Path) -> IO[bytes]:
    target = tempfile.TemporaryFile(dir=folder.parent)  # noqa: SIM115 - its reader closes it
    with tarfile.open(fileobj=target, mode="w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return target
