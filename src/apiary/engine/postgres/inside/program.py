"""The entry of a backend: a program loaded from its archives, and the batches that a lane sends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import plpy  # type: ignore[import-not-found]  # only a backend has it

from apiary.bundle import load_app
from apiary.codec import compile_program, convert_rows
from apiary.engine.batch import Batch, Unseen
from apiary.engine.postgres.errors import REFUSED, Conflicted
from apiary.engine.postgres.inside.deadline import BackendGuard
from apiary.engine.postgres.inside.memory import Memory
from apiary.engine.postgres.inside.session import InsideSession
from apiary.engine.postgres.wire import pack_done, unpack_batch
from apiary.runtime.errors import Error


def load(program: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    """Import the app of a program (a row of `apiary.program`); what is returned runs a batch of its calls."""
    compiled = compile_program(load_app(program["module"]), program["version"])
    guard = BackendGuard()
    memory = Memory()
    memory.limit()
    sessions: dict[tuple[bool, bool], tuple[InsideSession, Batch]] = {}

    def run(message: bytes) -> bytes:
        header, calls, records = unpack_batch(message)
        kind = (header["recording"], header["read_only"])
        if kind not in sessions:
            session = InsideSession(program["log"], convert_rows, recording=kind[0], read_only=kind[1])
            sessions[kind] = (session, Batch(session, compiled, guard))
        session, batch = sessions[kind]
        session.begin()
        try:
            done = batch.run(calls, records)
        except Error as error:
            state = Conflicted.state if isinstance(error, Conflicted | Unseen) else REFUSED
            plpy.error(error.message, sqlstate=state, detail=json.dumps(error.problem(), default=str))
            raise
        kept, session.records = session.records, []
        return pack_done(done, records, kept, memory.own_bytes())

    return run
