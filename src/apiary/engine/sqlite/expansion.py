"""Takes effects apart, off the path of calls: into a file beside the app's, where they can be asked by row and by call.

It reads the app's file as any reader does, and keeps nobody waiting. How far it has come is written with what it has
written, so nothing is there twice; several processes may do it at once. The file can be deleted: it is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from apiary.engine.effects import KEYS, RAN, SCHEMA, UNREAD, WROTE, unpack
from apiary.engine.sqlite.session import connect
from apiary.engine.sqlite.workflows import SQL as ENGINE
from apiary.engine.statements import load_statements

SQL = load_statements("apiary.engine.sqlite", "expansion.sql")
TABLES = (
    "progress", "progress_row", "sources", "sources_of_calls", "writes", "writes_of_rows", "statements", "reads",
    "reads_of_rows",
)  # fmt: skip
EFFECTS_AT_ONCE = 500
MAX_TERMS = 10_000
BLOB, FLOAT = "apiary:blob", "apiary:float"
"""Members of the objects in which stands what JSON has no form for: a blob in base64, an infinite number by name."""

Insert = tuple[Any, ...]

_to_json = msgspec.json.Encoder().encode


def file_beside(path: Path) -> Path:
    """Where the effects of an app's file are taken apart."""
    return path.with_name(f"{path.stem}.log.db")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, and those of its primary key; none, where a row is known by its row id only."""

    names: Sequence[str]
    key: Sequence[str]

    def image(self, values: Sequence[Any] | None) -> str | None:
        """The values of a row as a JSON object."""
        return None if values is None else as_json(dict(zip(self.names, values, strict=False)))

    def key_of(self, row: int, values: Sequence[Any]) -> str:
        """What identifies a row, as a JSON object, in the order of the names."""
        if not self.key:
            return as_json({"rowid": row})
        named = dict(zip(self.names, values, strict=False))
        return as_json({name: named.get(name) for name in self.key})


@dataclass(frozen=True, slots=True)
class Read:
    """A table of whose rows a statement is made: its key, where that stands in each row, and its columns there."""

    table: str
    key: Sequence[str]
    at: Sequence[int]
    columns: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, as calls name it. `reads` are the tables of which it read rows that are not known."""

    sql: str
    columns: Sequence[str]
    tables: Sequence[Read]
    reads: Sequence[str]


class Expansion:
    """The file beside an app's file, to be brought up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = connect(str(path), read_only=True)
        self._target = connect(str(file_beside(path)), waiting=False)
        self._terms: dict[int, Any] = {}
        self._install(again=False)

    def catch_up(self) -> None:
        """Take apart what is new, and durable."""
        while self._some():
            pass

    def close(self) -> None:
        """Close both files."""
        self._source.close()
        self._target.close()

    def _install(self, *, again: bool) -> None:
        run = self._target.execute
        if not again and run(SQL["schema_number"]).get:
            return
        run(ENGINE["begin_write"])
        if again or not run(SQL["schema_number"]).get:
            run(SQL["drop_all"]).fetchall()
            for name in TABLES:
                run(SQL[f"create_{name}"]).fetchall()
            run(SQL["set_schema_number"]).fetchall()
        run(ENGINE["commit"])

    def _some(self) -> bool:
        """Take some effects apart; returns whether there may be more."""
        found: Any = self._target.execute(SQL["progress"]).fetchall()[0]
        number, digest = found
        source = self._source.execute
        source(ENGINE["begin_read"])
        try:
            last: Any = source(SQL["effect"], (number,)).fetchall() if number else []
            if number and (not last or _digest(last[0][0]) != digest):
                self._install(again=True)
                return True
            rows: Any = source(SQL["effects_after"], (number, EFFECTS_AT_ONCE)).fetchall()
            taken = [(row, self._taken_apart(*unpack(row[3]))) for row in rows]
        finally:
            source(ENGINE["commit"])
        if not rows:
            return False
        with open(f"{self._path}-wal", "rb") as log:
            os.fdatasync(log.fileno())  # what the disk does not have yet may come to be something else
        self._keep(number, taken)
        return True

    def _keep(self, number: int, taken: Sequence[tuple[Any, Sequence[Insert]]]) -> None:
        """Write what was taken apart, unless somebody else did meanwhile."""
        run = self._target.execute
        run(ENGINE["begin_write"])
        try:
            found: Any = run(SQL["progress"]).fetchall()[0]
            if found[0] == number:
                for (effect, call, migration, packed), inserts in taken:
                    run(SQL["insert_source"], (effect, call, migration, unpack(packed)[1]))
                    for position, (statement, *row) in enumerate(inserts):
                        run(SQL[statement], (effect, *row) if statement == "insert_read" else (effect, position, *row))
                last = taken[-1][0]
                run(SQL["update_progress"], (last[0], _digest(last[3])))
        except BaseException:
            run(ENGINE["rollback"])
            raise
        run(ENGINE["commit"])

    def _taken_apart(self, schema: int, left_out: int, events: Sequence[Any]) -> list[Insert]:
        """What is to be inserted for one call: the name of a statement, and a row without its effect."""
        inserts: list[Insert] = []
        for kind, *event in events:
            if kind == WROTE:
                table, before_id, after_id, before, after = event
                columns = self._columns(schema, table)
                inserts += _written(table, columns, (before_id, after_id), before, after)
            elif kind == UNREAD:
                table, before_id, _, operation = event
                inserts.append(("insert_write", table, None, operation, None, None))
            elif kind == SCHEMA:
                schema, statement = event
                after = as_json({"statement": statement})
                inserts.append(("insert_write", None, None, "schema", None, after))
            elif kind in (RAN, KEYS):
                term, parameters, result = event
                inserts += _ran(len(inserts), self._statement(term), parameters, result, whole=kind == RAN)
        return inserts

    def _columns(self, schema: int, table: str) -> Columns:
        tables: Mapping[str, Columns] = self._term(schema, _tables)
        return tables.get(table) or Columns((), ())

    def _statement(self, number: int) -> Statement:
        found: Statement = self._term(number, _statement)
        return found

    def _term(self, number: int, read: Callable[[Any], Any]) -> Any:
        if number not in self._terms:
            if len(self._terms) >= MAX_TERMS:
                self._terms.clear()
            text: Any = self._source.execute(SQL["term"], (number,)).get
            self._terms[number] = read(json.loads(text))
        return self._terms[number]


def _tables(term: Any) -> dict[str, Columns]:
    return {name: Columns(columns, sorted(key)) for name, (columns, key) in term["tables"].items()}


def _statement(term: Any) -> Statement:
    tables = [Read(*table) for table in term["tables"]]
    return Statement(term["sql"], term["columns"], tables, term["reads"])


def _ran(
    number: int, statement: Statement, parameters: Mapping[str, Any] | None, result: Any, *, whole: bool
) -> Iterator[Insert]:
    """A statement, and the rows that it read. Where it is not `whole`, its rows are the keys in them only."""
    given = None if parameters is None else as_json(parameters)
    rows = result if isinstance(result, list) else None
    width = len(statement.columns)
    shown = None if rows is None or not whole else as_json_rows([row[:width] for row in rows])
    yield "insert_statement", statement.sql, given, shown, result if rows is None else len(rows)
    unknown = [*statement.reads, *(read.table for read in statement.tables if rows is None)]
    for place, table in enumerate(unknown):
        yield "insert_read", number, place, table, None, None
    place = len(unknown)
    for row in rows or ():
        keys = 0
        for read in statement.tables:
            at = read.at if whole else range(keys, keys + len(read.at))
            keys += len(read.at)
            key = {name: row[position] for name, position in zip(read.key, at, strict=True)}
            if None in key.values():  # an outer join has no row of this table here
                continue
            values = as_json({name: row[at] for at, name in read.columns}) if whole else None
            yield "insert_read", number, place, read.table, as_json(dict(sorted(key.items()))), values
            place += 1


def _written(
    table: str, columns: Columns, ids: tuple[int, int], before: Sequence[Any] | None, after: Sequence[Any] | None
) -> Iterator[Insert]:
    """One row that was written; two, where its key changed: one went, another one came."""
    old = None if before is None else columns.key_of(ids[0], before)
    new = None if after is None else columns.key_of(ids[1], after)
    if old is not None and new is not None and old == new:
        yield "insert_write", table, new, "update", columns.image(before), columns.image(after)
        return
    if old is not None:
        yield "insert_write", table, old, "delete", columns.image(before), None
    if new is not None:
        yield "insert_write", table, new, "insert", None, columns.image(after)


def as_json(values: Mapping[str, Any]) -> str:
    """Values of SQLite by name as JSON."""
    return _to_json({name: _plain(value) for name, value in values.items()}).decode()


def as_json_rows(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as JSON arrays in one."""
    return _to_json([[_plain(value) for value in row] for row in rows]).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {BLOB: value}
    if isinstance(value, float) and not isfinite(value):
        return {FLOAT: str(value)}
    return value


def _digest(effects: bytes) -> bytes:
    return blake2b(effects, digest_size=8).digest()
