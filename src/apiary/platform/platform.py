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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from apiary.bundle import Bundle, unpack
from apiary.codec import convert_rows
from apiary.config import ConfigurationError, Settings
from apiary.embedded import OpenApp
from apiary.engine.places import Places, open_places
from apiary.events import Event, Watcher
from apiary.log.questions import QUESTIONS
from apiary.platform import locks, packages
from apiary.platform.hosts import AppHosts, MigrationUnknown
from apiary.platform.launch import Launcher
from apiary.platform.peers import Peers
from apiary.platform.process import HostProcess
from apiary.platform.registry import Code, Deployment, Key, Version, digest_of, registry
from apiary.runtime.errors import BundleRefused, Error, NotAuthenticated, UnknownApp

log = logging.getLogger("apiary")

TEMPORARY = "tmp"
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
        self._keys: dict[str, Key] = {}
        self._places: Places
        self._registry: OpenApp | None = None
        self._registry_broken = False
        self._opening = threading.Lock()
        self._lock: IO[str]
        self._peers: Peers
        self._launcher: Launcher
        self._deploying = asyncio.Lock()
        self._publishing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the registry and start a host for each app."""
        folder = self.settings.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {folder} cannot be made: {error.strerror}", hint="name another one: --database"
            ) from None
        self._lock = locks.own(folder)
        shutil.rmtree(folder / "code", ignore_errors=True)  # a copy of what the registry has
        shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
        await asyncio.to_thread(self._open)
        members = self._places.members(self.settings.lease_seconds)
        self._peers = Peers(members, self.apps, self.emit, self._ask, self._look)
        self._launcher = Launcher(self.settings, self._places, self._peers, self._ask)
        await self._peers.join(f"{self.settings.url}, process {os.getpid()} on {socket.gethostname()}")
        self._keys = await self._ask("keys")
        if not self._keys:
            await self._first_key()
        begun: dict[str, Deployment] = await self._ask("begun")
        for deployment in begun.values():
            await self._settle(deployment)
        active: dict[str, str] = await self._ask("active_versions")
        await asyncio.gather(*(self._start_app(app, version) for app, version in active.items()))

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
        await asyncio.gather(*(hosts.close() for hosts in self.apps.values()))
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
        for watcher in self._watchers:
            watcher(event)

    def identify(self, key: str) -> Caller:
        """Who a key belongs to; `NotAuthenticated` where nobody knows it."""
        known = self._keys.get(digest_of(key))
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
        """Load a bundle beside what serves and, if all is well, let it take over.

        Returns the app, the version, and the migrations that were applied. Where anything fails the version before
        it serves on, and the error says why.
        """
        async with self._deploying:
            folder = self._launcher.code / bundle.version
            known = folder.exists()
            try:
                if not known:
                    await asyncio.to_thread(_unpack, bundle.content, folder)
                locked = await packages.lock(folder)
                code = Code(app="", version=bundle.version, module=bundle.module, packages=locked)
                host = await self._launcher.launch(code)
                app = host.manifest["app"]
                hosts = self.apps.get(app) or self._hosts(app)
                try:
                    await self._keep(app, bundle, locked, caller)
                except BaseException:
                    await host.stop()
                    raise
                migrated = await self._take_over(hosts, host, caller)
            except BaseException:
                if not known:
                    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                raise
            self.apps[app] = hosts
            return app, bundle.version, migrated

    async def rollback(self, app: str, version: str | None, caller: Caller) -> str:
        """Let an older version serve again: the given one, or the one before the present. Returns its name."""
        hosts = self.app(app)
        async with self._deploying:
            if version is None:
                version = str(await self._ask("version_before", app=app))
            code: Code = await self._ask("code", app=app, version=version, into=str(self._launcher.code))
            if code.version == hosts.version:
                return code.version
            await self._take_over(hosts, await self._launcher.launch(code), caller)
            return code.version

    async def versions(self, app: str) -> list[Version]:
        """The versions of an app, the latest activated first."""
        found: list[Version] = await self._ask("versions", app=app)
        return found

    async def ask_log(self, app: str, question: str, **arguments: Any) -> Any:
        """The answer to one of the questions about the log of an app."""
        self.app(app)
        return await asyncio.to_thread(lambda: QUESTIONS[question](self._places.log(app), **arguments))

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

    async def _look(self) -> None:
        """Something that all servers share may have changed."""

    async def _ask(self, function: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(lambda: self._opened().call(function, **arguments))

    async def _first_key(self) -> None:
        key = self.settings.admin_key
        if key is None:
            key = self.new_admin_key = f"apiary_{secrets.token_urlsafe(24)}"
        await self._ask("add_key", name="admin", digest=digest_of(key), roles=["admin"])
        self._keys = await self._ask("keys")

    async def _keep(self, app: str, bundle: Bundle, locked: str, caller: Caller) -> None:
        with tempfile.NamedTemporaryFile(dir=self._launcher.folder(TEMPORARY)) as staged:
            staged.write(bundle.content)
            staged.flush()
            await self._ask(
                "add_version",
                app=app,
                version=bundle.version,
                module=bundle.module,
                packages=locked,
                staged=staged.name,
                created_by=caller.name,
            )

    async def _take_over(self, hosts: AppHosts, host: HostProcess, caller: Caller) -> tuple[str, ...]:
        """Let a host that was loaded migrate, be activated and serve; returns the migrations that it applied."""
        names = {"app": host.manifest["app"], "version": host.version}

        async def activate(host: HostProcess) -> None:
            try:
                await self._ask("activate", **names, activated_by=caller.name)
            except Error as error:
                if not host.migrated:
                    raise
                # The schema is that of this version by now. The next start finds that out, and activates it.
                log.error("%s %s serves, but its activation cannot be written: %s", *names.values(), error.message)

        if host.pending:
            try:
                await self._ask("begin", **names, begun_by=caller.name)
            except BaseException:
                await host.stop()
                raise
        try:
            return await hosts.take_over(host, activate)
        except MigrationUnknown:
            raise
        except Error:
            with suppress(Error):
                await self._ask("forget", app=hosts.app)
            raise

    async def _settle(self, deployment: Deployment) -> None:
        """Complete a deployment in which a server died after the migrations, forget one in which it died before."""
        app, version = deployment.app, deployment.version
        await asyncio.to_thread(locks.wait_for_migration, self.settings.folder)
        try:
            host = await self._hosts(app).load(version)
        except Error as error:
            log.error("%s %s was being deployed, and does not load: %s", app, version, error.message)
            return
        if host.pending:
            log.warning("the deployment of %s %s had not migrated when the server ended: forgotten", app, version)
            await self._ask("forget", app=app)
        else:
            log.warning("the deployment of %s %s had migrated when the server ended: completed", app, version)
            await self._ask("activate", app=app, version=version, activated_by=deployment.begun_by)
        await host.stop()

    def _hosts(self, app: str) -> AppHosts:
        return AppHosts(app, self._launcher.load, self._publish, self.emit, self.settings.max_waiting_calls)

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

    async def _start_app(self, app: str, version: str) -> None:
        hosts = self._hosts(app)
        self.apps[app] = hosts
        hosts.version = version
        try:
            await hosts.switch(await hosts.start(version))
        except Exception as error:  # noqa: BLE001 - whatever it was (no memory, a full disk), it may pass
            log.error("%s %s does not start: %s", app, version, error)
            hosts.keep_trying(version)


def _unpack(content: bytes, folder: Path) -> None:
    """Unpack a bundle into a new folder: whole, or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        made = Path(fresh, "code")
        made.mkdir()
        try:
            unpack(content, made)
        except OSError as error:
            raise BundleRefused(f"the bundle cannot be unpacked: {error.strerror}") from None
        made.rename(folder)


def _pack(folder: Path) -> IO[bytes]:
    target = tempfile.TemporaryFile(dir=folder.parent)  # noqa: SIM115 - its reader closes it
    with tarfile.open(fileobj=target, mode="w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return target
