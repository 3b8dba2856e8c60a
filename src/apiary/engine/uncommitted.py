"""Calls of the queue that can never be committed, with the reason in themselves: given up after many attempts.

Next to `deaths.py`, which does the same for calls that end their process.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from apiary.engine.deaths import record_of_lost
from apiary.engine.jobs import Reply
from apiary.engine.protocol import COMMIT_SECONDS, LAST_COMMIT
from apiary.runtime.call import Program, problem_of
from apiary.runtime.errors import HostCrashed, NotCommitted, Unavailable
from apiary.runtime.ids import id_seconds
from apiary.runtime.session import Call, Outcome, Record


class Uncommitted:
    """Stands between the lanes and the queue: `ended` is told what calls of the queue came to.

    Where a call is given up, its failure is recorded by `write` first. A database that cannot be asked is no attempt,
    and one that cannot write the failure keeps the call: an outage, however long, loses nothing.
    """

    def __init__(self, program: Program, write: Callable[[Record, Callable[[bool], None]], None], ended: Reply) -> None:
        self._program = program
        self._write = write
        self._ended = ended
        self._attempts: dict[bytes, int] = {}

    def settle(self, call: Call, outcome: Outcome) -> None:
        """A call of the queue came to this."""
        cause = outcome.cause
        if not isinstance(cause, Unavailable) or isinstance(cause, HostCrashed):
            self._attempts.pop(call.id, None)
        elif not cause.unreachable:
            attempts = self._attempts[call.id] = self._attempts.get(call.id, 0) + 1
            if attempts >= LAST_COMMIT and time.time() - id_seconds(call.id) >= COMMIT_SECONDS:
                self._give_up(call, outcome, cause)
                return
        self._ended(call, outcome)

    def _give_up(self, call: Call, outcome: Outcome, cause: Unavailable) -> None:
        error = NotCommitted(
            f"{call.function} could not be committed in {self._attempts[call.id]} attempts: {cause.message}",
            hint="mend the function, then queue the call again",
        )
        problem = problem_of(call, error)

        def written(kept: bool) -> None:
            if kept:
                self.settle(call, Outcome(error=problem, cause=error))
            else:
                self._ended(call, outcome)

        self._write(record_of_lost(self._program, call, "failed", problem), written)
