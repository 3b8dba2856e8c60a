"""The log of one app, read by the platform: the role of the app may only write to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiary.engine.postgres.install import Installer
from apiary.engine.postgres.session import quoted
from apiary.engine.postgres.statement import parse
from apiary.engine.statements import load_statements

SQL = load_statements("apiary.engine.postgres", "log.sql")


class PostgresLog:
    """The platform's questions about one log."""

    def __init__(self, installer: Installer, log: str) -> None:
        self._installer = installer
        self._log = log

    def ask(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        statement = parse(SQL[name].replace("{log}", quoted(self._log)), trusted=True)
        return self._installer.ask(statement.sql, statement.values(parameters))

    def close(self) -> None:
        """Close the connection of the installer."""
        self._installer.close()
