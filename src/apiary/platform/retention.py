"""How long what workflows did is kept: each app's workflows that ended before that are dropped, a little at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from apiary.engine.places import Places
from apiary.events import Event, WorkflowsDropped
from apiary.log.retention import FIRST, Dropped, drop_workflows
from apiary.platform.hosts import AppHosts
from apiary.runtime.errors import Error

log = logging.getLogger("apiary")

DAY_SECONDS = 86400.0
LOOK_SECONDS = (1.0, 60.0)
LOOKS = 10
"""So often in the time for which they are kept it is looked whether there are some to drop, within these limits."""
PAUSE_SECONDS = 0.05
"""Between two goes, so that calls do not wait for many of them."""


class Retention:
    """Drops what is older than the apps say or, where they say nothing, older than `days`; `None`: for ever kept."""

    def __init__(
        self, places: Places, apps: Mapping[str, AppHosts], days: float | None, emit: Callable[[Event], None]
    ) -> None:
        self._places = places
        self._apps = apps
        self._days = days
        self._emit = emit
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def days(self, hosts: AppHosts) -> float | None:
        """For how many days what workflows of this app did is kept after their end."""
        own: float | None = hosts.manifest.get("keep_workflows_days")
        return self._days if own is None else own

    async def _run(self) -> None:
        least, most = LOOK_SECONDS
        looked: dict[str, float] = {}
        while True:
            await asyncio.sleep(least)
            for hosts in list(self._apps.values()):
                days, now = self.days(hosts), time.monotonic()
                if days is None or hosts.active is None or hosts.migrating is not None:
                    continue
                if now - looked.get(hosts.app, 0.0) >= min(most, days * DAY_SECONDS / LOOKS):
                    looked[hosts.app] = now
                    await self._drop(hosts.app, days)

    async def _drop(self, app: str, days: float) -> None:
        before = int((time.time() - days * DAY_SECONDS) * 1e6)
        after: bytes | None = FIRST
        try:
            while after is not None:
                done: Dropped = await asyncio.to_thread(drop_workflows, self._places.log(app), before, after)
                if done.workflows or done.steps:
                    self._emit(WorkflowsDropped(app, done.workflows, done.steps))
                after = done.after
                await asyncio.sleep(PAUSE_SECONDS)
        except Error as error:
            log.warning("what workflows of %s did is dropped later: %s", app, error.message)
