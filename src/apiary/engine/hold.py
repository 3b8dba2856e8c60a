"""When lanes may write: not, or only records, while another process migrates; in turn with one that writes, too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from apiary.engine.jobs import Job
from apiary.engine.protocol import Lane
from apiary.engine.watchdog import Watchdog

LOCKED_SECONDS = 600.0
"""So long what has run waits for a process that holds the database, to be recorded."""
WAITS = b"\xff" * 16
"""What the flight recorder says of a lane that waits."""


class May(Enum):
    """What a lane may write."""

    NOTHING = auto()
    RECORDS = auto()
    ALL = auto()


class Hold:
    """Stops lanes between two batches. A lane has a lock, which it holds from reading `may` until its batch ends."""

    def __init__(self) -> None:
        self.may = May.ALL
        self._lanes: list[threading.Lock] = []

    def lane(self) -> threading.Lock:
        """The lock of one more lane."""
        lock = threading.Lock()
        self._lanes.append(lock)
        return lock

    def change(self, may: May) -> None:
        """Let the lanes do this from now on; returns when every batch has ended that began before."""
        self.may = may
        for lane in self._lanes:
            with lane:
                pass


def begun(
    lane: Lane,
    jobs: list[Job],
    more: Callable[[int], list[Job]],
    fresh: Callable[[list[Job], str], list[Job]],
    watchdog: Watchdog,
    *,
    records: bool,
) -> list[Job]:
    """Begin a transaction of this lane; returns the jobs that may still run.

    `more` has those that have come since, beside so many. `fresh` refuses those that have waited too long, and says
    why. With `records` to write it waits even for none.
    """
    jobs = fresh(jobs, "")
    if not (jobs or records) or lane.begin():
        return jobs
    with watchdog.noting(WAITS, LOCKED_SECONDS):  # who waits for another process is not silent
        end = time.monotonic() + LOCKED_SECONDS
        while (jobs := fresh(jobs, " for another process that writes to the database")) or records:
            if lane.begin() or time.monotonic() > end:
                break
            jobs += more(len(jobs))
    return jobs
