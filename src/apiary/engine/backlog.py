"""The backlog: the calls of the queue table that this process is to run, a window of them in memory.

Workflows that are in the same table are handed on to `flows.py`.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from apiary.engine.flows import Flows
from apiary.engine.protocol import HORIZON_SECONDS, LAST_ATTEMPT
from apiary.runtime.errors import DeadlineExceeded, Error, HostCrashed, Unavailable
from apiary.runtime.ids import id_seconds, id_text
from apiary.runtime.session import Call, Outcome, Queued

log = logging.getLogger("apiary")

WINDOW = 1000
RETRY_SECONDS = 0.5
MANY_ATTEMPTS = 4
"""From which on a call that cannot commit is told of, each time that their number has doubled."""
RELOAD_SECONDS = 1.0


class Backlog:
    """Hands out queued calls when they are due, each once at a time; what does not fit stays in the table.

    Calls that ran when their process died are handed out one by one, so that none is blamed for what another does.
    Inactive until `activate`: of two processes that serve one database during a deploy, one runs the queue.
    """

    def __init__(
        self,
        load: Callable[[int], Sequence[Queued]],
        ready: Callable[[], None],
        flows: Flows | None = None,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self._load = load
        self._ready = ready
        self._flows = flows
        if flows is not None:
            flows.freed = self.refill
        self._tell = tell
        self._lock = threading.Condition()
        self._active = False
        self._more = False
        self._loading = 0
        self._known: set[bytes] = set()
        self._elsewhere: set[bytes] = set()
        self._due: deque[Call] = deque()
        self._doubtful: set[bytes] = set()
        self._doubtful_due: deque[Call] = deque()
        self._on_trial: bytes | None = None
        self._later: list[tuple[float, bytes, Call]] = []
        self._timer: threading.Timer | None = None
        self._reloads: dict[float, threading.Timer] = {}

    def activate(self, except_for: Iterable[bytes] = ()) -> None:
        """Begin to run the queue with what lies in the table, except for the calls that another process still runs."""
        with self._lock:
            self._active = True
            self._known -= self._elsewhere
            self._elsewhere = set(except_for)
            self._known |= self._elsewhere
        if self._flows is not None:
            self._flows.activate(self._elsewhere)
        self.reload()

    def deactivate(self) -> list[bytes]:
        """Hand out nothing more; returns the calls that were handed out and still run."""
        running = self._flows.deactivate() if self._flows is not None else []
        with self._lock:
            self._active = False
            waiting = {call.id for call in (*self._due, *self._doubtful_due)} | {item[1] for item in self._later}
            self._known -= waiting
            self._due.clear()
            self._doubtful_due.clear()
            self._later.clear()
            return [*self._known, *running]

    def adopt(self) -> bool:
        """Go on with what processes have left that are gone, if this one runs the queue; returns whether it does."""
        adopted = self._flows is not None and self._flows.adopt()
        self.reload()
        return adopted

    def refill(self) -> None:
        """Some have come to their end: is there room for more?"""
        workflows = self._flows.outstanding() if self._flows is not None else 0
        if self._more and len(self._known) + workflows < WINDOW // 2:
            self.reload()

    def reload(self) -> None:
        """Look into the table again: another process may have left calls there. If it cannot be read, try later."""
        with self._lock:
            self._loading += 1
            self._more = False
        try:
            found = self._load(WINDOW)
        except Unavailable:
            self._more = True
            self.reload_after(RELOAD_SECONDS)
        else:
            self.add(found, perhaps_more=len(found) >= WINDOW)
            self.reload_after(HORIZON_SECONDS / 2)
        finally:
            with self._lock:
                self._loading -= 1
                self._lock.notify_all()

    def reload_after(self, seconds: float) -> None:
        """Look into the table again after so many seconds."""
        with self._lock:
            if seconds in self._reloads or not self._active:
                return
            timer = self._reloads[seconds] = threading.Timer(seconds, self._reload_again, (seconds,))
            timer.daemon = True
            timer.start()

    def add(self, queued: Iterable[Queued], *, perhaps_more: bool = False) -> None:
        """Take calls that were committed to the queue; there are `perhaps_more` in the table."""
        found, workflows = list(queued), list[Queued]()
        with self._lock:
            if not self._active:
                if found:
                    self._tell()
                return
            self._more |= perhaps_more
            for item in found:
                if item.version is not None:
                    workflows.append(item)
                    continue
                if item.id in self._known:
                    continue
                if len(self._known) >= WINDOW:
                    self._more = True
                    break
                self._known.add(item.id)
                if item.deaths:
                    self._doubtful.add(item.id)
                self._put(as_call(item), wait_of(item))
            waiting = bool(self._due or self._doubtful_due)
        if workflows and self._flows is not None:
            self._flows.add(workflows)
        if waiting:
            self._ready()

    def take(self, limit: int) -> list[Call]:
        """Up to `limit` calls that are due."""
        if not self._due and not self._doubtful_due:
            return []
        with self._lock:
            taken = [self._due.popleft() for _ in range(min(limit, len(self._due)))]
            if self._doubtful_due and self._on_trial is None and len(taken) < limit:
                taken.append(self._doubtful_due.popleft())
                self._on_trial = taken[-1].id
            return taken

    def done(self, call: Call, outcome: Outcome) -> None:
        """A call came to an end: one that was stopped, or could not commit, is tried again after a while."""
        problem = outcome.error or {}
        status = problem.get("status")  # not the code alone: that may be the application's own
        again = (status == Unavailable.status and problem.get("code") != HostCrashed.code) or (
            status == DeadlineExceeded.status and call.attempt < LAST_ATTEMPT
        )
        with self._lock:
            next_trial = call.id == self._on_trial
            if next_trial:
                self._on_trial = None
            if again and self._active:
                if call.attempt >= MANY_ATTEMPTS and call.attempt & (call.attempt - 1) == 0:
                    why = (outcome.error or {}).get("detail")
                    what = (id_text(call.id), call.function, call.attempt)
                    log.warning("the queued call %s of %s came to no end in %d attempts: %s", *what, why)
                wait = RETRY_SECONDS * 2 ** min(call.attempt, 6) * random.uniform(0.5, 1.5)
                self._put(replace(call, attempt=call.attempt + 1), wait)
            else:
                self._known.discard(call.id)
                self._doubtful.discard(call.id)
                self._lock.notify_all()
        self.refill()
        if next_trial:
            self._ready()

    def wait_empty(self, timeout: float) -> bool:
        """Wait until no call is left in the queue, in memory or in the table, and no workflow runs or is due."""
        end = time.monotonic() + timeout
        while self._flows is None or self._flows.idle(end - time.monotonic()):
            with self._lock:
                if not self._lock.wait_for(self._is_empty, end - time.monotonic()):
                    return False
            if self._flows is None or self._flows.idle(0.0):
                return True
        return False

    def _is_empty(self) -> bool:
        return not (self._known or self._more or self._loading)

    def close(self) -> None:
        """Stop handing out."""
        self.deactivate()
        with self._lock:
            timers = [timer for timer in (self._timer, *self._reloads.values()) if timer is not None]
        for timer in timers:
            timer.cancel()

    def _reload_again(self, seconds: float) -> None:
        with self._lock:
            del self._reloads[seconds]
        if not self._active:
            return
        try:
            self.reload()
        except Error as error:
            log.error("the queue cannot be read: %s", error.message)
            self.reload_after(HORIZON_SECONDS / 2)

    def _put(self, call: Call, wait: float) -> None:
        if wait <= 0:
            self._enter(call)
            return
        heapq.heappush(self._later, (time.monotonic() + wait, call.id, call))
        if self._later[0][1] == call.id:
            self._set_timer(wait)

    def _enter(self, call: Call) -> None:
        (self._doubtful_due if call.id in self._doubtful else self._due).append(call)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        with self._lock:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                self._enter(heapq.heappop(self._later)[2])
            if self._later and self._active:
                self._set_timer(self._later[0][0] - now)
        self._ready()


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
    )
