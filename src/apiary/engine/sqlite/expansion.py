"""Takes effects apart, off the path of calls: into a file beside the app's, where they can be asked by row and by call.

It reads the app's file as any reader does, and keeps nobody waiting. How far it has come is written with what it has
written, so nothing is there twice; several processes may do it at once. The file can be deleted: it is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from apiary.engine.effects import DREW, FAILED, KEYS, RAN, SCHEMA, UNREAD, WROTE, unpack
from apiary.engine.sqlite.session import BESIDE_CACHE_KIB, connect
from apiary.engine.sqlite.workflows import SQL as ENGINE
from apiary.engine.statements import load_statements

SQL = load_statements("apiary.engine.sqlite", "expansion.sql")
TABLES = (
    "progress", "progress_row", "sources", "sources_of_calls", "writes", "writes_of_rows", "texts", "statements",
    "reads", "reads_of_rows", "drawn",
)  # fmt: skip
EFFECTS_AT_ONCE = 500
BYTES_AT_ONCE = 1024 * 1024
MAX_TERMS = 10_000
BLOB, FLOAT = "apiary:blob", "apiary:float"
"""Members of the objects in which stands what JSON has no form for: a blob in base64, an infinite number by name."""

PLAIN = frozenset({int, str, type(None)})
"""What JSON has a form for, whatever the value."""

_to_json = msgspec.json.Encoder().encode


def file_beside(path: Path) -> Path:
    """Where the effects of an app's file are taken apart."""
    return path.with_name(f"{path.stem}.log.db")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, and those of its primary key; none, where a row is known by its row id only."""

    names: Sequence[str]
    key: Sequence[str]

    def key_of(self, row: int, image: Mapping[str, Any]) -> dict[str, Any]:
        """What identifies a row, in the order of the names."""
        return {name: image.get(name) for name in self.key} if self.key else {"rowid": row}


@dataclass(frozen=True, slots=True)
class Read:
    """A table of whose rows a statement is made: its columns in each row, and those of its key.

    The key is in the order of its names: `at` is where it stands in a row, `among` where in one that has only keys.
    """

    table: str
    key: Sequence[str]
    at: Sequence[int]
    among: Sequence[int]
    columns: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, as calls name it by its `term`. `reads` are the tables of which it read rows that are not known.

    `text`: its row in `texts`.
    """

    term: int
    text: tuple[Any, ...]
    width: int
    tables: Sequence[Read]
    reads: Sequence[str]


@dataclass(slots=True)
class TakenApart:
    """Rows of the tables beside, to be inserted, and how far they go."""

    number: int
    digest: bytes
    sources: list[tuple[Any, ...]] = field(default_factory=list)
    writes: list[tuple[Any, ...]] = field(default_factory=list)
    statements: list[tuple[Any, ...]] = field(default_factory=list)
    reads: list[tuple[Any, ...]] = field(default_factory=list)
    drawn: list[tuple[Any, ...]] = field(default_factory=list)


class Expansion:
    """The file beside an app's file, to be brought up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = connect(str(path), read_only=True)
        self._target = connect(str(file_beside(path)), waiting=False, cache_kib=BESIDE_CACHE_KIB)
        self._terms: dict[int, Any] = {}
        self._install(again=False)

    def catch_up(self) -> None:
        """Take apart what is new, and durable."""
        while self.step():
            pass

    def close(self) -> None:
        """Close both files."""
        self._source.close()
        self._target.close()

    def _install(self, *, again: bool) -> None:
        run = self._target.execute
        if not again and run(SQL["is_present"]).get:
            return
        run(ENGINE["begin_write"])
        if again or not run(SQL["is_present"]).get:
            run(SQL["drop_all"]).fetchall()
            for name in TABLES:
                run(SQL[f"create_{name}"]).fetchall()
            run(SQL["set_schema_number"]).fetchall()
        run(ENGINE["commit"])

    def step(self) -> bool:
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
            taken, more = self._new(number)
        finally:
            source(ENGINE["commit"])
        if taken is None:
            return False
        with open(f"{self._path}-wal", "rb") as log:
            os.fdatasync(log.fileno())  # what the disk does not have yet may come to be something else
        return not self._keep(number, taken) or more

    def _new(self, number: int) -> tuple[TakenApart | None, bool]:
        """Some of the effects after this number, taken apart, and whether there may be more."""
        rows: list[Any] = []
        size = 0
        cursor: Any = self._source.execute(SQL["effects_after"], (number, EFFECTS_AT_ONCE))
        for row in cursor:
            rows.append(row)
            size += len(row[-1])
            if size > BYTES_AT_ONCE:
                cursor.close()
                break
        if not rows:
            return None, False
        taken = TakenApart(rows[-1][0], _digest(rows[-1][-1]))
        for row in rows:
            self._take_apart(taken, *row)
        return taken, size > BYTES_AT_ONCE or len(rows) == EFFECTS_AT_ONCE

    def _keep(self, number: int, taken: TakenApart) -> bool:
        """Write what was taken apart; false where somebody else has done that meanwhile."""
        run, run_many = self._target.execute, self._target.executemany
        run(ENGINE["begin_write"])
        try:
            found: Any = run(SQL["progress"]).fetchall()[0]
            ours = bool(found[0] == number)
            if ours:
                texts = [self._statement(term).text for term in {row[2] for row in taken.statements}]
                run_many(SQL["insert_text"], texts).fetchall()
                run_many(SQL["insert_source"], taken.sources).fetchall()
                run_many(SQL["insert_write"], taken.writes).fetchall()
                run_many(SQL["insert_statement"], taken.statements).fetchall()
                run_many(SQL["insert_read"], taken.reads).fetchall()
                run_many(SQL["insert_drawn"], taken.drawn).fetchall()
                run(SQL["update_progress"], (taken.number, taken.digest))
        except BaseException:
            run(ENGINE["rollback"])
            raise
        run(ENGINE["commit"])
        return ours

    def _take_apart(
        self, taken: TakenApart, effect: int, call: int | None, migration: str | None, packed: bytes
    ) -> None:
        """Take the effects of one call apart, or of one migration."""
        schema, left_out, events = unpack(packed)
        taken.sources.append((effect, call, migration, left_out))
        position = 0
        for kind, *event in events:
            if kind in (RAN, KEYS):
                term, parameters, result = event
                _ran(taken, (effect, position), self._statement(term), parameters, result, whole=kind == RAN)
                position += 1
            elif kind == WROTE:
                for write in _written(self._columns(schema, event[0]), *event):
                    taken.writes.append((effect, position, *write))
                    position += 1
            else:
                if kind == SCHEMA:
                    schema, text = event
                    taken.writes.append((effect, position, None, None, "schema", None, as_json({"statement": text})))
                elif kind == FAILED:
                    term, parameters, problem = event
                    given = None if parameters is None else as_json(parameters)
                    taken.statements.append((effect, position, term, given, None, 0, problem))
                elif kind == DREW:
                    taken.drawn.append((effect, position, *event))
                elif kind == UNREAD:
                    table, _, _, operation = event
                    taken.writes.append((effect, position, table, None, operation, None, None))
                position += 1

    def _columns(self, schema: int, table: str) -> Columns:
        tables: Mapping[str, Columns] = self._term(schema, _tables)
        return tables.get(table) or Columns((), ())

    def _statement(self, number: int) -> Statement:
        found: Statement = self._term(number, _statement)
        return found

    def _term(self, number: int, read: Callable[[int, Any], Any]) -> Any:
        if number not in self._terms:
            if len(self._terms) >= MAX_TERMS:
                self._terms.clear()
            text: Any = self._source.execute(SQL["term"], (number,)).get
            self._terms[number] = read(number, json.loads(text))
        return self._terms[number]


def _tables(number: int, term: Any) -> dict[str, Columns]:
    return {name: Columns(columns, sorted(key)) for name, (columns, key) in term["tables"].items()}


def _statement(number: int, term: Any) -> Statement:
    text = number, term["sql"], json.dumps(term["columns"]), json.dumps(term.get("types"))
    return Statement(number, text, len(term["columns"]), list(_reads(term["tables"])), term["reads"])


def _reads(tables: Sequence[Sequence[Any]]) -> Iterator[Read]:
    keys = 0
    for table, key, at, columns in tables:
        order = sorted(range(len(key)), key=lambda place: key[place])
        sorted_key, sorted_at = [key[place] for place in order], [at[place] for place in order]
        yield Read(table, sorted_key, sorted_at, [keys + place for place in order], columns)
        keys += len(key)


def _ran(
    taken: TakenApart,
    at: tuple[int, int],
    statement: Statement,
    parameters: Mapping[str, Any] | None,
    result: Any,
    *,
    whole: bool,
) -> None:
    """A statement, and the rows that it read. Where it is not `whole`, its rows are the keys in them only."""
    given = None if parameters is None else as_json(parameters)
    rows = result if isinstance(result, list) else None
    shown = None if rows is None or not whole else as_json_rows([row[: statement.width] for row in rows])
    taken.statements.append((*at, statement.term, given, shown, result if rows is None else len(rows), None))
    unknown = [*statement.reads, *(read.table for read in statement.tables if rows is None)]
    for place, table in enumerate(unknown):
        taken.reads.append((*at, place, table, None, None))
    place = len(unknown)
    for row in rows or ():
        for read in statement.tables:
            key = {name: row[place] for name, place in zip(read.key, read.at if whole else read.among, strict=True)}
            if None in key.values():  # an outer join has no row of this table here
                continue
            values = as_json({name: row[column] for column, name in read.columns}) if whole else None
            taken.reads.append((*at, place, read.table, as_json(key), values))
            place += 1


def _written(
    columns: Columns, table: str, old_id: int, new_id: int, before: Sequence[Any] | None, after: Sequence[Any] | None
) -> Iterator[tuple[Any, ...]]:
    """One row that was written; two, where its key changed: one went, another one came."""
    old_key = new_key = old_image = new_image = None
    if before is not None:
        old = dict(zip(columns.names, before, strict=False))
        old_key, old_image = as_json(columns.key_of(old_id, old)), as_json(old)
    if after is not None:
        new = dict(zip(columns.names, after, strict=False))
        new_key, new_image = as_json(columns.key_of(new_id, new)), as_json(new)
    if old_key == new_key:
        yield table, new_key, "update", old_image, new_image
        return
    if old_key is not None:
        yield table, old_key, "delete", old_image, None
    if new_key is not None:
        yield table, new_key, "insert", None, new_image


def as_json(values: Mapping[str, Any]) -> str:
    """Values of SQLite by name as JSON."""
    if not PLAIN.issuperset(map(type, values.values())):
        values = {name: _plain(value) for name, value in values.items()}
    return _to_json(values).decode()


def as_json_rows(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as JSON arrays in one."""
    if not PLAIN.issuperset(map(type, chain.from_iterable(rows))):
        rows = [[_plain(value) for value in row] for row in rows]
    return _to_json(rows).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {BLOB: value}
    if isinstance(value, float) and not isfinite(value):
        return {FLOAT: str(value)}
    return value


def _digest(effects: bytes) -> bytes:
    return blake2b(effects, digest_size=8).digest()
