"""A hold as the server sees it: the calls of one app that wait because no host may write."""

from __future__ import annotations

import time
from contextlib import suppress

from apiary.platform.flights import InFlight
from apiary.platform.process import HostProcess
from apiary.runtime.errors import Error

EXCUSE_FACTOR = 4.0
"""Of the length of a hold. What has come in that time is caught up with by then, where a fifth of the time was free."""
MAX_EXCUSE_SECONDS = 60.0


class Held:
    """The calls that hosts gave back, between `begin` and `end`; true while the hold lasts."""

    def __init__(self) -> None:
        self._flights: list[InFlight] | None = None
        self._since = 0.0

    def __bool__(self) -> bool:
        return self._flights is not None

    def __len__(self) -> int:
        return len(self._flights or ())

    def begin(self) -> None:
        """Begin a hold, unless there is one."""
        if self._flights is None:
            self._flights, self._since = [], time.monotonic()

    def keep(self, flight: InFlight) -> None:
        """One more call waits."""
        assert self._flights is not None, "there is no hold"
        self._flights.append(flight)

    def end(self) -> list[InFlight]:
        """End the hold, if there is one; returns the calls that wait."""
        flights, self._flights = self._flights, None
        return flights or []

    async def excuse(self, host: HostProcess) -> None:
        """The calls that wait come to this host all at once. To wait for each other is not their fault either."""
        with suppress(Error):  # it is gone, and whoever takes its place has not let them wait
            await host.excuse(min(EXCUSE_FACTOR * (time.monotonic() - self._since), MAX_EXCUSE_SECONDS))
