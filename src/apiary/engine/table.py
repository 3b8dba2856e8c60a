"""What the backlog asks the database about the queue table, and its rows as calls."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from apiary.engine.jobs import soon
from apiary.engine.protocol import HORIZON_SECONDS, LAST_ATTEMPT, Engine
from apiary.runtime.errors import DeadlineExceeded, HostCrashed, Unavailable
from apiary.runtime.ids import id_seconds, id_text
from apiary.runtime.queueing import Queue
from apiary.runtime.session import Call, Outcome, Queued
from apiary.runtime.transaction import now_microseconds

log = logging.getLogger("apiary")

WANT_SECONDS = 0.01
RETRY_SECONDS = 0.5
MANY_ATTEMPTS = 4
"""From which on a call that cannot commit is told of, each time that their number has doubled."""


class Table:
    """The queue as a process of one version sees it. `wanted` is told of versions whose workflows are due.

    Not `plain`: only the workflows of the own version are looked for.
    """

    def __init__(self, engine: Engine, version: str, wanted: Callable[[Sequence[str]], None]) -> None:
        self.plain = True
        self._engine = engine
        self._version = version
        self._wanted = wanted
        self._due: set[str] = set()
        self._tell_wanted = soon(WANT_SECONDS, self._want)

    def load(self, limit: int, queue: str | None) -> Sequence[Queued]:
        """What is there, up to a limit for each queue; or of one queue only."""
        until = now_microseconds() + int(HORIZON_SECONDS * 1e6)
        if self.plain and queue is None:
            others = self._engine.versions_due(self._version, until)
            if others:
                self._wanted(others)
        return self._engine.queued(limit, until, self._version, plain=self.plain, queue=queue)

    def woken(self, workflows: Iterable[Queued]) -> None:
        """These go on. Those that began on other versions do so elsewhere."""
        others = {item.version for item in workflows if item.version not in (None, self._version)}
        if others and self.plain:
            self._due |= others
            self._tell_wanted()

    def _want(self) -> None:
        due, self._due = self._due, set()
        self._wanted(sorted(due))

    def begun(self) -> Collection[tuple[str, bytes]]:
        """The workflows that have begun and not ended, with the name of the queue from which they came."""
        return self._engine.begun()

    def paused(self) -> Collection[str]:
        """The queues from which nothing is to begin."""
        return self._engine.paused()

    def admit(self, queue: Queue, wanted: int) -> tuple[int, float]:
        """How many of so many calls may begin now by the rate of the queue; if none, in how many seconds one may."""
        assert queue.rate is not None
        return self._engine.admit(queue.name, wanted, *queue.rate)


def wait_of(queued: Queued) -> float:
    """Seconds until a call is due; no more than when it was queued, wherever the clock was set to since then."""
    due = queued.due / 1e6
    return due - max(time.time(), id_seconds(queued.id))


def as_call(queued: Queued) -> Call:
    """The next attempt at a queued call."""
    return Call(
        id=queued.id,
        function=queued.function,
        input=queued.input,
        caller=queued.caller,
        roles=frozenset({"admin"}),
        parent=queued.parent,
        attempt=queued.attempts + 1,
        queued=True,
        step=queued.step,
        epoch=queued.epoch,
        claimed=queued.unique is None,
    )


def is_tried_again(call: Call, outcome: Outcome) -> bool:
    """Whether a call of the queue came to no outcome that lasts: it was stopped, or could not be committed."""
    problem = outcome.error or {}
    status = problem.get("status")  # not the code alone: that may be the application's own
    return (status == Unavailable.status and problem.get("code") != HostCrashed.code) or (
        status == DeadlineExceeded.status and call.attempt < LAST_ATTEMPT
    )


def wait_again(call: Call, outcome: Outcome) -> float:
    """Seconds until a call that came to no outcome that lasts is tried again. Many attempts are told of."""
    if call.attempt >= MANY_ATTEMPTS and call.attempt & (call.attempt - 1) == 0:
        why = (outcome.error or {}).get("detail")
        what = (id_text(call.id), call.function, call.attempt)
        log.warning("the queued call %s of %s came to no end in %d attempts: %s", *what, why)
    return RETRY_SECONDS * float(2 ** min(call.attempt, 6)) * random.uniform(0.5, 1.5)
