"""Calls of the queue that were lost with their process: each such attempt is recorded, until one is the last.

The process that runs the queue next does so, before it begins: the one that died could not.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from apiary.engine.protocol import LAST_ATTEMPT, MAX_DEATHS, Engine
from apiary.engine.table import as_call
from apiary.runtime.call import Program, problem_of, record_of
from apiary.runtime.errors import HostCrashed, Unavailable
from apiary.runtime.session import Call, Outcome, Queued, Record
from apiary.runtime.transaction import Notes

WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Death:
    """A process died, for some `reason`, when it ran a call of the queue; `alone`: nothing else can have ended it."""

    call: bytes
    reason: str
    alone: bool


class Deaths:
    """Records deaths by `write`, and tells `gave_up` of each call that is not run again."""

    def __init__(
        self,
        engine: Engine,
        program: Program,
        write: Callable[[Record, Callable[[bool], None]], None],
        gave_up: Callable[[Call, Outcome], None],
    ) -> None:
        self._engine = engine
        self._program = program
        self._write = write
        self._gave_up = gave_up

    def count(self, deaths: list[Death]) -> None:
        """Record them, and wait until that is durable; where the database does not write, they are not counted."""
        end = time.monotonic() + WAIT_SECONDS
        for written in [self._count(death) for death in deaths]:
            written.wait(max(0.0, end - time.monotonic()))

    def _count(self, death: Death) -> threading.Event:
        written = threading.Event()
        try:
            queued = self._engine.queued_call(death.call)
        except Unavailable:
            queued = None
        if queued is None:  # it came to its end before, or nobody can tell
            written.set()
            return written
        call = as_call(queued)
        deaths = queued.deaths + 1
        last = call.attempt >= LAST_ATTEMPT or (death.alone and deaths >= MAX_DEATHS)
        error = HostCrashed(
            f"its host died {deaths} {'time' if deaths == 1 else 'times'} with {call.function}; {death.reason}",
            hint="mend the function, then queue the call again" if last else "it is tried again",
        )
        problem = problem_of(call, error)
        record = record_of_lost(self._program, call, "failed" if last else "stopped", problem)

        def settled(kept: bool) -> None:
            if kept and last and self._has_ended(queued):
                self._gave_up(call, Outcome(error=problem, cause=error))
            written.set()

        self._write(record, settled)
        return written

    def _has_ended(self, queued: Queued) -> bool:
        """Whether that was its end: a workflow undoes what it did before."""
        try:
            return queued.version is None or self._engine.queued_call(queued.id) is None
        except Unavailable:
            return True


def record_of_lost(program: Program, call: Call, status: str, problem: Mapping[str, Any]) -> Record:
    """The record of a call of the queue that came to this `problem` without being run to its end here."""
    bound = program.functions.get(call.function)
    return record_of(program, bound, call, Notes(), status, error=json.dumps(problem))
