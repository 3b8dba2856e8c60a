"""A program in a backend, loaded from its archives: it runs the batches that a lane sends, and calls from SQL."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from typing import Any

import plpy  # type: ignore[import-not-found]  # only a backend has it

from apiary.bundle import load_app
from apiary.codec import compile_program, convert_rows
from apiary.engine.batch import Batch
from apiary.engine.postgres.errors import REFUSED, Conflicted
from apiary.engine.postgres.inside.deadline import BackendGuard, alarm
from apiary.engine.postgres.inside.functions import SqlFunctions
from apiary.engine.postgres.inside.memory import Memory
from apiary.engine.postgres.inside.session import CONFINED, InsideSession, Plan
from apiary.engine.postgres.wire import pack_done, unpack_batch
from apiary.runtime.errors import Error, Unseen

GC_ALLOCATIONS = 20_000


class Loaded:
    """The functions of an app, ready to be called. `failures` takes the failures of calls from SQL."""

    def __init__(self, program: Mapping[str, Any], failures: list[str]) -> None:
        self._log: str = program["log"]
        self._compiled = compile_program(load_app(program["module"]), program["version"])
        self._plans: dict[str, Plan] = {}
        self._guard = BackendGuard(ends_backend=True)
        self._memory: Memory | None = None
        self._batches: dict[tuple[bool, bool], tuple[InsideSession, Batch]] = {}
        self._functions = SqlFunctions(self._compiled, self._log, self._plans, failures)
        self.busy = alarm.busy
        self.resume = alarm.resume

    def run(self, message: bytes) -> bytes:
        """Run a batch."""
        if self._memory is None:
            self._memory = Memory()
            self._memory.limit()
        header, calls, records = unpack_batch(message)
        session, batch = self._batch(header["recording"], header["read_only"])
        batch.most_steps = header["most_steps"]
        session.begin()
        try:
            done = batch.run(calls, records)
            if len(calls) > 1:
                session.check_unchanged(header["state"])
        except Error as error:
            if isinstance(error, Conflicted | Unseen):
                state, detail = getattr(error, "state", Conflicted.state), {"during": error.during}
            else:
                state, detail = REFUSED, error.problem()
            plpy.error(error.message, sqlstate=state, detail=json.dumps(detail, default=str))
            raise
        kept, session.records = session.records, []
        return pack_done(done, records, kept, self._memory.own_bytes())

    def confined(self) -> None:
        """Run the body of a query that is ready for this."""
        if CONFINED:
            CONFINED.pop()()

    def function(self, name: str, recorded: bool) -> Callable[[str, str, str], str | None]:
        """What a call of this function from SQL runs."""
        return self._functions.function(name, recorded)

    def _batch(self, recording: bool, read_only: bool) -> tuple[InsideSession, Batch]:
        kind = (recording, read_only)
        if kind not in self._batches:
            session = InsideSession(self._log, convert_rows, self._plans, recording=recording, read_only=read_only)
            self._batches[kind] = (session, Batch(session, self._compiled, self._guard))
        return self._batches[kind]


def load(program: Mapping[str, Any], failures: list[str]) -> Loaded:
    """Import the app of a program, a row of `apiary.program`."""
    loaded = Loaded(program, failures)
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # what is loaded now stays, so that the collector of cycles need not look at it again and again
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)
    return loaded
