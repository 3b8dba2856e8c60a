"""The functions of an app for SQL: made, changed and dropped, in one transaction, when a version begins to serve.

Each is a wrapper in PL/pgSQL that belongs to the app's role and runs as that (`security definer`). It names its
program, so that sessions which are open run the new code from their next call on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from apiary.engine.postgres.placed import BESIDE
from apiary.engine.postgres.sqlforms import sql_argument, sql_text, sql_type
from apiary.engine.statements import load_statements
from apiary.forms import NONE, Parameter, Signature, read_signature

Cursor = psycopg.RawCursor[Any]

SQL = load_statements("apiary.engine.postgres", "publish.sql")
MARK = "-- apiary "
MAX_PARAMETERS = 50
"""PostgreSQL's limit for arguments is 100, and the wrapper passes a name and a value for each."""


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """A function of an app as one of SQL. `target` is what its wrapper calls."""

    name: str
    signature: Signature
    description: str
    target: str

    @property
    def parameters(self) -> list[Parameter]:
        """Its parameters as SQL wants them: those with a default come last."""
        return sorted(self.signature.parameters, key=lambda parameter: parameter.optional)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of its parameters: with its name, what PostgreSQL knows it by."""
        return tuple(sql_type(parameter.form) for parameter in self.parameters)

    @property
    def digest(self) -> str:
        """What changes where anything of it changes."""
        text = self._statement("", self._body()).as_string(None) + self.description
        return hashlib.sha256(text.encode()).hexdigest()

    def create(self, schema: str) -> sql.Composed:
        """The statement that makes it, or changes it."""
        return self._statement(schema, f"{MARK}{self.digest}\n{self._body()}")

    def _statement(self, schema: str, body: str) -> sql.Composed:
        return _composed(
            "create",
            function=sql.Identifier(schema, self.name),
            parameters=sql.SQL(", ").join(map(_declared, self.parameters)),
            result=sql.SQL(sql_type(self.signature.result)),
            schema=sql.Identifier(schema),
            body=sql.Literal(body),
        )

    def _body(self) -> str:
        arguments = [
            sql.SQL("{}, {}").format(sql.Literal(parameter.name), sql.SQL(sql_argument(parameter.form, number)))
            for number, parameter in enumerate(self.parameters, start=1)
        ]
        body = _composed(
            "body",
            target=sql.Literal(self.target),
            arguments=sql.SQL(", ").join(arguments),
            answer=sql.SQL("" if self.signature.result == NONE else " answer"),
        )
        return body.as_string(None)


def _declared(parameter: Parameter) -> sql.Composed:
    text = sql.SQL("{} {}").format(sql.Identifier(parameter.name), sql.SQL(sql_type(parameter.form)))
    if not parameter.optional:
        return text
    constant = sql_text(parameter.form, json.dumps(parameter.constant).encode())
    return text + sql.SQL(" default {}").format(sql.Literal(constant))


KINDS = ("query", "transaction")


def functions_of(manifest: Mapping[str, Any], program: str, *, recording: bool) -> list[SqlFunction]:
    """The queries and transactions of a version that run inside the database, as the program of that name."""
    return [
        SqlFunction(
            name,
            read_signature(function["signature"]),
            function["description"],
            f"{program}:{name}:{'recorded' if recording else 'unrecorded'}",
        )
        for name, function in manifest["functions"].items()
        if function["kind"] in KINDS and function["placement"] != BESIDE
    ]


class Publication:
    """The functions of one app, in a transaction of the installer."""

    def __init__(self, cursor: Cursor, schema: str, role: str) -> None:
        self._cursor = cursor
        self._schema = schema
        self._role = sql.Identifier(role)

    def publish(self, wanted: Sequence[SqlFunction]) -> list[str]:
        """Make these functions, and drop those that were made before and are not wanted; returns what to tell people.

        Privileges stay with the name of a function, whatever becomes of its parameters. A function that views or
        others depend on is left as it is.
        """
        self._cursor.execute(SQL["patience"].encode())
        told = []
        present = self._present([function.name for function in wanted])
        foreign = {key for key, (_, digest) in present.items() if digest is None}
        grants = self._grants({key: oid for key, (oid, digest) in present.items() if digest is not None})
        keys = {(function.name, function.types) for function in wanted}
        for name, types in sorted(present.keys() - keys - foreign):
            if not self._drop(name, types):
                told.append(f"{self._shown(name, types)} is kept, with the code of before, because something uses it")
        for function in wanted:
            key = (function.name, function.types)
            if key in foreign:
                told.append(f"{self._shown(*key)} is not made, because the app has a function of its own there")
            elif len(function.types) > MAX_PARAMETERS:
                told.append(f"{function.name} is not made: it has more than {MAX_PARAMETERS} parameters")
            elif key not in present or present[key][1] != function.digest:
                told += self._make(function, grants.get(function.name, {}), present=key in present)
        return told

    def _present(self, names: list[str]) -> dict[tuple[str, tuple[str, ...]], tuple[int, str | None]]:
        rows = self._cursor.execute(SQL["present"].encode(), (self._schema, names)).fetchall()
        return {(name, tuple(types)): (oid, digest) for oid, name, types, digest in rows}

    def _grants(self, functions: Mapping[tuple[str, tuple[str, ...]], int]) -> dict[str, dict[str, bool]]:
        """Who may call each function, by its name, and whether they may grant that to others."""
        found: dict[str, dict[str, bool]] = {}
        for (name, _), oid in functions.items():
            allowed = found.setdefault(name, {})
            for grantee, further in self._cursor.execute(SQL["grants"].encode(), (oid,)).fetchall():
                allowed[grantee] = further or allowed.get(grantee, False)
        return found

    def _make(self, function: SqlFunction, grants: Mapping[str, bool], *, present: bool) -> list[str]:
        name, types = function.name, function.types
        create = function.create(self._schema)
        try:
            with self._cursor.connection.transaction():
                self._cursor.execute(create.as_string(self._cursor).encode())
        except errors.InvalidFunctionDefinition:  # other names, defaults or result: no change, but another function
            if not self._drop(name, types):
                return [f"{self._shown(name, types)} stays as it was before, because something uses it"]
            self._cursor.execute(create.as_string(self._cursor).encode())
            present = False
        if not present:
            self._run("own", name, types, role=self._role)
            self._run("revoke", name, types)
            for grantee, further in grants.items():
                self._run("grant_further" if further else "grant", name, types, grantee=sql.SQL(grantee))
        self._run("comment", name, types, text=sql.Literal(function.description or None))
        return []

    def _drop(self, name: str, types: tuple[str, ...]) -> bool:
        """Whether a function could be dropped: nothing depends on it."""
        try:
            with self._cursor.connection.transaction():
                self._run("drop", name, types)
        except errors.DependentObjectsStillExist:
            return False
        return True

    def _run(self, statement: str, name: str, types: tuple[str, ...], **parts: sql.Composable) -> None:
        what = {"function": sql.Identifier(self._schema, name), "types": sql.SQL(", ".join(types))}
        self._cursor.execute(_composed(statement, **what, **parts).as_string(self._cursor).encode())

    def _shown(self, name: str, types: tuple[str, ...]) -> str:
        return f"{self._schema}.{name}({', '.join(types)})"


def _composed(statement: str, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(SQL[statement]).format(**parts)
