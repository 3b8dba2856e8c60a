"""What is slow of a call with secrets and a key: their digest, made before the call gets to a lane."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from apiary.engine.jobs import Job

THREADS = 2


class Digesting:
    """Hands jobs on to `sort`, those that need a digest with it, from threads that nothing else waits for."""

    def __init__(self, sort: Callable[[Job], None]) -> None:
        self._sort = sort
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="apiary-digest")

    def submit(self, job: Job) -> None:
        """Take a job."""
        if job.bound is not None and job.bound.codec.has_secrets and job.call.key is not None:
            with suppress(RuntimeError):  # it is closed
                self._pool.submit(self._digest, job)
                return
        self._sort(job)

    def close(self) -> None:
        """Hand on what was taken, and end the threads."""
        self._pool.shutdown()

    def _digest(self, job: Job) -> None:
        assert job.bound is not None
        with suppress(Exception):  # the lane tries again, and has somebody to tell
            job.call = replace(job.call, digest=job.bound.codec.digest(job.call))
        self._sort(job)
