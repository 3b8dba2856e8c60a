"""The dispatcher: takes calls from anywhere, gives each to a lane that may run it, answers when it is durable.

As many threads write as the engine has lanes for, a few read, a pool runs actions. Calls that wait at the same moment
travel together, so that they share a commit or a snapshot. The queue of calls that transactions left for later is run
here too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from apiary.engine.actions import ActionRunner
from apiary.engine.backlog import Backlog
from apiary.engine.deaths import Death, Deaths
from apiary.engine.digesting import Digesting
from apiary.engine.durability import Durability, uncertain
from apiary.engine.flows import Flows
from apiary.engine.handing import Handing
from apiary.engine.hold import Hold, May, begun
from apiary.engine.jobs import Batches, Job, Jobs, Recording, Reply, refuse_rest, soon
from apiary.engine.protocol import Committed, Engine, Lane
from apiary.engine.records import Dropped, Records
from apiary.engine.routes import Routes
from apiary.engine.schedules import Schedules
from apiary.engine.table import Table
from apiary.engine.watchdog import ThreadGuard, Watchdog
from apiary.runtime.call import Program, problem_of
from apiary.runtime.control import QUEUE_OPERATIONS, RESULT
from apiary.runtime.declaration import Kind
from apiary.runtime.errors import Overloaded, Unavailable
from apiary.runtime.session import Call, Outcome, Record

MAX_QUEUED_IN_BATCH = 16
RECORDS_WAIT_SECONDS = 0.01
TELL_SECONDS = 0.01
LATE_SECONDS = 15.0
"""So long after the longest timeout of its functions, nothing that a lost process or connection began still runs."""


class Dispatcher:
    """Runs the calls of one program on one engine.

    `flush` is called after each batch of replies, from the thread that made them; `observe` for every call that the
    queue ran; `broken` when one of the threads ends by a fault of its own; `wanted` when workflows of others than its
    version are due; `left` when the queue has changed for whoever runs it, which is not this process.
    """

    def __init__(
        self,
        engine: Engine,
        program: Program,
        *,
        flush: Callable[[], None] = lambda: None,
        observe: Reply = lambda call, outcome: None,
        broken: Callable[[], None] = lambda: None,
        wanted: Callable[[Sequence[str]], None] = lambda versions: None,
        left: Callable[[], None] = lambda: None,
        watchdog: Watchdog | None = None,
        strict: bool = False,
        dropped: Dropped = lambda records, effects: None,
    ) -> None:
        self.engine = engine
        self.program = program
        self._flush = flush
        self._observe = observe
        self._broken = broken
        self._strict = strict
        self._table = Table(engine, program.version, wanted)
        self._watchdog = watchdog or Watchdog()
        self._to_write = Routes(engine.writers, engine.collides)
        self._to_read: SimpleQueue[Job | None] = SimpleQueue()
        self._records = Records(dropped)
        self._recordings: deque[Recording] = deque()
        self._nudged = False
        self._hold = Hold()
        self._give_back: Callable[[Call], None] = lambda call: None
        self._excused_until = 0.0
        self._closing = False
        self._readers_ended = False
        self._closed = False
        timeouts = (bound.function.options.timeout for bound in program.functions.values())
        self._late_seconds = max(timeouts, default=0.0) + LATE_SECONDS
        self._actions = ActionRunner(engine, program, self._record, self._watchdog.noting)
        telling = soon(TELL_SECONDS, engine.tell, left)
        self.flows = Flows(engine, program, self._to_write.put, self._actions.submit, self._observe, telling)
        self.backlog = Backlog(self._table, self._to_write.nudge, self.flows, telling, program.queues)
        self.schedules = Schedules(engine, program, partial(self.submit, wait=0.0))
        self._deaths = Deaths(engine, program, self._record, self._observe)
        self._handing = Handing(
            program, self.backlog, self.flows, self._actions.submit, self._record, observe, self._to_write.nudge
        )
        self._digesting = Digesting(self._sort)
        self._durability = Durability(engine.sync, broken)
        self._opening = threading.Lock()  # one after another: the first is ready sooner than all together would be
        self._writers = [self._start(partial(self._write, number), engine.writer) for number in range(engine.writers)]
        self._readers = [self._start(self._read, engine.reader) for _ in range(engine.readers)]
        engine.listen(self.backlog.reload)

    def submit(self, call: Call, reply: Reply, *, wait: float | None = None) -> None:
        """Run a call. `reply` gets its outcome, from another thread, once that is durable; `Job` has `wait`."""
        self._digesting.submit(Job(call, self.program.functions.get(call.function), reply, wait))

    def _sort(self, job: Job) -> None:
        """Give a call to a thread that may run it."""
        call, bound, reply = job.call, job.bound, job.reply
        kind = bound.function.kind if bound else None
        if kind is Kind.ACTION and self._hold.may is not May.ALL:
            self._return(call, reply)
        elif bound is not None and kind is Kind.ACTION:
            self._actions.submit(call, bound, self._flushed(reply))
        elif kind is Kind.WORKFLOW:
            self.flows.begin(call, self._flushed(reply), job.wait)
        elif call.function == RESULT:
            self.flows.wait(call, self._flushed(reply), job.wait)
        elif call.function in QUEUE_OPERATIONS:
            self._to_write.put(replace(job, reply=self.backlog.changing(reply)))
        elif kind is Kind.QUERY and call.key is None and not self._strict:
            self._to_read.put(job)
        else:
            self._to_write.put(job)
        if self._closed:
            self._refuse_rest()

    def run_queue(
        self,
        except_for: Collection[bytes] = (),
        deaths: Iterable[Death] = (),
        others: Collection[str] | None = (),
    ) -> None:
        """Begin to run the queue, except for what another process still runs. `deaths`: what was lost with the last.

        `others`: the versions whose workflows other processes look after; `None`: only those of this version are run.
        """
        self._deaths.count(list(deaths))
        self._table.plain = others is not None
        self.backlog.activate(except_for, others)
        self.flows.doubt(self._late_seconds)
        self.backlog.reload_after(self._late_seconds)
        if others is not None:
            self.schedules.activate()

    def leave_queue(self) -> list[bytes]:
        """Run nothing more of the queue; returns what of it still runs."""
        self.schedules.deactivate()
        return self.backlog.deactivate()

    def hold(self, give_back: Callable[[Call], None]) -> None:
        """Let the batches that run end, and run nothing more but queries; returns when nothing is written any more.

        The calls that wait, and those that come, are handed to `give_back`, from another thread: they have not run.
        The queue is left. Records of what has run elsewhere (actions, queries) wait.
        """
        self.leave_queue()
        self._give_back = give_back
        self._hold.change(May.NOTHING)

    def resume(self) -> None:
        """End a hold. The queue is not run before it is activated again."""
        self._hold.change(May.ALL)
        self._to_write.nudge()

    def retire(self) -> None:
        """End a hold for records only: calls are given back for good, because another process runs them now."""
        self._hold.change(May.RECORDS)
        self._to_write.nudge()

    def excuse(self, seconds: float) -> None:
        """Refuse nobody for having waited, for so long: calls come in a crowd that had to wait elsewhere."""
        self._excused_until = time.monotonic() + seconds

    def close(self) -> None:
        """Finish what was submitted, then end the threads. What is submitted later is refused."""
        if self._hold.may is May.NOTHING:
            self.retire()
        self._digesting.close()
        self.schedules.deactivate()
        self.backlog.close()
        self._actions.close()
        self._closing = True
        self._to_read.put(None)
        for thread in self._readers:
            thread.join()
        self._readers_ended = True
        self._to_write.nudge()
        for thread in self._writers:
            thread.join()
        self.flows.close()
        self._durability.close()
        self._watchdog.close()
        self._closed = True
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        for queue in (self._to_read, *self._to_write.queues):
            refuse_rest(queue)
        self._flush()

    def _start(
        self, loop: Callable[[Lane], None], open_lane: Callable[[Program, ThreadGuard], Lane]
    ) -> threading.Thread:
        guard = self._watchdog.guard()
        lane = open_lane(self.program, guard)
        guard.interrupt = lane.interrupt
        name = f"apiary-{open_lane.__name__}"
        thread = threading.Thread(target=self._guarded, args=(loop, lane), name=name, daemon=True)
        thread.start()
        return thread

    def _guarded(self, loop: Callable[[Lane], None], lane: Lane) -> None:
        """Run the loop of a thread. A fault of the loop itself would leave callers waiting for ever."""
        try:
            with self._opening:
                if not self._closing:
                    lane.open()
            loop(lane)
        except BaseException:
            self._broken()
            raise

    def _flushed(self, reply: Reply) -> Reply:
        def answer(call: Call, outcome: Outcome) -> None:
            reply(call, outcome)
            self._flush()

        return answer

    def _write(self, number: int, lane: Lane) -> None:
        """Run what comes to one of the lanes that write. The first also writes the records of what ran elsewhere."""
        queue = self._to_write.queues[number]
        batches = Batches(queue, self.engine.max_batch)
        first = number == 0
        busy = self._hold.lane()
        while True:
            soon = first and self._records and self._hold.may is not May.NOTHING
            jobs = batches.next(0.0 if self._readers_ended else RECORDS_WAIT_SECONDS if soon else None)
            self._to_write.running[number] = len(jobs)
            with busy:
                idle = not self._write_batch(queue, lane, batches, jobs, self._hold.may)
            self._to_write.running[number] = 0
            if idle and self._readers_ended and queue.empty():
                lane.close()
                return

    def _write_batch(self, queue: Jobs, lane: Lane, batches: Batches, jobs: list[Job], may: May) -> bool:
        """Write what may be written, with these jobs; returns whether there was anything to do."""
        returned, jobs = ([], jobs) if may is May.ALL else (jobs, [])
        for job in returned:
            self._return(job.call, job.reply)
        if may is May.NOTHING:
            return True
        if may is May.ALL:
            jobs += self._handing.jobs(min(MAX_QUEUED_IN_BATCH, self.engine.max_batch - len(jobs)))
            jobs = self._to_write.here(queue, jobs)
        records: list[Record] = []
        recordings: list[Recording] = []
        if queue is self._to_write.queues[0]:
            self._nudged = False
            records += self._records.take()
            recordings += [self._recordings.popleft() for _ in range(len(self._recordings))]
        if jobs or records or recordings:
            self._commit(queue, lane, batches, jobs, recordings, records)
        return bool(returned or jobs or records or recordings)

    def _commit(
        self,
        queue: Jobs,
        lane: Lane,
        batches: Batches,
        jobs: list[Job],
        recordings: Sequence[Recording],
        records: list[Record],
    ) -> None:
        records += [recording.record for recording in recordings]
        more = partial(self._more, queue, batches)
        jobs = begun(lane, jobs, more, self._fresh, self._watchdog, records=bool(records))
        if not (jobs or records):
            return
        done = lane.run([job.call for job in jobs], records)
        batches.note(jobs, done.outcomes)
        self._settle(lane, jobs, done, recordings, here=queue.empty())
        self._keep(lane.take_records())

    def _more(self, queue: Jobs, batches: Batches, jobs: int) -> list[Job]:
        """What a lane may write in the same batch with so many jobs, of what has come since it took them."""
        return self._to_write.here(queue, batches.more(jobs)) if self._hold.may is May.ALL else []

    def _settle(
        self, lane: Lane, jobs: list[Job], done: Committed, recordings: Sequence[Recording], *, here: bool
    ) -> None:
        """Answer at once what is durable already, and the rest when it is."""
        if done.durable:
            self._answer(lane, jobs, done, recordings, True)
        else:
            self._durability.settle(partial(self._answer, lane, jobs, done, recordings), here=here)

    def _answer(
        self, lane: Lane, jobs: list[Job], done: Committed, recordings: Sequence[Recording], durable: bool
    ) -> None:
        """Tell what a batch came to, now that it is durable; or that this is not certain."""
        lost = set(map(id, done.lost))
        pairs = list(zip(jobs, done.outcomes, strict=True))
        if durable:
            self.backlog.add(done.queued)
        for job, outcome in pairs:
            job.reply(job.call, outcome if durable else uncertain(job.call))
        for recording in recordings:
            recording.written(durable and id(recording.record) not in lost)
        if done.doubt or any(outcome.replayed and job.call.attempt > 1 for job, outcome in pairs):
            self.backlog.doubt(self._late_seconds)
        self._flush()
        if durable:
            lane.confirm(done)

    def _read(self, lane: Lane) -> None:
        batches = Batches(self._to_read, self.engine.max_batch)
        while True:
            jobs = self._fresh(batches.next(None))
            if self._closing:
                self._to_read.put(None)
            if not jobs:
                if self._closing:
                    lane.close()
                    return
                continue
            done = lane.run([job.call for job in jobs])
            batches.note(jobs, done.outcomes)
            self._settle(lane, jobs, done, (), here=self._to_read.empty())
            self._keep(lane.take_records())

    def _keep(self, records: list[Record]) -> None:
        """Hand records of queries to the writer, which writes them with its next commit, or after a short wait."""
        if records:
            self._records.put(records)
            self._nudge_once()

    def _record(self, record: Record, written: Callable[[bool], None]) -> None:
        """Have the record of an action written; `written` is told whether it was."""
        if record.step is not None and self._hold.may is May.ALL and self.flows.acted(record, written):
            return
        self._recordings.append(Recording(record, self.flows.recorded(record, written)))
        self._nudge_once()

    def _nudge_once(self) -> None:
        if not self._nudged:
            self._nudged = True
            self._to_write.queues[0].put(None)

    def _return(self, call: Call, reply: Reply) -> None:
        """A call may not run now: the server knows who may. A workflow that goes on is in the table."""
        if call.queued:
            error = Unavailable("another process runs the queue")
            reply(call, Outcome(error=problem_of(call, error), cause=error))
        else:
            bound = self.program.functions.get(call.function)
            if bound is not None and bound.function.kind is Kind.WORKFLOW:
                self.flows.returned(call)
            self._give_back(call)
            self._flush()

    def _fresh(self, jobs: list[Job], why: str = "") -> list[Job]:
        """Without those that waited longer than they may run: they are refused, and may be sent again."""
        now = time.monotonic()
        late = [job for job in jobs if job.is_late(now, self._excused_until)]
        for job in late:
            waited = f"{job.call.function} waited {now - job.arrived:.1f} s{why}"
            error = Overloaded(f"{waited} and was not run; send it again")
            job.reply(job.call, Outcome(error=problem_of(job.call, error), cause=error))
        if late:
            self._flush()
        return [job for job in jobs if job not in late] if late else jobs
