"""What waits for a lane: calls with their replies, taken in batches."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from apiary.runtime.call import Bound, problem_of
from apiary.runtime.declaration import Kind
from apiary.runtime.errors import Unavailable
from apiary.runtime.session import Call, Outcome, Record

SLOW_MICROSECONDS = 5_000

Reply = Callable[[Call, Outcome], None]


@dataclass(slots=True)
class Job:
    """A call, and what to do with its outcome. It may name a function that is gone (no `bound`).

    `wait`: after so many seconds, the outcome of a workflow that has begun is a pause.
    """

    call: Call
    bound: Bound | None
    reply: Reply
    wait: float | None = None
    arrived: float = field(default_factory=time.monotonic)

    def is_late(self, now: float, excused_until: float) -> bool:
        """Whether it waited longer than it may run, not counting the time before `excused_until`."""
        if self.bound is None or self.call.queued:
            return False
        return now - max(self.arrived, excused_until) >= self.bound.function.options.timeout


@dataclass(slots=True)
class Recording:
    """A record that is to be written, and who wants to know whether it was."""

    record: Record
    written: Callable[[bool], None]


Jobs = SimpleQueue[Job | None]


class Batches:
    """Takes what waits in a queue, together; a function that was slow last time gets a batch of its own."""

    def __init__(self, source: Jobs, most: int) -> None:
        self._source = source
        self._most = most
        self._slow: set[str] = set()
        self._held: Job | None = None
        self._nudged = False

    def next(self, wait: float | None) -> list[Job]:
        """The next batch; empty when the queue was only nudged, or nothing came within `wait` seconds."""
        batch: list[Job] = []
        held, self._held = self._held, None
        nudged, self._nudged = self._nudged, False
        try:
            item = held or self._source.get(timeout=0.0 if nudged else wait)
            while item is not None:
                slow = item.call.function in self._slow
                if slow and batch:
                    self._held = item
                    return batch
                batch.append(item)
                if slow or len(batch) >= self._most:
                    return batch
                item = self._source.get_nowait()
        except Empty:
            pass
        return batch

    def more(self, jobs: int) -> list[Job]:
        """What has come since a batch of so many was taken, and is to go with it. A nudge is left for the next one."""
        batch = [self._held] if self._held is not None else []
        self._held = None
        with suppress(Empty):
            while jobs + len(batch) < self._most:
                item = self._source.get_nowait()
                if item is None:
                    self._nudged = True
                else:
                    batch.append(item)
        return batch

    def note(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Remember which functions took long."""
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome.duration > SLOW_MICROSECONDS:
                self._slow.add(job.call.function)
            elif self._slow:
                self._slow.discard(job.call.function)


def partition_of(call: Call, bound: Bound | None) -> str | None:
    """The value of the argument that names the partition, as text; `None` where the function or the call has none.

    Each workflow is a partition: its runs follow one another.
    """
    if bound is not None and bound.function.kind is Kind.WORKFLOW:
        return call.id.hex()
    name = bound.function.options.key if bound else None
    if name is None:
        return None
    try:
        return json.dumps(json.loads(call.input)[name])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def refuse_rest(queue: Jobs) -> None:
    """Answer what waits in a queue of an app that is closed."""
    with suppress(Empty):
        while True:
            item = queue.get_nowait()
            if item is not None:
                refuse(item.call, item.reply)


def refuse(call: Call, reply: Reply) -> None:
    """Answer a call of an app that is closed."""
    error = Unavailable("the app was closed; the call was not run")
    reply(call, Outcome(error=problem_of(call, error), cause=error))


def soon(seconds: float, *works: Callable[[], None]) -> Callable[[], None]:
    """A function that has `works` done after so many seconds, once for all who ask for it meanwhile."""
    lock = threading.Lock()

    def run() -> None:
        lock.release()
        for work in works:
            work()

    def ask() -> None:
        if lock.acquire(blocking=False):
            timer = threading.Timer(seconds, run)
            timer.daemon = True
            timer.start()

    return ask
