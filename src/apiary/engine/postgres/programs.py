"""What backends load: programs and their archives, kept in the database for as long as something may run them.

A host that starts has its program put here, made from what the registry has, if it is not here already. So no program
needs to be kept for a rollback, or for a workflow that waits: only for hosts that live, and for functions of SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

from apiary.engine.places import Source
from apiary.engine.postgres.archive import folder_archive, platform_archive
from apiary.engine.statements import load_statements

Cursor = psycopg.RawCursor[Any]

SQL = load_statements("apiary.engine.postgres", "programs.sql")


class Programs:
    """The programs of a database, in a transaction of the installer that has its lock."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def keep(self, app: str, log: str, source: Source, host: UUID | None) -> str:
        """Keep the code of a version for the backends; returns the hash of its program.

        It stays for as long as `host` does, which is known to the servers already. A program that is new is the
        occasion to remove those that nothing can run any more.
        """
        archives = [*map(folder_archive, source.folders), platform_archive()]
        hashes = [archive.hash for archive in archives]
        identity = "\n".join([app, log, source.module, source.version, *hashes])
        digest = hashlib.sha256(identity.encode()).hexdigest()
        for archive in archives:
            if not self._run("has_archive", archive.hash):
                self._run("insert_archive", archive.hash, archive.content)
        new = self._run("insert_program", digest, app, source.module, source.version, log, hashes)
        if host is not None:
            self._run("note_program", host, digest)
            if new:
                self._run("forget_programs")
                self._run("forget_archives")
        return digest

    def _run(self, name: str, *values: Any) -> Sequence[Any]:
        self._cursor.execute(SQL[name].encode(), values or None)
        return self._cursor.fetchall() if self._cursor.description else []
