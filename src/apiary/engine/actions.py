"""Actions: functions that touch the outside world. They run in threads beside the database, and are recorded after.

An action runs at least once, each time with the same idempotency key; its record is written before its answer.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from apiary.engine.protocol import Engine
from apiary.runtime.beating import listener
from apiary.runtime.call import (
    ACTED,
    NOTHING_KEPT,
    Bound,
    Program,
    failure,
    is_refusal,
    let_go,
    problem_of,
    record_of,
    stopped,
)
from apiary.runtime.declaration import IDEMPOTENCY_KEY
from apiary.runtime.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    Error,
    KeyReused,
    Overloaded,
    Rejected,
    Unavailable,
)
from apiary.runtime.ids import id_text
from apiary.runtime.plain import plain
from apiary.runtime.repeated import recorded_outcome
from apiary.runtime.session import Call, Outcome, Record, blamed
from apiary.runtime.transaction import Notes, check_roles

THREADS_FOR_CALLERS = 24
THREADS_FOR_QUEUE = 16
MAX_BACKOFF_SECONDS = 60.0
CLEANUP_SECONDS = 0.5
GRACE_SECONDS = 2.0

Reply = Callable[[Call, Outcome], None]
Write = Callable[[Record, Callable[[bool], None]], None]
Noting = Callable[[bytes, float], AbstractContextManager[Callable[[], None]]]


class ActionRunner:
    """Runs actions with their retries; callers have threads of their own, beside those of the queue and workflows.

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
        self._lock = threading.Lock()
        self._running: dict[str | bytes, list[tuple[Call, Reply]]] = {}
        self._begun: set[str | bytes] = set()
        self._closed = False

    def submit(self, call: Call, bound: Bound, reply: Reply) -> None:
        """Run the action in a thread; `reply` is called from another thread."""
        identity = call.key or call.id
        with self._lock:
            closed = self._closed
            if not closed:
                waiting = self._running.setdefault(identity, [])
                waiting.append((call, reply))
                closed = len(waiting) == 1 and not self._begin(call, bound, identity)
        if closed:
            reply(call, _not_run(call))

    def close(self) -> None:
        """Take no more, and wait for those that run: each has its timeout. Those that wait are not run.

        One that has run is answered when its record is written.
        """
        with self._lock:
            self._closed = True
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            left = [item for identity in self._running.keys() - self._begun for item in self._running.pop(identity)]
        for call, reply in left:
            reply(call, _not_run(call))

    def _begin(self, call: Call, bound: Bound, identity: str | bytes) -> bool:
        """Let a thread run the call, as soon as one is free; false where there can be none."""
        try:
            self._pools[call.queued or call.step is not None].submit(self._run, call, bound, identity, time.monotonic())
        except RuntimeError:
            del self._running[identity]
            return False
        return True

    def _run(self, call: Call, bound: Bound, identity: str | bytes, arrived: float) -> None:
        with self._lock:
            self._begun.add(identity)

        def settle(outcome: Outcome) -> None:
            with self._lock:
                self._begun.discard(identity)
                waiting = self._running.pop(identity, [])
            for _, reply in waiting[:1]:
                reply(call, outcome)
            for other, reply in waiting[1:]:
                self.submit(other, self._program.find(other.function), reply)

        def written(kept: bool) -> None:
            settle(outcome if kept else self._not_written(call, bound))

        began = False
        try:
            earlier = self._earlier(call)
            if earlier is not None:
                settle(recorded_outcome(earlier, call, bound))
                return
            if (
                not (call.queued or call.step is not None)
                and time.monotonic() - arrived > bound.function.options.timeout
            ):
                raise Overloaded(f"{call.function} waited longer than its timeout and was not run; send it again")
            check_roles(bound.function, call.roles)
            began = True
            timeout = bound.function.options.timeout
            with self._noting(blamed(call), timeout + GRACE_SECONDS) as renew, Allowance(timeout, renew) as allowance:
                outcome, record = self._attempts(call, bound, bound.codec.decode(call), allowance)
            self._write(record, written)
        except Exception as error:  # noqa: BLE001 - the engine's, or of the user's validators: the call must be answered
            problem = problem_of(call, error, ACTED if began else NOTHING_KEPT)
            outcome = Outcome(error=problem, cause=error)
            recorded = call.queued or call.step is not None or (began and not is_refusal(error))
            if recorded and not isinstance(error, Unavailable):
                self._write(failure(self._program, bound, call, Notes(), problem, error), written)
            else:
                settle(outcome)

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

    def _attempts(
        self, call: Call, bound: Bound, arguments: dict[str, Any], allowance: Allowance
    ) -> tuple[Outcome, Record]:
        """Run until it succeeds, is refused, has no attempts left, or the time is over."""
        options = bound.function.options
        notes = Notes()
        for attempt in range(1, options.retries + 2):
            tried = replace(call, attempt=attempt)
            try:
                output = bound.codec.encode(_invoke(bound, call, arguments, allowance))
                record = record_of(self._program, bound, tried, notes, "ok", output)
                return Outcome(output, duration=record.duration), record
            except NoThread:
                raise Overloaded(f"{call.function} found no thread to run in; send it again") from None
            except BaseException as error:  # noqa: BLE001 - whatever it raised, it is retried or recorded
                let_go(error)
                said = f"attempt {attempt}: {type(error).__name__}: {plain(error)}"
                notes.lines.append({"at": notes.elapsed(), "message": said})
                wait = min(options.backoff * 2 ** (attempt - 1), MAX_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)
                last = isinstance(error, Rejected) or attempt > options.retries
                if isinstance(error, DeadlineExceeded) or (not last and wait >= allowance.left()):
                    return stopped(self._program, call, notes)
                if last:
                    problem = problem_of(call, error, ACTED)
                    record = failure(self._program, bound, tried, notes, problem, error)
                    return Outcome(error=problem, cause=error, duration=record.duration), record
                time.sleep(wait)
        raise AssertionError("the last attempt returns")


class Allowance:
    """The time that an action has left. Each beat begins it anew, until it is over."""

    def __init__(self, seconds: float, renew: Callable[[], None]) -> None:
        self._seconds = seconds
        self._renew = renew
        self._lock = threading.Lock()
        self._end = time.monotonic() + seconds

    def __enter__(self) -> Allowance:
        return self

    def __exit__(self, *error: object) -> None:
        """It has run, or was left behind."""
        with self._lock:
            self._end = 0.0

    def left(self) -> float:
        """Seconds, none where it is over."""
        return max(0.0, self._end - time.monotonic())

    def beat(self) -> None:
        """The action is getting on; `DeadlineExceeded` where that comes too late."""
        with self._lock:
            if not self.left():
                raise DeadlineExceeded("the time of the action is over, and it was given up")
            self._end = time.monotonic() + self._seconds
            self._renew()


class NoThread(Exception):
    """The system has no thread for the body of an action."""


def _not_run(call: Call) -> Outcome:
    error = Unavailable("the action was not run, because its app is closing or has no thread for it; ask again")
    return Outcome(error=problem_of(call, error), cause=error)


def _invoke(bound: Bound, call: Call, arguments: dict[str, Any], allowance: Allowance) -> Any:
    """One attempt, in a thread of its own, which is left behind at the deadline."""
    function = bound.function
    if function.wants_idempotency_key:
        arguments = {**arguments, IDEMPOTENCY_KEY: call.key or id_text(call.id)}
    cleanup = 0.0
    run: Callable[[], Any] = partial(function.body, **arguments)
    if inspect.iscoroutinefunction(function.body):
        cleanup = CLEANUP_SECONDS
        run = partial(_in_a_loop, run, allowance)
    done: list[Any] = []
    failed: list[BaseException] = []

    def body() -> None:
        listener.set(allowance.beat)
        try:
            done.append(run())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            failed.append(error)

    thread = threading.Thread(target=body, name=f"apiary-action-{function.name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise NoThread from None
    while thread.is_alive() and allowance.left():
        thread.join(allowance.left())
    thread.join(cleanup)
    if failed:
        raise failed[0]
    if not done:
        raise DeadlineExceeded(f"{function.name} ran out of time")
    return done[0]


def _in_a_loop(body: Callable[[], Coroutine[Any, Any, Any]], allowance: Allowance) -> Any:
    async def within_time() -> Any:
        task = asyncio.ensure_future(body())
        while not task.done() and allowance.left():
            await asyncio.wait({task}, timeout=allowance.left())
        late = task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            if late:
                raise DeadlineExceeded("the action ran out of time") from None
            raise

    return asyncio.run(within_time())
