"""Workflows that begin by the clock, at each time once, whoever runs the queue and whatever is deployed meanwhile.

A time is an idempotency key, so that a workflow which began just before a crash does not begin again. Up to which time
all is done stands in a table, so that what was missed while no process ran is known.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadCronError, CroniterBadDateError, croniter

from apiary.engine.jobs import Reply
from apiary.engine.protocol import Engine
from apiary.runtime.call import Bound, Program
from apiary.runtime.errors import DeclarationError, Error, Unavailable
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call, Outcome

log = logging.getLogger("apiary")

CALLER = "schedule"
LOOK_SECONDS = 20.0
"""The clock may be set, so it is looked at again after so long at the latest."""
AGAIN_SECONDS = 1.0
BEGIN_SECONDS = 30.0
MAX_MISSED = 1000
"""Of times that were missed; what is older is left out."""

Begin = Callable[[Call, Reply], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a workflow begins. `wants`: the name of its parameter for the time, if it has one."""

    function: str
    cron: str
    zone: ZoneInfo
    missed: str
    wants: str | None

    def after(self, moment: float) -> Iterator[float]:
        """The times after a moment, seconds since 1970 (UTC)."""
        times = croniter(self.cron, datetime.fromtimestamp(moment, self.zone))
        with suppress(CroniterBadDateError):  # there is no further one
            while True:
                yield times.get_next(datetime).timestamp()

    def due(self, since: float, now: float) -> tuple[list[float], float]:
        """The times to begin at now, where all until `since` is done; and the time until which it is then."""
        found: list[float] = []
        for at in self.after(since):
            if at > now:
                break
            found = [*found[-MAX_MISSED + 1 :], at]
        if not found:
            return [], since
        wanted = {"all": found, "once": found[-1:], "skip": [at for at in found if now - at < LOOK_SECONDS * 2]}
        return wanted[self.missed], found[-1]


def schedule_of(bound: Bound) -> Schedule | None:
    """The schedule that a workflow declares; `DeclarationError` where it cannot be."""
    function, options = bound.function, bound.function.options
    if options.schedule is None:
        return None
    try:
        zone = ZoneInfo(options.zone)
        croniter(options.schedule, datetime.now(zone))
    except (CroniterBadCronError, ZoneInfoNotFoundError, ValueError) as error:
        raise DeclarationError(
            f"{function.name} has no schedule that can be: {error}",
            hint='write it like cron does, schedule="0 9 * * mon", with zone="Europe/Berlin"',
        ) from error
    needed = [name for name, given in function.parameters.items() if given.default is inspect.Parameter.empty]
    wants = next(iter(function.parameters), None)
    if needed and needed != [wants]:
        raise DeclarationError(
            f"{function.name} begins by the clock, so nobody gives it its {needed[-1]}",
            hint="it may have one parameter, which gets the time, and others with defaults",
        )
    return Schedule(function.name, options.schedule, zone, options.missed, wants)


class Schedules:
    """The schedules of one program, in a thread that runs while it is active. `begin` begins a workflow."""

    def __init__(self, engine: Engine, program: Program, begin: Begin) -> None:
        self._engine = engine
        self._program = program
        self._begin = begin
        found = map(schedule_of, program.functions.values())
        self._schedules = [schedule for schedule in found if schedule is not None]
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._stop: threading.Event | None = None

    def activate(self) -> None:
        """Begin workflows from now on."""
        with self._lock:
            if self._schedules and self._stop is None:
                self._stop = threading.Event()
                threading.Thread(target=self._run, args=(self._stop,), name="apiary-schedule", daemon=True).start()

    def deactivate(self) -> None:
        """Begin nothing more."""
        with self._lock:
            if self._stop is not None:
                self._stop.set()
                self._stop = None

    def look(self) -> float | None:
        """Begin what is due, as the thread does by itself; seconds until the next time, if there is one."""
        with self._lock:
            stop = self._stop
        return None if stop is None else self._look_at_all(stop)

    def _look_at_all(self, stop: threading.Event) -> float:
        with self._looking:
            now = time.time()
            return min(self._look_at(schedule, now, stop) for schedule in self._schedules)

    def _look_at(self, schedule: Schedule, now: float, stop: threading.Event) -> float:
        """Begin what is due; where that fails, only this schedule has to wait."""
        try:
            return self._look(schedule, now, stop)
        except Error as error:
            log.warning("the schedule of %s is looked at again, because of: %s", schedule.function, error.message)
            return AGAIN_SECONDS

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            stop.wait(min(max(self._look_at_all(stop), 0.0), LOOK_SECONDS))

    def _look(self, schedule: Schedule, now: float, stop: threading.Event) -> float:
        """Begin what is due; seconds until the next time."""
        since = self._engine.scheduled(schedule.function, None, now)
        times, until = schedule.due(since, now)
        for at in times:
            if stop.is_set():
                return 0.0
            self._begin_at(schedule, at)
        if until > since:
            self._engine.scheduled(schedule.function, until, now)
        return next(schedule.after(max(until, now)), now + LOOK_SECONDS) - time.time()

    def _begin_at(self, schedule: Schedule, at: float) -> None:
        """Begin a workflow for this time, unless that was done; `Unavailable` where that is not known."""
        moment = datetime.fromtimestamp(at, UTC)
        bound = self._program.find(schedule.function)
        given = {schedule.wants: moment} if schedule.wants is not None else {}
        call = Call(
            id=new_id(),
            function=schedule.function,
            input=bound.codec.encode_arguments((), given),
            caller=CALLER,
            roles=frozenset({"admin"}),
            key=f"schedule {schedule.function} {moment.isoformat()}",
        )
        begun: list[Outcome] = []
        done = threading.Event()

        def reply(_: Call, outcome: Outcome) -> None:
            begun.append(outcome)
            done.set()

        self._begin(call, reply)
        if not done.wait(BEGIN_SECONDS) or isinstance(begun[0].cause, Unavailable):
            raise Unavailable(f"{schedule.function} could not begin at {moment.isoformat()}")
