"""Runs a query or a transaction again, its statements answered from the record of the call."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from apiary.codec import convert_rows
from apiary.engine.sqlite.capture import concealable, concealed
from apiary.engine.sqlite.expansion import BLOB, FLOAT, as_json
from apiary.engine.sqlite.values import column_readers, convert, native
from apiary.recorded import STARS
from apiary.replaying.outcome import Replayed, Unguarded, unlike_error, unlike_output
from apiary.runtime.call import Program, run
from apiary.runtime.errors import Conflict, Nondeterministic, from_problem
from apiary.runtime.ids import id_bytes, new_id
from apiary.runtime.result import NO_COLUMNS, Result, Shape
from apiary.runtime.session import Call, Part, Queued, Record
from apiary.runtime.transaction import Notes

HINT = "the code, or what it gets from elsewhere than its arguments and its transaction, is another one than it was"


def replay_call(program: Program, recorded: Mapping[str, Any], secrets: Mapping[str, Any]) -> Replayed:
    """Run a query or transaction again; `Conflict` where the log has not kept what it takes."""
    bound = program.find(recorded["function"])
    if bound.function.kind.value != recorded["kind"]:
        was, now = recorded["kind"], bound.function.kind.value
        raise Nondeterministic(f"{recorded['function']} was a {was}, and is now a {now}", hint=HINT)
    given = json.dumps({**json.loads(recorded["input"]), **secrets}).encode()
    call = Call(id_bytes(recorded["id"]), recorded["function"], given, recorded["caller"], frozenset({"admin"}))
    tape = Tape(recorded)
    status = recorded["status"]
    try:
        output = run(program, call, tape, Unguarded(), Notes(recorded["started"]), tape.record)
    except Exception as error:  # noqa: BLE001 - what the function raises is what it came to
        if tape.stopped is not None:
            raise tape.stopped from None
        return Replayed("raised", status, tape.done, error=error, difference=unlike_error(recorded, error))
    if tape.stopped is not None:
        raise tape.stopped
    tape.check_end()
    result = bound.codec.decode_result(output)
    return Replayed("ok", status, tape.done, result, difference=unlike_output(recorded, output))


class Tape:
    """A session that answers statements as they were answered, in their order. `done`: so many were.

    `stopped`: why it could not go on; the function may have caught that.
    """

    recording = False

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self._statements: Sequence[Mapping[str, Any]] = recorded["statements"]
        self._queued: list[Mapping[str, Any]] = list(recorded["queued"])
        self._drawn = [bytes.fromhex(drawn) for drawn in reversed(recorded["drawn"])]
        self._secrets: frozenset[Any] = frozenset()
        self.done = 0
        self.stopped: Nondeterministic | Conflict | None = None

    def execute(self, sql: str, parameters: Mapping[str, Any], read_only: bool) -> Result:
        """The rows that the statement gave then; `TypeError` for a parameter of which there is no statement at all."""
        given = None
        with suppress(ValueError, OverflowError):
            given = as_json(concealed(native(parameters), self._secrets))
        recorded = self._next(sql, given)
        columns = json.loads(recorded["columns"])
        if not columns:
            return Result(NO_COLUMNS, [], recorded["count"], convert_rows)
        if recorded["rows"] is None:
            self._stop(Conflict(f"the log has not kept the {recorded['count']} rows of: {_one_line(sql)}"))
        rows = [tuple(map(_value, row)) for row in json.loads(recorded["rows"])]
        if readers := column_readers(json.loads(recorded["types"]) or ()):
            rows = convert(rows, readers)
        return Result(Shape(columns), rows, len(rows), convert_rows)

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """The number of rows that it changed then. Which rows it was given is not recorded."""
        count: int = self._next(sql, None)["count"]
        return count

    def _next(self, sql: str, given: str | None) -> Mapping[str, Any]:
        if self.stopped is not None:
            raise self.stopped
        sql = sql.encode(errors="replace").decode()
        number = self.done
        asked = f"{_one_line(sql)} {given or ''}".rstrip()
        if number == len(self._statements):
            message = f"statement {number + 1} was not run then: {asked}"
            self._stop(Nondeterministic(message, hint=HINT, statement=number + 1, came=asked))
        recorded = self._statements[number]
        parameters = recorded["parameters"]
        unlike = None not in (given, parameters) and json.loads(given or "") != json.loads(parameters)
        if recorded["statement"] != sql or unlike:
            was = f"{_one_line(recorded['statement'])} {parameters or ''}".rstrip()
            message = f"statement {number + 1} was {was}, and is now {asked}"
            self._stop(Nondeterministic(message, hint=HINT, statement=number + 1, recorded=was, came=asked))
        self.done += 1
        if recorded["error"] is not None:
            raise from_problem(json.loads(recorded["error"]))
        return recorded

    def _stop(self, why: Nondeterministic | Conflict) -> None:
        self.stopped = why
        raise why

    def check_end(self) -> None:
        """`Nondeterministic` where more statements ran then."""
        if self.done < len(self._statements):
            was = _one_line(self._statements[self.done]["statement"])
            message = f"statement {self.done + 1} is not run any more: {was}"
            raise Nondeterministic(message, hint=HINT, statement=self.done + 1, recorded=was)

    def savepoint(self, part: Part) -> None:
        """What was undone then is recorded all the same."""

    release = undo = savepoint

    def confine(self, body: Callable[[], Any]) -> Any:
        """Nothing can be written."""
        return body()

    def enqueue(self, queued: Queued) -> bytes:
        """The id that such a call had then."""
        for known in self._queued:
            if known["function"] == queued.function and known["input"] in (None, queued.input.decode()):
                self._queued.remove(known)
                return id_bytes(known["id"])
        return new_id()

    def send(self, workflow: bytes, topic: str, value: bytes, identifier: bytes) -> bool:
        """It arrived, or the call failed then."""
        return True

    def draw(self, size: int) -> bytes:
        """What was drawn then."""
        if self.stopped is not None:
            raise self.stopped
        drawn = self._drawn.pop() if self._drawn else b""
        if len(drawn) != size:
            was = f"{len(drawn)} were" if drawn else "none were"
            self._stop(Nondeterministic(f"{size} random bytes are drawn where {was} drawn then", hint=HINT))
        return drawn

    def effects(self) -> bytes | None:
        """Nothing is read or written."""
        return None

    def conceal(self, secrets: Sequence[Any]) -> None:
        """The record has stars in their place, wherever they were."""
        if STARS in secrets:
            self._stop(Conflict("its secrets are not in the record", hint="give them, as they were"))
        self._secrets = concealable(secrets)

    def record(self, record: Record) -> None:
        """It is recorded."""


def _value(value: Any) -> Any:
    """A value as it was in SQLite."""
    if not isinstance(value, dict):
        return value
    return b64decode(value[BLOB]) if BLOB in value else float(value[FLOAT])


def _one_line(sql: str) -> str:
    return " ".join(sql.split())[:300]
