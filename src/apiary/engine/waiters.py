"""Who waits for the end of workflows: their callers, and those who ask for a result later.

An end that comes in this process is told at once. One that may come in another process is looked for in the database,
soon at first, then less and less often, all that are due in one question.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from apiary.engine.jobs import Reply
from apiary.runtime.call import problem_of
from apiary.runtime.errors import Error
from apiary.runtime.repeated import replayed
from apiary.runtime.session import NEVER, Call, Outcome, Pause, Record

LOOK_SECONDS = (0.02, 1.0)
"""Between two looks for an end that may come in another process: at first, and at most."""
SELDOM = 20
"""So often one has looked who looks as seldom as anybody."""
FOR_EVER = float("inf")


@dataclass(slots=True, eq=False)
class Waiter:
    """A call that waits for the end of `workflow`, until a moment, and at least until that has `begun`."""

    workflow: bytes
    call: Call
    reply: Reply
    until: float
    begun: bool
    look_at: float = FOR_EVER
    looked: int = 0

    def look_later(self, now: float) -> None:
        """Look again after a while, at a moment at which others look, too."""
        least, most = LOOK_SECONDS
        wait = min(most, least * 2 ** min(self.looked, SELDOM))
        self.look_at = (now // wait + 1) * wait
        self.looked += 1


class Waiters:
    """`find` has the records of calls that are durable, by their ids."""

    def __init__(self, find: Callable[[Sequence[bytes]], Sequence[Record]]) -> None:
        self._find = find
        self._changed = threading.Condition()
        self._waiting: dict[bytes, list[Waiter]] = {}
        self._thread: threading.Thread | None = None
        self._closed: Error | None = None

    def add(self, workflow: bytes, call: Call, reply: Reply, seconds: float | None, *, begun: bool = False) -> None:
        """`reply` gets the outcome of a workflow or, after so many seconds, a pause, once it has `begun`."""
        until = FOR_EVER if seconds is None else time.monotonic() + seconds
        waiter = Waiter(workflow, call, reply, until, begun)
        with self._changed:
            closed = self._closed
            if closed is None:
                self._waiting.setdefault(workflow, []).append(waiter)
        if closed is not None:
            _tell_error(waiter, closed)
        elif begun:
            self.look(workflow)

    def begun(self, workflow: bytes) -> None:
        """A workflow has begun and not ended: who waits no longer is told so."""
        self._go_on(workflow, workflow, at_once=False)

    def join(self, call: bytes, workflow: bytes) -> None:
        """A call has turned out to mean a workflow that was begun before, perhaps by another process."""
        self._go_on(call, workflow, at_once=True)

    def look(self, workflow: bytes) -> None:
        """A workflow may end in another process: look for that at once, and then again."""
        self._go_on(workflow, workflow, at_once=True)

    def workflows(self) -> list[bytes]:
        """Those for whose end somebody waits."""
        with self._changed:
            return list(self._waiting)

    def tell(self, workflow: bytes, outcome: Outcome) -> bool:
        """A workflow has ended: answer all who wait. Returns whether the call that began it was among them."""
        waiters = self._take(workflow)
        for waiter in waiters:
            own = waiter.call.id == workflow
            of = outcome.replayed or workflow
            waiter.reply(waiter.call, replace(outcome, replayed=None if own and of == workflow else of))
        return any(waiter.call.id == workflow for waiter in waiters)

    def give_back(self, workflow: bytes, release: Callable[[Call], None]) -> None:
        """Hand over the calls that wait for a workflow, which is told of elsewhere."""
        for waiter in self._take(workflow):
            release(waiter.call)

    def forget(self, workflow: bytes) -> None:
        """Nobody waits here any more for this workflow."""
        self._take(workflow)

    def close(self, error: Error) -> None:
        """Answer all who wait with an error, and those who come later."""
        with self._changed:
            self._closed = error
            waiting, self._waiting = self._waiting, {}
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        for waiter in (waiter for waiters in waiting.values() for waiter in waiters):
            _tell_error(waiter, error)

    def _take(self, workflow: bytes) -> list[Waiter]:
        with self._changed:
            return self._waiting.pop(workflow, [])

    def _go_on(self, known_as: bytes, workflow: bytes, *, at_once: bool) -> None:
        now = time.monotonic()
        with self._changed:
            waiters = self._waiting.pop(known_as, [])
            over = [waiter for waiter in waiters if waiter.until <= now]
            waiters = [waiter for waiter in waiters if waiter.until > now]
            for waiter in waiters:
                waiter.workflow, waiter.begun = workflow, True
                if at_once:
                    waiter.look_at, waiter.looked = now, 0
                elif waiter.look_at == FOR_EVER:
                    waiter.look_at, waiter.looked = now + LOOK_SECONDS[1], SELDOM
            for waiter in over:
                waiter.workflow = workflow
            if waiters:
                self._waiting.setdefault(workflow, []).extend(waiters)
                self._wake()
        _tell_pause(over)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="apiary-waiters", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _watch(self) -> None:
        """Tell those whose time is over, and look for ends that came in other processes, as long as there are any."""
        while True:
            with self._changed:
                if self._closed is not None or not self._waiting:
                    self._thread = None
                    return
                now = time.monotonic()
                waiters = [waiter for found in self._waiting.values() for waiter in found if waiter.begun]
                over = [waiter for waiter in waiters if waiter.until <= now]
                due = [waiter for waiter in waiters if waiter.look_at <= now < waiter.until]
                for waiter in over:
                    self._drop(waiter)
                for waiter in due:
                    waiter.look_later(now)
                if not over and not due:
                    first = min((min(waiter.until, waiter.look_at) for waiter in waiters), default=FOR_EVER)
                    self._changed.wait(None if first == FOR_EVER else first - now)
            _tell_pause(over)
            if due:
                self._look_for({waiter.workflow for waiter in due})

    def _drop(self, waiter: Waiter) -> None:
        left = [other for other in self._waiting[waiter.workflow] if other is not waiter]
        if left:
            self._waiting[waiter.workflow] = left
        else:
            del self._waiting[waiter.workflow]

    def _look_for(self, workflows: set[bytes]) -> None:
        try:
            records = self._find(list(workflows))
        except Error:
            return
        for record in records:
            self.tell(record.id, replayed(record))


def _tell_error(waiter: Waiter, error: Error) -> None:
    waiter.reply(waiter.call, Outcome(error=problem_of(waiter.call, error), cause=error))


def _tell_pause(waiters: Sequence[Waiter]) -> None:
    for waiter in waiters:
        of = None if waiter.call.id == waiter.workflow else waiter.workflow
        waiter.reply(waiter.call, Outcome(pause=Pause(NEVER, 0, of=of)))
