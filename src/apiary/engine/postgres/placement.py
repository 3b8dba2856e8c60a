"""Where functions run, and why: inside the backends of PostgreSQL, where those have the Python for it, or beside it."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from typing import Any

import psycopg

from apiary.engine.statements import load_statements

PASSING = ("08", "40", "53", "57")
"""Classes of errors that say nothing of the server's Python: no connection, conflicts, no room, somebody ended it."""
SQL = load_statements("apiary.engine.postgres", "placement.sql")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where functions run by default, and why there."""

    inside: bool
    reason: str

    @property
    def where(self) -> str:
        """In words."""
        return "inside the database" if self.inside else "beside the database"


def find_placement(connection: psycopg.Connection[Any]) -> Placement:
    """Whether backends can run functions: they need Python, of the version for which packages are here.

    The extension is made where it is missing and may be. A `psycopg.Error` where this cannot be found out now.
    """

    def ask(name: str) -> Any:
        row = connection.execute(SQL[name].encode()).fetchone()
        assert row is not None
        return row[0]

    major = connection.info.server_version // 10000
    if not ask("has_python"):
        return Placement(False, f"the server has no plpython3u (Debian: postgresql-plpython3-{major})")
    if not ask("may_make_functions"):
        return Placement(False, "only a superuser may install functions in Python, and this role is none")
    here = f"{sys.version_info[0]}.{sys.version_info[1]} {sys.platform} {platform.machine()}"
    try:
        connection.execute(SQL["create_python"].encode())
        connection.execute(SQL["make_probe"].encode())
        there = ask("probe")
    except psycopg.Error as error:
        if connection.closed or (error.sqlstate or "")[:2] in PASSING:
            raise
        return Placement(False, f"the server's Python does not work: {' '.join(str(error).split())}")
    if there != here:
        return Placement(False, f"the server's Python is {there}, the platform's is {here}")
    return Placement(True, f"the server has plpython3u with Python {there}")
