"""Actions: functions that touch the outside world. They run in threads beside the database, and are recorded after.

An action runs at least once, each time with the same idempotency key; its record is written before its answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from apiary.engine.alarms import Alarms
from apiary.engine.attempts import Attempts, Noting
from apiary.engine.protocol import Engine
from apiary.runtime.call import ACTED, NOTHING_KEPT, Bound, Program, failure, is_refusal, problem_of
from apiary.runtime.errors import DatabaseUnavailable, Error, KeyReused, Overloaded, Unavailable
from apiary.runtime.repeated import recorded_outcome
from apiary.runtime.session import Call, Outcome, Record
from apiary.runtime.transaction import Notes, check_roles

THREADS_FOR_CALLERS = 24
THREADS_FOR_QUEUE = 16

Reply = Callable[[Call, Outcome], None]
Write = Callable[[Record, Callable[[bool], None]], None]


@dataclass(slots=True, eq=False)
class Acting:
    """A call that runs for all who sent it: `identity` is its idempotency key, or its id.

    `allowed`: its caller has the roles that it needs.
    """

    call: Call
    bound: Bound
    identity: str | bytes
    arrived: float = field(default_factory=time.monotonic)
    allowed: bool = False

    @property
    def is_background(self) -> bool:
        """Whether no caller waits, but the queue or a workflow."""
        return self.call.queued or self.call.step is not None


class ActionRunner:
    """Runs actions with their retries; callers have threads of their own, beside those of the queue and workflows.

    One that waits for its next attempt has no thread.

    Calls with one idempotency key run once at a time, and share the outcome. `noting` is entered with the id of a call
    and the seconds it may take, for as long as it runs: the process may end with it, or hang. It gives what is to be
    called when that time begins anew.
    """

    def __init__(self, engine: Engine, program: Program, write: Write, noting: Noting) -> None:
        self._engine = engine
        self._program = program
        self._write = write
        self._noting = noting
        self._pools = {
            queued: ThreadPoolExecutor(threads, thread_name_prefix="apiary-action")
            for queued, threads in ((False, THREADS_FOR_CALLERS), (True, THREADS_FOR_QUEUE))
        }
        self._lock = threading.Condition()
        self._running: dict[str | bytes, list[tuple[Call, Reply]]] = {}
        self._begun: set[str | bytes] = set()
        self._alarms = Alarms("apiary-action-again")
        self._paused = 0
        self._closed = False

    def submit(self, call: Call, bound: Bound, reply: Reply) -> None:
        """Run the action in a thread; `reply` is called from another thread."""
        acting = Acting(call, bound, call.key or call.id)
        with self._lock:
            closed = self._closed
            if not closed:
                waiting = self._running.setdefault(acting.identity, [])
                waiting.append((call, reply))
                closed = len(waiting) == 1 and not self._begin(acting)
        if closed:
            reply(call, _not_run(call))

    def close(self) -> None:
        """Take no more, and wait for those that run: each has its timeout. Those that wait are not run.

        One that has run is answered when its record is written.
        """
        with self._lock:
            self._closed = True
            self._lock.wait_for(lambda: not self._paused)
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            left = [item for identity in self._running.keys() - self._begun for item in self._running.pop(identity)]
        for call, reply in left:
            reply(call, _not_run(call))

    def _begin(self, acting: Acting) -> bool:
        """Let a thread run the call, as soon as one is free; false where there can be none."""
        try:
            self._pools[acting.is_background].submit(self._run, acting)
        except RuntimeError:
            del self._running[acting.identity]
            return False
        return True

    def _run(self, acting: Acting) -> None:
        call, bound = acting.call, acting.bound
        with self._lock:
            if self._closed:
                return
            self._begun.add(acting.identity)
        try:
            earlier = self._earlier(call)
            if earlier is not None:
                self._settle(acting, recorded_outcome(earlier, call, bound))
                return
            if not acting.is_background and time.monotonic() - acting.arrived > bound.function.options.timeout:
                raise Overloaded(f"{call.function} waited longer than its timeout and was not run; send it again")
            check_roles(bound.function, call.roles)
            acting.allowed = True
            attempts = Attempts(self._program, bound, call, self._noting)
        except Exception as error:  # noqa: BLE001 - the engine's, or of the user's validators: the call must be answered
            self._refuse(acting, error, NOTHING_KEPT)
        else:
            self._attempt(acting, attempts)

    def _attempt(self, acting: Acting, attempts: Attempts) -> None:
        """Run the next attempt in this thread; where others follow, have them run later."""
        try:
            ran = attempts.next()
            while isinstance(ran, float) and not self._pause(acting, attempts, ran):
                time.sleep(ran)
                ran = attempts.next()
        except Exception as error:  # noqa: BLE001 - of the platform: the call must be answered
            self._refuse(acting, error, ACTED)
            return
        if not isinstance(ran, float):
            self._record(acting, *ran)

    def _pause(self, acting: Acting, attempts: Attempts, seconds: float) -> bool:
        """Have the next attempt run after so many seconds; false where the system has no thread for that."""

        def go_on() -> None:
            with suppress(RuntimeError):  # no further thread: those that the pool has come to it
                self._pools[acting.is_background].submit(again)

        def again() -> None:
            with self._lock:
                self._paused -= 1
                self._lock.notify_all()
            self._attempt(acting, attempts)

        with self._lock:
            self._paused += 1
        try:
            self._alarms.after(seconds, go_on)
        except RuntimeError:
            with self._lock:
                self._paused -= 1
            return False
        return True

    def _refuse(self, acting: Acting, error: Exception, kept: str) -> None:
        """The call ends with an error of the platform or of the user's types, recorded unless it may be sent again."""
        call = acting.call
        problem = problem_of(call, error, kept)
        outcome = Outcome(error=problem, cause=error)
        recorded = acting.is_background or (acting.allowed and not is_refusal(error))
        if recorded and not isinstance(error, Unavailable):
            self._record(acting, outcome, failure(self._program, acting.bound, call, Notes(), problem, error))
        else:
            self._settle(acting, outcome)

    def _record(self, acting: Acting, outcome: Outcome, record: Record) -> None:
        def written(kept: bool) -> None:
            self._settle(acting, outcome if kept else self._not_written(acting.call, acting.bound))

        self._write(record, written)

    def _settle(self, acting: Acting, outcome: Outcome) -> None:
        """Answer the call; those that came meanwhile under its key are looked at by themselves."""
        with self._lock:
            self._begun.discard(acting.identity)
            waiting = self._running.pop(acting.identity, [])
        for _, reply in waiting[:1]:
            reply(acting.call, outcome)
        for other, reply in waiting[1:]:
            self.submit(other, self._program.find(other.function), reply)

    def _earlier(self, call: Call) -> Record | None:
        """The record of this call, if it has one; a workflow asks for a step only where there is none."""
        return None if call.step is not None and call.attempt == 1 else self._engine.find(call.id, call.key)

    def _not_written(self, call: Call, bound: Bound) -> Outcome:
        """The answer where the record was not kept: what else was recorded for this call or its key, if it was."""
        try:
            earlier = self._engine.find(None, call.key) or self._engine.find(call.id, None)
            if earlier is None:
                raise DatabaseUnavailable("the action ran, and its record could not be written; ask again")
            return recorded_outcome(earlier, call, bound)
        except KeyReused as reused:
            failed = KeyReused(f"{call.function} ran, but {reused.message}", **reused.details)
            return Outcome(error=problem_of(call, failed), cause=failed)
        except Error as error:
            return Outcome(error=problem_of(call, error), cause=error)


def _not_run(call: Call) -> Outcome:
    error = Unavailable("the action was not run, because its app is closing or has no thread for it; ask again")
    return Outcome(error=problem_of(call, error), cause=error)
