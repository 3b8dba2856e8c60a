"""Which lane takes a call: the queues of those that write, and what is in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from zlib import crc32

from apiary.engine.jobs import Job, Jobs, partition_of
from apiary.runtime.call import Bound
from apiary.runtime.session import Call


class Routes:
    """The queues of so many lanes. `running` has how many calls each runs now.

    `collides` tells of a function whether its calls keep each other from being committed: they meet in the last lane.
    """

    def __init__(self, lanes: int, collides: Callable[[str], bool]) -> None:
        self.queues: Sequence[Jobs] = [SimpleQueue() for _ in range(lanes)]
        self.running = [0] * lanes
        self._collides = collides

    def put(self, job: Job) -> None:
        """Have a job run by one of the lanes."""
        self._queue_of(job.call, job.bound).put(job)

    def here(self, queue: Jobs, jobs: list[Job]) -> list[Job]:
        """Those of the jobs that came to this queue that belong there yet; the others go where their kind meets."""
        last = self.queues[-1]
        if queue is last or not any(self._collides(job.call.function) for job in jobs):
            return jobs
        here = []
        for job in jobs:
            if self._collides(job.call.function):
                last.put(job)
            else:
                here.append(job)
        return here

    def nudge(self) -> None:
        """Have all lanes look for what else there is to do."""
        for queue in self.queues:
            queue.put(None)

    def _queue_of(self, call: Call, bound: Bound | None) -> Jobs:
        """Calls that would collide meet: those with one idempotency key or one value of the function's key."""
        queues = self.queues
        if len(queues) == 1 or self._collides(call.function):
            return queues[-1]
        partition = call.key or partition_of(call, bound)
        if partition is not None:
            return queues[crc32(partition.encode()) % len(queues)]
        return min(zip(queues, self.running, strict=True), key=lambda lane: lane[0].qsize() + lane[1])[0]
