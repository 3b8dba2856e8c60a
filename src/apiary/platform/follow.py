"""What a server does about the registry that it shares: serves what others activate, takes part in their deployments.

While another server deploys, this one loads the version, too, and holds what writes when that one wants to migrate.
Whatever the registry says afterwards is what serves here. What a lost server left unfinished is settled by another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apiary.platform import locks
from apiary.platform.hosts import AppHosts
from apiary.platform.launch import Ask, Launcher
from apiary.platform.peers import Peers
from apiary.platform.process import HostProcess
from apiary.platform.registry import Deployment, State
from apiary.runtime.errors import Conflict, Error

log = logging.getLogger("apiary")

LOADING, MIGRATING = "loading", "migrating"
LOADED, HELD, DONE = "loaded", "held", "done"
"""How far a server has followed: the version is loaded; nothing writes any more; the version serves, or never will."""
AGAIN_SECONDS = (0.5, 5.0)
"""Before what failed is tried again: at first, and at most."""


@dataclass(slots=True)
class Prepared:
    """What this server has for a deployment of another one: a host of its version, or the reason why there is none."""

    host: HostProcess | None = None
    problem: str | None = None
    told: str | None = None


class Followers:
    """The registry as this server knows it, and what is being done about it.

    `busy`: apps that this server is deploying itself.
    """

    def __init__(
        self,
        ask: Ask,
        launcher: Launcher,
        peers: Peers,
        apps: dict[str, AppHosts],
        new_hosts: Callable[[str], AppHosts],
        folder: Path,
    ) -> None:
        self.state = State(keys={}, active={}, begun={})
        self.busy: set[str] = set()
        self._ask = ask
        self._launcher = launcher
        self._peers = peers
        self._apps = apps
        self._new_hosts = new_hosts
        self._folder = folder
        self._following: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = asyncio.Lock()
        self._started = False

    async def read(self) -> None:
        """Read the registry."""
        async with self._reading:
            self.state = await self._ask("state")
        self._peers.pulse()

    async def start(self) -> None:
        """Settle what was left, and start a host for each app."""
        for deployment in self.state.begun.values():
            if await self._peers.gone(deployment.server) and not await self._settled(deployment):
                self.settle(deployment)
        await self.read()
        held = {app for app, deployment in self.state.begun.items() if deployment.phase == MIGRATING}
        active = self.state.active
        await asyncio.gather(*(self._start(app, version, held=app in held) for app, version in active.items()))
        self._started = True
        self.react()

    async def look(self) -> None:
        """The registry may have changed: read it, and begin what is to be done about that."""
        for attempt in range(1_000_000):
            try:
                await self.read()
                break
            except Error:
                await _pause(attempt)
        self.react()

    async def close(self) -> None:
        """Follow no more."""
        self._started = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def of(self, app: str) -> asyncio.Task[None] | None:
        """What is being done about an app."""
        return self._following.get(app)

    def react(self) -> None:
        """Begin what the registry asks for."""
        if not self._started:
            return
        for app, deployment in self.state.begun.items():
            if app not in self.busy | self._following.keys() and deployment.server != self._peers.server:
                hosts = self._apps.get(app) or self._new_hosts(app)
                if deployment.phase == MIGRATING:
                    hosts.held.begin()
                self._follow(app, self._take_part(hosts, deployment))
        for app, version in self.state.active.items():
            if app not in self.busy | self._following.keys() | self.state.begun.keys():
                hosts = self._apps.setdefault(app, self._new_hosts(app))
                if hosts.version != version:
                    self._follow(app, self._catch_up(hosts))

    def settle(self, deployment: Deployment) -> None:
        """Settle a deployment, and try that until it works."""
        self._background(self._settle(deployment))

    def _follow(self, app: str, work: Coroutine[Any, Any, None]) -> None:
        async def follow() -> None:
            try:
                await work
            finally:
                del self._following[app]
            self.react()

        self._following[app] = self._background(follow())

    async def _start(self, app: str, version: str, *, held: bool) -> None:
        hosts = self._apps.setdefault(app, self._new_hosts(app))
        hosts.version = version
        if held:
            hosts.held.begin()
            hosts.keep_trying(version)
            return
        try:
            await hosts.switch(await hosts.start(version))
        except Error as error:
            log.error("%s %s does not start: %s", app, version, error.message)
            hosts.keep_trying(version)

    async def _take_part(self, hosts: AppHosts, deployment: Deployment) -> None:
        """Follow a deployment of another server from state to state, until it is activated or forgotten."""
        prepared = Prepared()
        try:
            while True:
                news = self._peers.news
                now = self.state.begun.get(deployment.app)
                if now is None or now.id != deployment.id:
                    break
                try:
                    await self._come_to(hosts, now, prepared)
                    if await self._peers.gone(now.server):
                        await self._settle(now)
                except Error as error:
                    log.warning("the deployment of %s %s: %s", now.app, now.version, error.message)
                await news.wait()
            await self._switch(hosts, deployment, prepared)
        finally:
            host = prepared.host
            if host is not None and hosts.active is not host and host not in hosts.draining:
                await host.stop()

    async def _come_to(self, hosts: AppHosts, deployment: Deployment, prepared: Prepared) -> None:
        """Do what this server owes in the phase of a deployment, and say so."""
        if deployment.phase == LOADING and prepared.told is None:
            if prepared.host is None and prepared.problem is None:
                try:
                    prepared.host = await self._launcher.load(deployment.app, deployment.version)
                except Error as error:
                    prepared.problem = error.message
            await self._peers.acknowledge(deployment.id, LOADED, prepared.problem)
            prepared.told = LOADED
        elif deployment.phase == MIGRATING and prepared.told != HELD:
            await hosts.hold()
            await self._peers.acknowledge(deployment.id, HELD)
            prepared.told = HELD

    async def _switch(self, hosts: AppHosts, deployment: Deployment, prepared: Prepared) -> None:
        """A deployment is over: let the version serve that the registry names."""
        app = deployment.app
        if self.state.active.get(app) != deployment.version:
            await hosts.resume()
        else:
            self._apps[app] = hosts
            if prepared.host is None or prepared.host.ended:
                await self._catch_up(hosts)
            else:
                await hosts.switch(prepared.host)
        for attempt in range(3):
            try:
                await self._peers.acknowledge(deployment.id, DONE)
                break
            except Error:
                await _pause(attempt)

    async def _catch_up(self, hosts: AppHosts) -> None:
        """Let the version serve that the registry names, as soon as it can be loaded."""
        attempt = 0
        while (version := self.state.active.get(hosts.app)) not in (None, _serving(hosts)):
            try:
                await hosts.switch(await hosts.start(str(version)))
            except Error as error:
                log.error(
                    "%s %s was deployed on another server and does not start: %s", hosts.app, version, error.message
                )
                await _pause(attempt)
                attempt += 1

    async def _settle(self, deployment: Deployment) -> None:
        for attempt in range(1_000_000):
            try:
                if await self._settled(deployment):
                    break
            except Error as error:
                log.error("the deployment of %s %s: %s", deployment.app, deployment.version, error.message)
            await _pause(attempt)
        await self.look()

    async def _settled(self, deployment: Deployment) -> bool:
        """Complete a deployment in which a server died after the migrations, forget one in which it died before.

        `False`: that cannot be found out now.
        """
        app, version, own = deployment.app, deployment.version, {"app": deployment.app, "id": deployment.id}
        own["server"] = self._peers.server
        if deployment.server != self._peers.server and not await self._ask("claim", **own, lost=deployment.server):
            return True  # another server sees to it
        await asyncio.to_thread(locks.wait_for_migration, self._folder, app)
        try:
            if deployment.phase == LOADING or not await self._has_migrated(app, version):
                log.warning("the deployment of %s %s had not migrated when its server ended: forgotten", app, version)
                await self._ask("forget", **own)
            else:
                log.warning("the deployment of %s %s had migrated when its server ended: completed", app, version)
                await self._ask("activate", **own, version=version, activated_by=deployment.begun_by)
        except Conflict:  # somebody was faster, or deploys again
            return True
        except Error as error:
            log.error("%s %s was being deployed, and does not load: %s", app, version, error.message)
            return False
        return True

    async def _has_migrated(self, app: str, version: str) -> bool:
        host = await self._launcher.load(app, version)
        await host.stop()
        return not host.pending

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _serving(hosts: AppHosts) -> str | None:
    return hosts.active.version if hosts.active is not None else None


async def _pause(attempt: int) -> None:
    least, most = AGAIN_SECONDS
    await asyncio.sleep(min(most, least * 2**attempt))
