"""Deploys and rollbacks: how a version comes to serve on this server and, in step, on all that share the registry.

The deployment is noted in the registry, and the others follow (`platform/follow.py`): they load the version, and hold
what writes while it migrates. Nothing of it depends on this server to live: see there what becomes of one that died.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

from apiary.bundle import Bundle, unpack
from apiary.platform import packages
from apiary.platform.follow import DONE, HELD, LOADED, LOADING, MIGRATING, Followers
from apiary.platform.hosts import AppHosts
from apiary.platform.launch import TEMPORARY, Ask, Launcher
from apiary.platform.migrating import MigrationUnknown
from apiary.platform.peers import Peers
from apiary.platform.process import HostProcess
from apiary.platform.registry import Code, Deployment
from apiary.runtime.errors import BundleRefused, Conflict, Error, Unavailable

log = logging.getLogger("apiary")

AGREE_SECONDS = 600.0
"""So long the other servers may take to load a version: they may have to install packages."""
DONE_SECONDS = 30.0
"""So long who deploys waits until the others serve the version, too."""


class Deploys:
    """The deployments that this server sees to: those of one app one after another, those of several side by side."""

    def __init__(
        self,
        ask: Ask,
        launcher: Launcher,
        peers: Peers,
        followers: Followers,
        apps: dict[str, AppHosts],
        new_hosts: Callable[[str], AppHosts],
    ) -> None:
        self._ask = ask
        self._launcher = launcher
        self._peers = peers
        self._followers = followers
        self._apps = apps
        self._new_hosts = new_hosts
        self._loading = asyncio.Lock()
        self._deploying: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._under_way: Counter[str] = Counter()
        self._made: set[str] = set()

    async def deploy(self, bundle: Bundle, by: str) -> tuple[str, str, tuple[str, ...]]:
        """Load a bundle beside what serves and, if all is well, let it take over.

        Returns the app, the version, and the migrations that were applied. Where anything fails the version before
        it serves on, and the error says why.
        """
        async with self._unpacked(bundle) as folder:
            async with self._loading:
                locked = await packages.lock(folder)
                code = Code(app="", version=bundle.version, module=bundle.module, packages=locked)
                host = await self._launcher.launch(code)
            app = host.manifest["app"]
            deploying = self._deploying[app]
            if busy := deploying.locked():
                await host.stop()  # it would wait with all that it has loaded, and what is pending changes meanwhile
            async with deploying:
                if busy:
                    host = await self._launcher.launch(code)
                try:
                    await self._keep(app, bundle, locked, by)
                except BaseException:
                    await host.stop()
                    raise
                migrated = await self._take_over(host, by)
            return app, bundle.version, migrated

    async def rollback(self, hosts: AppHosts, version: str | None, by: str) -> str:
        """Let an older version serve again: the given one, or the one before the present. Returns its name."""
        async with self._deploying[hosts.app]:
            if version is None:
                version = str(await self._ask("version_before", app=hosts.app))
            code: Code = await self._ask("code", app=hosts.app, version=version, into=str(self._launcher.code))
            if code.version != hosts.version:
                await self._take_over(await self._launcher.launch(code), by)
            return code.version

    @asynccontextmanager
    async def _unpacked(self, bundle: Bundle) -> AsyncIterator[Path]:
        """The folder with the sources of a bundle. One that was made for this goes again if no such block succeeds."""
        version = bundle.version
        folder = self._launcher.code / version
        async with self._loading:
            if not folder.exists():
                await asyncio.to_thread(_unpack, bundle.content, folder)
                self._made.add(version)
            self._under_way[version] += 1
        try:
            yield folder
            self._made.discard(version)
        finally:
            self._under_way[version] -= 1
            async with self._loading:
                if version in self._made and not self._under_way[version]:
                    self._made.discard(version)
                    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _keep(self, app: str, bundle: Bundle, locked: str, by: str) -> None:
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
                created_by=by,
            )

    async def _take_over(self, host: HostProcess, by: str) -> tuple[str, ...]:
        """Let a host that was loaded migrate, be activated and serve; returns the migrations that it applied."""
        app = host.manifest["app"]
        try:
            deployment = await self._begin(app, host, by)
        except BaseException:
            await host.stop()
            raise
        try:
            migrated = await self._carry_out(deployment, host)
        except (MigrationUnknown, asyncio.CancelledError):
            self._followers.settle(deployment)
            raise
        except Error:
            await self._forget(deployment)
            raise
        finally:
            self._followers.busy.discard(app)
            self._followers.react()
        with suppress(Error):
            await self._agree(deployment, DONE, DONE_SECONDS)
            await self._peers.conclude(deployment.id)
        return migrated

    async def _begin(self, app: str, host: HostProcess, by: str) -> Deployment:
        """Note the deployment; waits for the one that another server has in hand.

        A server that is alone notes only what migrates: nothing of another deployment outlives it.
        """
        alone = self._peers.alone
        deployment = Deployment(
            app=app,
            version=host.version,
            begun_by=by,
            id=uuid4().hex if host.pending or not alone else "",
            server=self._peers.server,
            phase=MIGRATING if host.pending and alone else LOADING,
        )
        while True:
            news = self._peers.news
            following = self._followers.of(app)
            if following is not None:
                await asyncio.wait({following})
                continue
            self._followers.busy.add(app)
            try:
                if not deployment.id or await self._ask("begin", **deployment.model_dump()):
                    return deployment
            except BaseException:
                self._followers.busy.discard(app)
                raise
            self._followers.busy.discard(app)
            self._followers.react()
            await news.wait()

    async def _carry_out(self, deployment: Deployment, host: HostProcess) -> tuple[str, ...]:
        app = deployment.app
        try:
            await self._agree(deployment, LOADED, AGREE_SECONDS)
            if host.pending and deployment.phase == LOADING:
                await self._ask("migrate", app=app, id=deployment.id, server=deployment.server)
                deployment.phase = MIGRATING
                await self._agree(deployment, HELD, AGREE_SECONDS)
        except BaseException:
            await host.stop()
            raise
        hosts = self._apps.get(app) or self._new_hosts(app)
        migrated = await hosts.take_over(host, partial(self._activate, deployment))
        self._apps[app] = hosts
        return migrated

    async def _agree(self, deployment: Deployment, state: str, seconds: float) -> None:
        """Wait until every other server has come to this state, or is gone; raises where one cannot."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            news = self._peers.news
            awaited = await self._peers.awaited(deployment.id, state)
            for server in awaited:
                if server.problem is not None:
                    raise BundleRefused(f"another server ({server.description}) cannot load it: {server.problem}")
            if not awaited:
                return
            if asyncio.get_running_loop().time() > end:
                names = ", ".join(server.description for server in awaited)
                raise Unavailable(f"other servers did not follow in {seconds:g} s: {names}", hint="deploy again")
            await news.wait()

    async def _activate(self, deployment: Deployment, host: HostProcess) -> None:
        activation = {
            "app": deployment.app,
            "version": deployment.version,
            "activated_by": deployment.begun_by,
            "id": deployment.id or None,
            "server": deployment.server,
        }
        try:
            await self._ask("activate", **activation)
        except Conflict:
            raise
        except Error as error:
            if not host.migrated:
                raise
            # The schema is that of this version by now, so it serves; whoever finds that out activates it.
            app, version = deployment.app, deployment.version
            log.error("%s %s serves, but its activation cannot be written: %s", app, version, error.message)
            self._followers.settle(deployment)

    async def _forget(self, deployment: Deployment) -> None:
        """What has not migrated is as if it had never been."""
        if deployment.id:
            try:
                await self._ask("forget", app=deployment.app, id=deployment.id, server=deployment.server)
            except Conflict:
                pass  # another server has settled it
            except Error:
                self._followers.settle(deployment)


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
