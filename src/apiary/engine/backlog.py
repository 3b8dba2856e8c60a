"""The backlog: the calls of the queue table that this process is to run, a window of them in memory.

Workflows that are in the same table are handed on to `flows.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from apiary.engine.admission import Admission
from apiary.engine.flows import Flows
from apiary.engine.jobs import Reply
from apiary.engine.later import Again, Later
from apiary.engine.lines import Group, Line, unfinished
from apiary.engine.protocol import HORIZON_SECONDS
from apiary.engine.table import Table, as_call, is_tried_again, wait_again, wait_of
from apiary.runtime.errors import Error, Unavailable
from apiary.runtime.queueing import Queue
from apiary.runtime.session import Call, Outcome, Queued

log = logging.getLogger("apiary")

WINDOW = 1000
"""So many calls of a queue are in memory; as many again, where they are the first of their share or priority."""
RELOAD_SECONDS = 1.0


class Backlog:
    """Hands out queued calls when they are due, each once at a time; what does not fit stays in the table.

    Calls that ran when their process died are handed out one by one, so that none is blamed for what another does.
    Inactive until `activate`: of two processes that serve one database during a deploy, one runs the queue.
    """

    def __init__(
        self,
        table: Table,
        ready: Callable[[], None],
        flows: Flows | None = None,
        tell: Callable[[], None] = lambda: None,
        queues: Mapping[str, Queue] = MappingProxyType({}),
    ) -> None:
        self._table = table
        self._ready = ready
        self._flows = flows
        if flows is not None:
            flows.freed = self.refill
            flows.over = self._over
        self._tell = tell
        self._has_queues = bool(queues)
        self._lines = {name: Line(queue) for name, queue in {"": Queue(""), **queues}.items()}
        self._turns = deque(self._lines.values())
        self._lock = threading.Condition()
        self._active = False
        self._more = False
        self._loading = 0
        self._changed: dict[bytes, Line | None] = {}
        self._known: dict[bytes, tuple[Line, Group]] = {}
        self._elsewhere: set[bytes] = set()
        self._doubtful: set[bytes] = set()
        self._doubtful_due: deque[Call] = deque()
        self._on_trial: bytes | None = None
        self._later = Later(self._ring)
        self._again = Again(self._reload_again)
        self._admission = Admission(table, ready)

    def activate(self, except_for: Iterable[bytes] = (), others: Collection[str] | None = ()) -> None:
        """Begin to run the queue with what lies in the table, except for the calls that another process still runs."""
        with self._lock:
            self._active = True
            self._elsewhere = set(except_for)
            for line in self._lines.values():
                line.elsewhere.clear()
        if self._flows is not None:
            self._flows.activate(self._elsewhere, others)
        self.doubt(0.0)

    def deactivate(self) -> list[bytes]:
        """Hand out nothing more; returns the calls that were handed out and still run."""
        running = self._flows.deactivate() if self._flows is not None else []
        with self._lock:
            self._active = False
            self._later.clear()
            self._doubtful_due.clear()
            for line in self._lines.values():
                line.clear()
            handed = [identifier for line in self._lines.values() for identifier in line.handed]
            for identifier in self._known.keys() - handed:
                self._forget(identifier)
            return [*handed, *running]

    def adopt(self) -> bool:
        """Go on with what processes have left that are gone, if this one runs the queue; returns whether it does."""
        adopted = self._flows is not None and self._flows.adopt()
        self.reload()
        return adopted

    def doubt(self, seconds: float) -> None:
        """What was committed may not be known here, and for so long more of it may come: look, now and then again."""
        if self._flows is not None:
            self._flows.doubt(seconds)
        self.reload()
        self.reload_after(seconds)

    def refill(self) -> None:
        """Some have come to their end: is there room for more?"""
        if self._more and self._flows is not None and self._flows.outstanding() < WINDOW // 2:
            self.reload()
        for name, line in self._lines.items():
            if line.more and line.known < WINDOW // 2:
                self.reload(name)

    def reload(self, queue: str | None = None) -> None:
        """Look into the table again, for calls of one `queue` or of all. If that cannot be, try later."""
        with self._lock:
            self._loading += 1
            if self._loading == 1:
                self._changed.clear()
            for line in self._lines.values() if queue is None else (self._lines[queue],):
                line.more = False
            self._more &= queue is not None
        try:
            if self._flows is not None:
                self._flows.dispel()
            if queue is None and self._has_queues:
                self._look(self._table.paused(), self._table.begun())
            found = self._table.load(WINDOW, queue)
        except Unavailable:
            self._more = True
            self.reload_after(RELOAD_SECONDS)
        else:
            more = unfinished(found, WINDOW)
            if not self._add(found, more) and more:  # all of it is known, or runs elsewhere
                self.reload_after(RELOAD_SECONDS)
            self._more |= sum(item.version is not None for item in found) >= WINDOW
            self.reload_after(HORIZON_SECONDS / 2)
        finally:
            with self._lock:
                self._loading -= 1
                self._lock.notify_all()

    def reload_after(self, seconds: float) -> None:
        """Look into the table again after so many seconds."""
        if self._active:
            self._again.after(seconds)

    def look(self) -> None:
        """The clock was set: look at the time of each call anew."""
        with self._lock:
            for call in self._later.clear():
                self._forget(call.id)
        self.reload()

    def add(self, queued: Iterable[Queued]) -> None:
        """Take calls that were committed to the queue."""
        self._add(list(queued), ())

    def take(self, limit: int) -> list[Call]:
        """Up to `limit` calls that may begin."""
        if not self._known:
            return []
        taken = self._take_rated(limit)
        with self._lock:
            while len(taken) < limit and (line := self._next_line()) is not None:
                taken.append(line.take())
            trial = self._trial() if len(taken) < limit else None
        return taken if trial is None else taken + self._take_trial(trial)

    def _take_rated(self, limit: int) -> list[Call]:
        """Calls that begin by the rates of their queues."""
        with self._lock:
            rated = [line for line in self._turns if line.waits_for_rate()]
        taken: list[Call] = []
        for line in rated:
            with self._admission.alone(line) as alone:
                with self._lock:
                    wanted = line.could_begin(limit - len(taken)) if alone else 0
                admitted = self._admission.ask(line, wanted)
                with self._lock:
                    taken += [line.take() for _ in range(line.could_begin(admitted))]
        return taken

    def _take_trial(self, line: Line) -> list[Call]:
        """The next call of which its process may have died, if it is of this line still and may begin by its rate."""
        with self._admission.alone(line) as alone:
            if line.queue.rate is not None and (not alone or not self._admission.ask(line, 1)):
                return []
            with self._lock:
                if self._trial() is not line:
                    return []
                call = self._doubtful_due.popleft()
                self._on_trial = call.id
                line.handed.add(call.id)
                return [call]

    def _could_take(self, lines: Iterable[Line]) -> bool:
        """Whether a call of these queues may begin, or one that is tried alone."""
        return self._trial() is not None or any(line.could_begin(1) for line in lines)

    def _trial(self) -> Line | None:
        """The queue of the next call of which its process may have died, if that may run now."""
        if not self._doubtful_due or self._on_trial is not None:
            return None
        line, _ = self._known[self._doubtful_due[0].id]
        return line if line.has_room() else None

    def done(self, call: Call, outcome: Outcome) -> None:
        """A call came to an end, or has begun, if it is a workflow.

        One that was stopped, or could not commit, is tried again after a while.
        """
        again, pause = is_tried_again(call, outcome), outcome.pause
        with self._lock:
            if call.id == self._on_trial:
                self._on_trial = None
            line, _ = self._known.get(call.id, (self._lines[""], None))
            line.handed.discard(call.id)
            if pause is not None and pause.waiting and self._active:
                self._put(call, pause.due / 1e6 - time.time())
            elif again and self._active:
                self._put(replace(call, attempt=call.attempt + 1), wait_again(call, outcome))
            else:
                began = pause is not None and not pause.waiting
                if began or self._active:
                    self._note(call.id, line if began else None)
                if began:
                    line.begun.add(call.id)
                self._forget(call.id)
            self._lock.notify_all()
            ready = self._could_take((line,))
        self.refill()
        if ready:
            self._ready()

    def changing(self, reply: Reply) -> Reply:
        """Answer with `reply`, once whoever runs the queue knows what has changed about it."""

        def answer(call: Call, outcome: Outcome) -> None:
            if self._active:
                self.reload()
            else:
                self._tell()
            reply(call, outcome)

        return answer

    def running(self) -> dict[str, int]:
        """How many calls of each queue run, workflows between their beginning and their end among them."""
        with self._lock:
            return {name: line.occupied() for name, line in self._lines.items()}

    def wait_empty(self, timeout: float, *, later: bool = True) -> bool:
        """Wait until no call is left in the queue, in memory or in the table, and no workflow runs or is due.

        Not `later`: but for those whose time comes later.
        """
        end = time.monotonic() + timeout
        while self._flows is None or self._flows.idle(end - time.monotonic()):
            with self._lock:
                if not self._lock.wait_for(partial(self._is_empty, later), end - time.monotonic()):
                    return False
            if self._flows is None or self._flows.idle(0.0):
                return True
        return False

    def _is_empty(self, later: bool) -> bool:
        left = len(self._known) - (0 if later else len(self._later))
        return not (left or self._more or self._loading or any(line.more for line in self._lines.values()))

    def close(self) -> None:
        """Stop handing out."""
        self.deactivate()
        with self._lock:
            self._later.close()
        self._again.close()

    def _look(self, paused: Collection[str], begun: Collection[tuple[str, bytes]]) -> None:
        """What holds calls back, as the table has it."""
        with self._lock:
            for name, line in self._lines.items():
                line.paused = name in paused
                line.begun = {workflow for queue, workflow in begun if queue == name} - self._changed.keys()
            for identifier, began in self._changed.items():
                if began is not None:
                    began.begun.add(identifier)

    def _add(self, found: Sequence[Queued], unfinished: Collection[str]) -> int:
        """Take calls; the table has more of the `unfinished` queues. Returns how many calls are new."""
        with self._lock:
            if not self._active:
                if found:
                    self._tell()
                return 0
            for name in unfinished:
                self._line(name).more = True
            workflows = [item for item in found if item.version is not None]
            new = sum(self._take_in(item) for item in found if item.version is None)
            ready = self._could_take(self._lines.values())
        if workflows and self._flows is not None:
            self._flows.add(workflows)
            self._table.woken(workflows)
        if ready:
            self._ready()
        return new

    def _take_in(self, item: Queued) -> bool:
        """Hold a call in memory, if there is room and it is due soon enough. Returns whether it was not known."""
        if item.queue and not self._table.plain:
            self._tell()
            return False
        line, group = self._line(item.queue), (item.priority, item.share)
        if item.id in self._elsewhere:
            line.elsewhere.add(item.id)
        if item.id in self._elsewhere or item.id in self._known or item.id in self._changed:
            return False
        wait = wait_of(item)
        if line.known >= (WINDOW if line.has_group(group) else 2 * WINDOW):
            line.more = True
        elif wait <= HORIZON_SECONDS:
            line.known += 1
            self._known[item.id] = (line, group)
            if item.deaths:
                self._doubtful.add(item.id)
            self._put(as_call(item), wait)
        return True

    def _line(self, name: str) -> Line:
        """The queue of this name. One that a version does not have any more has no limits."""
        if name not in self._lines:
            self._lines[name] = Line(Queue(name))
            self._turns.append(self._lines[name])
        return self._lines[name]

    def _next_line(self) -> Line | None:
        """Queues take turns."""
        for _ in range(len(self._turns)):
            line = self._turns[0]
            self._turns.rotate(-1)
            if line.can_begin():
                return line
        return None

    def _forget(self, identifier: bytes) -> None:
        if identifier in self._known:
            self._known.pop(identifier)[0].known -= 1
        self._doubtful.discard(identifier)
        self._lock.notify_all()

    def _over(self, workflow: bytes) -> None:
        """A workflow has ended that ran here."""
        with self._lock:
            self._note(workflow, None)
            freed = [line for line in self._lines.values() if workflow in line.begun]
            for line in freed:
                line.begun.discard(workflow)
            ready = self._could_take(freed)
        if self._has_queues and not (self._active and self._table.plain):
            self._tell()
        elif ready:
            self._ready()

    def _note(self, call: bytes, began: Line | None) -> None:
        """A call ended, or began as a workflow, while the table is looked at, which may be known there or not."""
        if self._loading:
            self._changed[call] = began

    def _reload_again(self) -> None:
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
        else:
            self._later.add(call, wait)

    def _enter(self, call: Call) -> None:
        line, group = self._known[call.id]
        if call.id in self._doubtful:
            self._doubtful_due.append(call)
        else:
            line.put(call, group)

    def _ring(self) -> None:
        with self._lock:
            for call in self._later.take():
                self._enter(call)
        self._ready()
