"""The transaction of a backend as the runtime's `Session`, over PL/Python's own access to the database (SPI).

SPI runs each statement in a subtransaction of its own, so that one that fails undoes itself. Parameters get their types
from the server, once for each statement and backend. https://www.postgresql.org/docs/15/plpython-database.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import plpy  # type: ignore[import-not-found]  # only a backend has it

from apiary.engine.postgres.errors import CONFLICTS
from apiary.engine.postgres.inside.deadline import alarm
from apiary.engine.postgres.session import PostgresSession, check_columns
from apiary.engine.postgres.statement import Statement
from apiary.engine.postgres.types import Types
from apiary.engine.postgres.values import Reader, convert, reader
from apiary.runtime.errors import Error
from apiary.runtime.result import NO_COLUMNS, Convert, Result, Shape
from apiary.runtime.session import Part

MAX_PLANS = 1000
INDIRECT = frozenset({"boolean", "bytea"})
"""Types for which PL/Python wants its own objects. Like arrays and domains they go in as text, and are cast."""

PREPARED = count()
CONFINED: list[Callable[[], None]] = []
"""What runs next where the transaction only reads."""
Level = Part | Literal["statement"]


@dataclass(slots=True)
class Plan:
    """A prepared statement: which of its parameters are arrays and, once it has run, what its rows are.

    The names of the columns are those that PL/Python sees; `shape` has those that the statement gave them.
    """

    prepared: Any
    arrays: Sequence[bool] = ()
    names: Sequence[str] = ()
    types: Sequence[int] = ()
    shape: Shape = NO_COLUMNS
    readers: Sequence[tuple[int, Reader]] = ()


class InsideSession(PostgresSession):
    """The transaction in which this backend runs now."""

    def __init__(
        self, log: str, convert_rows: Convert, plans: dict[str, Plan], *, recording: bool, read_only: bool
    ) -> None:
        super().__init__(log, recording=recording, read_only=read_only)
        self._convert_rows = convert_rows
        self._plans = plans
        self._types = Types(self._type)
        self._open: list[tuple[Level, Any]] = []

    def begin(self) -> None:
        super().begin()
        self._open.clear()

    def _run(self, statement: Statement, values: Sequence[Any]) -> Result:
        plan = self._plans.get(statement.sql)
        if plan is None:
            plan, found = self._first(statement, values)
        else:
            found = self._execute(plan, statement, values)
        if not plan.names:
            return Result(NO_COLUMNS, [], 0 if statement.is_command else found.nrows(), self._convert_rows)
        if found.coltypes() != plan.types or found.colnames() != plan.names:
            self._learn_again(plan, found, statement)
        rows = [tuple(row.values()) for row in found]
        if plan.readers:
            rows = convert(rows, plan.readers)
        return Result(plan.shape, rows, len(rows), self._convert_rows)

    def _run_many(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> int:
        self._enter("statement")
        try:
            changed = sum(self._run(statement, values).rowcount for values in rows)
        except BaseException:
            self._leave("statement", keep=False)
            raise
        self._leave("statement", keep=True)
        return 0 if statement.reads_only or statement.is_command else changed

    def _first(self, statement: Statement, values: Sequence[Any]) -> tuple[Plan, Any]:
        """Prepare a statement, run it, and learn what its rows are. One whose rows cannot be had is undone."""
        if statement.is_command:  # the server does not tell the types of its parameters
            statement, values = replace(statement, sql=statement.with_literals(values), names=()), ()
        plan = self._prepare(statement)
        self._enter("statement")
        try:
            found = self._execute(plan, statement, values)
            self._learn(plan, found)
        except BaseException:
            self._leave("statement", keep=False)
            raise
        twice = len(set(plan.names)) < len(plan.names)
        self._leave("statement", keep=not twice)
        if twice:
            plan, found = self._with_names(plan, statement, values)
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        if not statement.is_command:
            self._plans[statement.sql] = plan
        return plan, found

    def _with_names(self, plan: Plan, statement: Statement, values: Sequence[Any]) -> tuple[Plan, Any]:
        """Run a statement with two columns of one name: PL/Python has rows by name, so each gets one of its own."""
        names = ", ".join(f"apiary_{number}" for number in range(len(plan.names)))
        other = self._prepare(statement, self._own["name_columns"].sql.replace("{names}", names))
        found = self._execute(other, statement, values)
        self._learn(other, found)
        other.shape = plan.shape
        return other, found

    def _execute(self, plan: Plan, statement: Statement, values: Sequence[Any]) -> Any:
        alarm.watch_statement()
        try:
            return plpy.execute(plan.prepared, values)
        except plpy.SPIError as error:
            raise self._error(error, statement.source) from None

    def _error(self, error: Any, sql: str) -> Error:
        """The error of a statement; only in packed form does PL/Python tell each SQLSTATE there is."""
        packed, detail, *_ = error.spidata
        state = "".join(chr(ord("0") + (packed >> 6 * place & 0x3F)) for place in range(5))
        return self._failed(state, str(error), sql, detail or "")

    def _prepare(self, statement: Statement, around: str = "{statement}") -> Plan:
        """Let the server infer the types of the parameters, and prepare with those."""
        try:
            if not statement.names:
                return Plan(plpy.prepare(around.replace("{statement}", statement.sql)))
            names, oids = self._parameter_types(around.replace("{statement}", statement.sql))
            kinds = list(map(self._types.kind, oids))
            indirect = [
                name in INDIRECT or kind.base != oid or kind.element is not None or kind.is_row
                for name, oid, kind in zip(names, oids, kinds, strict=True)
            ]
            casts = [name if cast else None for name, cast in zip(names, indirect, strict=True)]
            declared = [name if cast is None else "text" for name, cast in zip(names, casts, strict=True)]
            return Plan(
                plpy.prepare(around.replace("{statement}", statement.cast(casts)), declared),
                [kind.element is not None for kind in kinds],
            )
        except plpy.SPIError as error:
            raise self._error(error, statement.source) from None

    def _parameter_types(self, sql: str) -> tuple[list[str], list[int]]:
        alarm.watch_statement()
        name = f"apiary_{next(PREPARED)}"  # a function may be stopped before this one is given back
        plpy.execute(f"prepare {name} as {sql}")
        found = plpy.execute(plpy.prepare(self._own["parameter_types"].sql, ["text"]), [name])[0]
        plpy.execute(f"deallocate {name}")
        return found["names"], found["oids"]

    def _arrays(self, statement: Statement) -> Sequence[bool]:
        if statement.is_command:
            return [True] * len(statement.names)
        return (self._plans.get(statement.sql) or self._prepare(statement)).arrays

    def _type(self, oid: int) -> Sequence[Any] | None:
        rows = plpy.execute(plpy.prepare(self._own["type"].sql, ["bigint"]), [oid])
        return tuple(rows[0].values()) if rows else None

    def _learn(self, plan: Plan, found: Any) -> None:
        """Remember the columns of a statement from a result."""
        try:
            plan.names, plan.types = found.colnames(), found.coltypes()
        except plpy.Error:
            return
        kinds = list(map(self._types.kind, plan.types))
        check_columns(plan.names, kinds)
        plan.shape = Shape(plan.names)
        readers = [(position, reader(kind)) for position, kind in enumerate(kinds)]
        plan.readers = [(position, read) for position, read in readers if read is not None]

    def _learn_again(self, plan: Plan, found: Any, statement: Statement) -> None:
        """A table has changed since the statement ran last."""
        self._plans.pop(statement.sql, None)
        if plan.shape.names != tuple(plan.names):  # those that we gave
            raise self._failed(CONFLICTS[0], "a table has changed")
        self._learn(plan, found)

    def _confined(self, body: Callable[[], Any]) -> Any:
        """A setting ends with its statement, which is a subtransaction, so that the body runs inside that statement."""
        results: list[Any] = []
        failures: list[BaseException] = []

        def run() -> None:
            try:
                results.append(body())
            except BaseException as error:  # noqa: BLE001 - the statement has not failed
                failures.append(error)

        CONFINED.append(run)
        try:
            self._platform("confined", ())
        finally:
            CONFINED[:] = [other for other in CONFINED if other is not run]
        if failures:
            raise failures[0]
        return results[0]

    def _enter(self, part: Level) -> None:
        savepoint = plpy.subtransaction()
        self._open.append((part, savepoint))
        savepoint.enter()

    def _leave(self, part: Level, *, keep: bool) -> None:
        """End the latest level of this kind, and all above it. A stop may come between any two of these steps."""
        while True:
            found, savepoint = self._open[-1]
            with suppress(ValueError):  # never entered, or left already
                if keep:
                    savepoint.exit(None, None, None)
                else:
                    savepoint.exit(RuntimeError, None, None)
            self._open.pop()
            if found == part:
                return
