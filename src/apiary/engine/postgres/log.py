"""The log of one app, read by the platform: the role of the app may only write to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apiary.engine.places import Change, Table
from apiary.engine.postgres.install import Installer
from apiary.engine.postgres.session import quoted
from apiary.engine.postgres.statement import parse
from apiary.engine.statements import load_statements
from apiary.runtime.errors import RuleBroken

SQL = load_statements("apiary.engine.postgres", "log.sql")

UNKNOWN = "what calls read and wrote is known on SQLite only, not on PostgreSQL"


class PostgresLog:
    """The platform's questions about one log."""

    knows_effects = False

    def __init__(self, installer: Installer, log: str) -> None:
        self._installer = installer
        self._log = log

    def ask(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        if name not in SQL:
            raise RuleBroken(UNKNOWN)
        return self._installer.ask(*self._own(name, parameters))

    def _own(self, name: str, parameters: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
        statement = parse(SQL[name].replace("{log}", quoted(self._log)), trusted=True)
        return statement.sql, statement.values(parameters)

    def change(self, changes: Sequence[Change]) -> list[int]:
        return self._installer.change([self._own(name, parameters) for name, parameters in changes])

    def sql(self, statement: str, most: int, seconds: float, parameters: Mapping[str, Any] | None = None) -> Table:
        raise RuleBroken(UNKNOWN)

    def close(self) -> None:
        """Close the connection of the installer."""
        self._installer.close()
