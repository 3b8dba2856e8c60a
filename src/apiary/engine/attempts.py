"""The attempts of an action: each runs in a thread of its own, which is left behind when its time is over.

Between two of them nothing runs. `actions.py` has each begin, and writes what they come to.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from apiary.runtime.beating import listener
from apiary.runtime.call import ACTED, Bound, Program, failure, let_go, problem_of, record_of, stopped
from apiary.runtime.declaration import IDEMPOTENCY_KEY
from apiary.runtime.errors import DeadlineExceeded, Overloaded, Rejected
from apiary.runtime.ids import id_text
from apiary.runtime.plain import plain
from apiary.runtime.session import Call, Outcome, Record, blamed
from apiary.runtime.transaction import Notes

MAX_BACKOFF_SECONDS = 60.0
CLEANUP_SECONDS = 0.5
GRACE_SECONDS = 2.0

Noting = Callable[[bytes, float], AbstractContextManager[Callable[[], None]]]
Ran = tuple[Outcome, Record]


class Attempts:
    """Those of one call. `noting`: as `ActionRunner` has it. What reading the arguments raises comes from here."""

    def __init__(self, program: Program, bound: Bound, call: Call, noting: Noting) -> None:
        self._program = program
        self._bound = bound
        self._call = call
        self._noting = noting
        self._arguments = bound.codec.decode(call)
        self._notes = Notes()
        self._done = 0
        self._allowance = Allowance(bound.function.options.timeout)

    def next(self) -> Ran | float:
        """Run one; what the action came to, or the seconds until another one is to run.

        `Overloaded` where there is no thread for it.
        """
        call, options = replace(self._call, attempt=self._done + 1), self._bound.function.options
        seconds = options.timeout if options.attempt_timeout is None else options.attempt_timeout
        try:
            with self._noting(blamed(call), seconds + GRACE_SECONDS) as renew:
                output = self._bound.codec.encode(self._run(Attempt(self._allowance, seconds, renew)))
        except NoThread:
            raise Overloaded(f"{call.function} found no thread to run in; send it again") from None
        except BaseException as error:  # noqa: BLE001 - whatever it raised, it is retried or recorded
            let_go(error)
            self._done += 1
            return self._failed(call, error)
        record = record_of(self._program, self._bound, call, self._notes, "ok", output)
        return Outcome(output, duration=record.duration), record

    def _failed(self, call: Call, error: BaseException) -> Ran | float:
        """Whether another attempt follows, and when: not after the time is over, nor after what is final."""
        options, notes = self._bound.function.options, self._notes
        said = f"attempt {self._done}: {type(error).__name__}: {plain(error)}"
        notes.lines.append({"at": notes.elapsed(), "message": said})
        wait = min(options.backoff * 2 ** (self._done - 1), MAX_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)
        late = isinstance(error, OutOfTime)
        worth = late or (isinstance(error, options.retry_on) and not isinstance(error, Rejected))
        if worth and self._done <= options.retries and wait < self._allowance.left():
            return float(wait)
        if late and self._allowance.left():
            error = DeadlineExceeded(
                f"{call.function} ran longer than its attempt_timeout of {options.attempt_timeout:g} s",
                hint=f"{ACTED}; make it shorter, or declare a longer attempt_timeout",
            )
        elif late or (worth and self._done <= options.retries):
            return stopped(self._program, self._call, notes)
        problem = problem_of(call, error, ACTED)
        record = failure(self._program, self._bound, call, notes, problem, error)
        return Outcome(error=problem, cause=error, duration=record.duration), record

    def _run(self, attempt: Attempt) -> Any:
        function, arguments = self._bound.function, self._arguments
        if function.wants_idempotency_key:
            arguments = {**arguments, IDEMPOTENCY_KEY: self._call.key or id_text(self._call.id)}
        run: Callable[[], Any] = partial(function.body, **arguments)
        cleanup = 0.0
        if inspect.iscoroutinefunction(function.body):
            run, cleanup = partial(_in_a_loop, run, attempt), CLEANUP_SECONDS
        try:
            return _in_a_thread(run, attempt, cleanup, f"apiary-action-{function.name}")
        finally:
            attempt.end()


class Allowance:
    """The time that an action has left, for all its attempts."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, none where it is over."""
        return max(0.0, self._end - time.monotonic())

    def renew(self) -> None:
        """It begins anew."""
        self._end = time.monotonic() + self._seconds


class Attempt:
    """The time that one attempt has left. Each beat begins it anew, and the allowance with it, until it is over."""

    def __init__(self, allowance: Allowance, seconds: float, renew: Callable[[], None]) -> None:
        self._allowance = allowance
        self._seconds = seconds
        self._renew = renew
        self._lock = threading.Lock()
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, none where it is over."""
        return max(0.0, min(self._end - time.monotonic(), self._allowance.left()))

    def beat(self) -> None:
        """The action is getting on; `DeadlineExceeded` where that comes too late."""
        with self._lock:
            if not self.left():
                raise DeadlineExceeded("the time of the action is over, and it was given up")
            self._allowance.renew()
            self._end = time.monotonic() + self._seconds
            self._renew()

    def end(self) -> None:
        """It has run, or was left behind."""
        with self._lock:
            self._end = 0.0


class OutOfTime(Exception):
    """An attempt took longer than it may."""


class NoThread(Exception):
    """The system has no thread for the body of an action."""


def _in_a_thread(run: Callable[[], Any], attempt: Attempt, cleanup: float, name: str) -> Any:
    done: list[Any] = []
    failed: list[BaseException] = []

    def body() -> None:
        listener.set(attempt.beat)
        try:
            done.append(run())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            failed.append(error)

    thread = threading.Thread(target=body, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise NoThread from None
    while thread.is_alive() and attempt.left():
        thread.join(attempt.left())
    thread.join(cleanup)
    if failed:
        raise failed[0]
    if not done:
        raise OutOfTime("it ran out of time")
    return done[0]


def _in_a_loop(body: Callable[[], Coroutine[Any, Any, Any]], attempt: Attempt) -> Any:
    async def within_time() -> Any:
        task = asyncio.ensure_future(body())
        while not task.done() and attempt.left():
            await asyncio.wait({task}, timeout=attempt.left())
        late = task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            if late:
                raise OutOfTime("it ran out of time") from None
            raise

    return asyncio.run(within_time())
