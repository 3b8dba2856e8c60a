"""The transaction of a backend as the runtime's `Session`, over PL/Python's own access to the database (SPI).

SPI runs each statement in a subtransaction of its own, so that one that fails undoes itself. Parameters get their types
from the server, once for each statement and backend. https://www.postgresql.org/docs/15/plpython-database.html
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import plpy  # type: ignore[import-not-found]  # only a backend has it

from apiary.engine.postgres.session import DEALLOCATE, PREPARE, PostgresSession
from apiary.engine.postgres.statement import Statement
from apiary.engine.postgres.values import BOOL, BYTEA, Reader, as_json, convert, parameter, reader
from apiary.runtime.errors import DatabaseError, RuleBroken
from apiary.runtime.result import NO_COLUMNS, Convert, Result, Shape
from apiary.runtime.session import Part

MAX_PLANS = 1000
BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


@dataclass(slots=True)
class Plan:
    """A prepared statement, the types of its parameters, and, once it has run, the shape of its rows."""

    prepared: Any
    writers: list[Reader]
    shape: Shape | None = None
    readers: Sequence[tuple[int, Reader]] = ()


class InsideSession(PostgresSession):
    """The transaction in which this backend runs now."""

    def __init__(
        self, log: str, convert_rows: Convert, plans: dict[str, Plan], *, recording: bool, read_only: bool
    ) -> None:
        super().__init__(log, recording=recording, read_only=read_only)
        self._convert_rows = convert_rows
        self._plans = plans
        self._open: list[tuple[Part, Any]] = []

    def _run(self, statement: Statement, values: Sequence[Any]) -> Result:
        plan = self._plans.get(statement.sql) or self._prepare(statement)
        if plan.writers or list in map(type, values):
            values = [write(value) for write, value in zip(plan.writers, values, strict=True)]
        try:
            found = plpy.execute(plan.prepared, values)
        except plpy.SPIError as error:
            raise self._failed(error.sqlstate, str(error), statement.sql) from None
        if plan.shape is None:
            self._learn(plan, found, statement)
        shape = plan.shape
        assert shape is not None
        if shape is NO_COLUMNS:
            return Result(shape, [], found.nrows(), self._convert_rows)
        rows = [tuple(row.values()) for row in found]
        if plan.readers:
            rows = convert(rows, plan.readers)
        return Result(shape, rows, len(rows), self._convert_rows)

    def _run_many(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> int:
        with plpy.subtransaction():
            return sum(self._run(statement, values).rowcount for values in rows)

    def _prepare(self, statement: Statement) -> Plan:
        """Let the server infer the types of the parameters, and prepare with those."""
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        names, oids = [], []
        try:
            if statement.names:
                plpy.execute(PREPARE + statement.sql)
                try:
                    types = plpy.execute(self._own["parameter_types"].sql)[0]
                    names, oids = types["names"], types["oids"]
                finally:
                    plpy.execute(DEALLOCATE)
            prepared = plpy.prepare(statement.sql, names)
        except plpy.SPIError as error:
            raise self._failed(error.sqlstate, str(error), statement.sql) from None
        plan = self._plans[statement.sql] = Plan(prepared, list(map(_writer, names, oids)))
        return plan

    def _learn(self, plan: Plan, found: Any, statement: Statement) -> None:
        """Remember the columns of a statement from its first result."""
        try:
            names = found.colnames()
        except plpy.Error:
            plan.shape = NO_COLUMNS
            return
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RuleBroken(f"two columns are named {twice}", hint="give each a name of its own: `… as other_name`")
        plan.shape = Shape(names)
        readers = [(position, reader(oid)) for position, oid in enumerate(found.coltypes())]
        plan.readers = [(position, read) for position, read in readers if read is not None]

    def _enter(self, part: Part) -> None:
        savepoint = plpy.subtransaction()
        self._open.append((part, savepoint))
        savepoint.enter()

    def _leave(self, part: Part, *, keep: bool) -> None:
        while True:
            found, savepoint = self._open.pop()
            with suppress(ValueError):  # one that was never entered, because the function was stopped just there
                if keep:
                    savepoint.exit(None, None, None)
                else:
                    savepoint.exit(RuntimeError, None, None)
            if found == part:
                return


def _writer(name: str, oid: int) -> Reader:
    """What PL/Python wants for a parameter of this type: its own idea of arrays, booleans and bytes, else text."""
    if oid == BOOL:
        return _boolean
    if oid == BYTEA:
        return _bytes
    return _texts if name.endswith("[]") else _text


def _text(value: Any) -> Any:
    return as_json(value) if type(value) is list else value


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        raise DatabaseError("the parameter is an array", hint="pass a list")
    return value and [_texts(item) if isinstance(item, list | tuple) else parameter(item) for item in value]


def _boolean(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word not in BOOLEANS:
        raise DatabaseError(f"{value!r} is no boolean")
    return BOOLEANS[word]


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return bytes.fromhex(value[2:]) if value.startswith("\\x") else value.encode()
