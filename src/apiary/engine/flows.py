"""The workflows of a process: when each goes on, and the actions that run for it.

A workflow goes on when it is due, when an action that it started has an outcome, or when something that was committed
here woke it. What is due only later stays in the table.
"""

from __future__ import annotations

import heapq
import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from itertools import count

from apiary.engine.jobs import Job, Reply, refuse
from apiary.engine.protocol import HORIZON_SECONDS, Engine
from apiary.engine.waiters import Waiters
from apiary.runtime.advance import blocked
from apiary.runtime.call import Bound, Program, problem_of
from apiary.runtime.errors import Unavailable
from apiary.runtime.ids import id_bytes, id_text
from apiary.runtime.session import Call, Outcome, Pause, Queued, Record
from apiary.runtime.transaction import now_microseconds

log = logging.getLogger("apiary")

AGAIN_SECONDS = (0.05, 5.0)
"""Until something is tried again that the database did not let be: at first, and at most."""

Act = Callable[[Call, Bound, Reply], None]


class Flows:
    """Lets workflows go on, by `submit`, which takes a job to its lane, and `act`, which has an action run.

    `ended` is told of those that end when their caller does not wait (any more), and of those that are blocked; `tell`
    is called when another process should look into the queue. Set later: `freed`, for when there is room for more, and
    `over`, which is told of each that ends.
    Inactive until `activate`: of two processes that serve one version of an app, one looks after what is due.
    """

    def __init__(
        self,
        engine: Engine,
        program: Program,
        submit: Callable[[Job], None],
        act: Act,
        ended: Reply,
        tell: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._program = program
        self._submit = submit
        self._act = act
        self._tell_ended = ended
        self.freed: Callable[[], None] = lambda: None
        self.over: Callable[[bytes], None] = lambda workflow: None
        self._tell_others = tell
        self._lock = threading.Condition()  # reentrant: what is refused is answered at once
        self._active = False
        self._elsewhere: frozenset[bytes] = frozenset()
        self._others: Collection[str] | None = None
        self._closed = False
        self._running: Counter[bytes] = Counter()
        self._again: set[bytes] = set()
        self._doubts: list[float] = []
        self._due: dict[bytes, int] = {}
        self._heap: list[tuple[int, int, Call]] = []  # by their time, then as they came: a workflow may be in it twice
        self._numbers = count()
        self._timers: set[threading.Timer] = set()
        self._rings_at: int | None = None
        self._acting: dict[bytes, Call] = {}
        self._waiters = Waiters(engine.find_all)
        self._release: Callable[[Call], None] | None = None

    def begin(self, call: Call, reply: Reply, seconds: float | None) -> None:
        """Begin a workflow; `reply` gets its outcome or, once it has begun, after so many seconds, a pause."""
        if self._closed:
            refuse(call, reply)
            return
        self._waiters.add(call.id, call, reply, seconds)
        self._run(replace(call, detached=True) if seconds == 0 else call, self._came)

    def enter(self, call: Call, told: Reply) -> None:
        """Begin a workflow whose turn in its queue has come; `told` hears whether it has."""

        def came(call: Call, outcome: Outcome) -> None:
            told(call, outcome)
            waits = outcome.pause is not None and outcome.pause.waiting
            if not waits and not isinstance(outcome.cause, Unavailable):
                self._came(call, outcome)

        self._run(call, came)

    def wait(self, call: Call, reply: Reply, seconds: float | None) -> None:
        """`reply` gets the outcome of a workflow that `call` names or, after so many seconds, a pause."""
        self._waiters.add(id_bytes(json.loads(call.input)["workflow"]), call, reply, seconds, begun=True)

    def activate(self, except_for: Iterable[bytes], others: Collection[str] | None) -> None:
        """Look after what is due from now on, but for the workflows `except_for`, which another process still runs.

        `others`: as `Engine.adopt` has it.
        """
        with self._lock:
            self._active = True
            self._elsewhere, self._others = frozenset(except_for), others

    def doubt(self, seconds: float) -> None:
        """There may be workflows, now or within so many seconds, that wait for actions which nobody runs."""
        now = time.monotonic()
        with self._lock:
            self._doubts += [now, now + seconds]

    def dispel(self) -> None:
        """Go on with those workflows, where it is in doubt whether there are any."""
        with self._lock:
            due = [at for at in self._doubts if at <= time.monotonic()]
        if due:
            self.adopt()
            with self._lock:
                self._doubts = [at for at in self._doubts if at not in due]

    def adopt(self) -> bool:
        """Go on with workflows for which a process was running actions that is gone; `False` where this is inactive."""
        with self._lock:
            own = {*self._running, *(workflow.id for workflow in self._acting.values())}
            active = self._active
        if active:
            self._engine.adopt(self._program.version, own | self._elsewhere, self._others)
        return active

    def deactivate(self) -> list[bytes]:
        """Begin nothing more; returns the workflows that run here, or for which actions do."""
        with self._lock:
            self._active = False
            self._heap.clear()
            self._due.clear()
            self._again.clear()
            self._lock.notify_all()
            return list({*self._running, *(workflow.id for workflow in self._acting.values())})

    def add(self, queued: Iterable[Queued]) -> None:
        """Take workflows that were committed to the queue, or woken."""
        with self._lock:
            for item in queued:
                if item.version == self._program.version:
                    self._schedule(_go_on(item.id, item.function, item.epoch), item.due)

    def outstanding(self) -> int:
        """How many workflows run here, are due soon, or have actions running."""
        return len(self._running) + len(self._due) + len(self._acting)

    def release(self, give_back: Callable[[Call], None]) -> None:
        """Give back, now or as soon as that can be, the calls that wait for the end of a workflow."""
        with self._lock:
            self._release = give_back
            free = [workflow for workflow in self._waiters.workflows() if workflow not in self._running]
        for workflow in free:
            self._waiters.give_back(workflow, give_back)

    def idle(self, timeout: float) -> bool:
        """Wait until no workflow runs, is due, or has an action running; false where that takes longer."""
        with self._lock:
            return self._lock.wait_for(self._is_idle, timeout)

    def close(self) -> None:
        """Begin nothing more. Those who wait are told to ask again."""
        self.deactivate()
        with self._lock:
            self._closed = True
            for timer in self._timers:
                timer.cancel()
        self._waiters.close(
            Unavailable("the app is closing; the workflow goes on later", hint="ask again with the same key")
        )

    def returned(self, call: Call) -> None:
        """A call that was to begin a workflow is run by another process."""
        self._waiters.forget(call.id)
        with self._lock:
            self._ran(call)

    def acted(self, record: Record, written: Callable[[bool], None]) -> bool:
        """An action has run for a workflow, which goes on with its record. False where nobody here waits for it."""
        with self._lock:
            workflow = self._acting.get(record.id)

        def came(call: Call, outcome: Outcome) -> None:
            if isinstance(outcome.cause, Unavailable):
                self._later(call.attempt, lambda: self._run(replace(call, attempt=call.attempt + 1), came))
                return
            if self._runs_anew(call, outcome, came):
                return
            with self._lock:
                self._acting.pop(record.id, None)
            written(True)
            self._came(call, outcome)

        if workflow is not None:
            self._run(replace(workflow, arrived=(record,)), came)
        return workflow is not None

    def recorded(self, record: Record, written: Callable[[bool], None]) -> Callable[[bool], None]:
        """What to tell when the record of an action was written without its workflow, which was woken then."""

        def told(kept: bool) -> None:
            with self._lock:
                self._acting.pop(record.id, None)
            written(kept)
            with self._lock:
                self._lock.notify_all()

        return told

    def _run(self, call: Call, reply: Reply) -> None:
        """Have a lane run a workflow; `reply` hears what became of it."""

        def ran(call: Call, outcome: Outcome) -> None:
            with self._lock:
                self._ran(call)
            reply(call, outcome)
            with self._lock:
                self._lock.notify_all()
            self.freed()

        with self._lock:
            self._running[call.id] += 1
        self._submit(Job(call, self._program.functions.get(call.function), ran))

    def _ran(self, call: Call) -> None:
        self._running[call.id] -= 1
        if not self._running[call.id]:
            del self._running[call.id]

    def _came(self, call: Call, outcome: Outcome) -> None:
        """A workflow has ended, or come as far as it could."""
        pause = outcome.pause
        if self._runs_anew(call, outcome, self._came):
            return
        if pause is None and call.queued and isinstance(outcome.cause, Unavailable):
            again = replace(call, attempt=call.attempt + 1)
            self._later(call.attempt, lambda: self._run(again, self._came) if self._active else None)
        elif pause is None:
            self._again.discard(call.id)
            self.over(call.id)
            if not self._waiters.tell(call.id, outcome) and outcome.replayed is None:
                self._tell_ended(call, outcome)
        elif pause.of is not None:
            self._waiters.join(call.id, pause.of)
            self._missed(_go_on(call.id, call.function, pause.epoch))
        else:
            if outcome.error is not None:
                log.error("%s %s is blocked: %s", call.function, id_text(call.id), outcome.error["detail"])
                error = blocked(call.function, call.id)
                self._waiters.tell(call.id, Outcome(error=problem_of(call, error), cause=error))
                self._tell_ended(call, outcome)
            self._waiters.begun(call.id)
            self._pause(replace(_go_on(call.id, call.function, pause.epoch), careful=pause.careful), pause)

    def _pause(self, workflow: Call, pause: Pause) -> None:
        with self._lock:
            fresh = [action for action in pause.actions if action.id not in self._acting]
            self._acting.update((action.id, workflow) for action in fresh)
            woken = workflow.id in self._again
            self._again.discard(workflow.id)
            self._schedule(workflow, now_microseconds() if woken else pause.due)
        for action in fresh:
            self._act(action, self._program.find(action.function), self._action_ended)
        if self._release is not None:
            self._waiters.give_back(workflow.id, self._release)
        elif not self._active:
            self._tell_others()
            self._waiters.look(workflow.id)

    def _runs_anew(self, call: Call, outcome: Outcome, reply: Reply) -> bool:
        """Run a workflow under its new epoch, where it was adopted here in the moment in which it began to run."""
        pause = outcome.pause
        if not self._active or not call.queued or pause is None or pause.epoch == call.epoch:
            return False
        self._run(replace(call, epoch=pause.epoch), reply)
        return True

    def _missed(self, workflow: Call) -> None:
        """A call that repeated the id of a workflow may have been taken for a run of it by what woke that meanwhile."""
        with self._lock:
            if workflow.id in self._again:
                self._again.discard(workflow.id)
                self._schedule(workflow, now_microseconds())

    def _action_ended(self, action: Call, outcome: Outcome) -> None:
        """The answer to an action, whose record was written. One that could not be run is begun again later."""
        with self._lock:
            waited_for = action.id in self._acting
        if waited_for and isinstance(outcome.cause, Unavailable):
            again = replace(action, attempt=action.attempt + 1)
            bound = self._program.find(action.function)
            self._later(action.attempt, lambda: self._act(again, bound, self._action_ended))

    def _schedule(self, workflow: Call, due: int) -> None:
        now = now_microseconds()
        if not self._active or due > now + HORIZON_SECONDS * 1e6:
            return
        if workflow.id in self._running and due <= now:
            self._again.add(workflow.id)
        elif due <= now:
            self._due.pop(workflow.id, None)
            self._run(workflow, self._came)
        elif self._due.get(workflow.id, due + 1) > due:
            self._due[workflow.id] = due
            heapq.heappush(self._heap, (due, next(self._numbers), workflow))
            self._set_timer(now)

    def _set_timer(self, now: int) -> None:
        first = self._heap[0][0]
        if self._rings_at is None or first < self._rings_at:
            self._rings_at = first
            self._after((first - now) / 1e6, self.ring)

    def ring(self) -> None:
        """Run what is due by now."""
        with self._lock:
            now = now_microseconds()
            self._rings_at = None
            while self._heap and self._heap[0][0] <= now:
                due, _, workflow = heapq.heappop(self._heap)
                if self._due.get(workflow.id) == due:
                    self._schedule(workflow, now)
            if self._heap:
                self._set_timer(now)
            self._lock.notify_all()

    def _is_idle(self) -> bool:
        due = self._heap and self._heap[0][0] <= now_microseconds()
        return not (self._running or self._acting or due)

    def _later(self, failed: int, again: Callable[[], object]) -> None:
        """Try something again, the later the more often that was."""
        least, most = AGAIN_SECONDS
        self._after(min(most, least * 2 ** min(failed, 20)) * random.uniform(0.5, 1.0), again)

    def _after(self, seconds: float, work: Callable[[], object]) -> None:
        def ring() -> None:
            self._timers.discard(timer)
            if not self._closed:
                work()

        timer = threading.Timer(max(seconds, 0.0), ring)
        timer.daemon = True
        self._timers.add(timer)
        if not self._closed:
            timer.start()


def _go_on(workflow: bytes, function: str, epoch: int) -> Call:
    return Call(workflow, function, b"{}", roles=frozenset({"admin"}), queued=True, epoch=epoch)
