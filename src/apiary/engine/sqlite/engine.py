"""The embedded engine: opens the file, makes its lanes, migrates, backs up."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw

from apiary.bundle import Migration, migrations_to_apply
from apiary.config import Capturing
from apiary.engine.effects import Terms
from apiary.engine.lines import most_of_share
from apiary.engine.sqlite.capture import Capture
from apiary.engine.sqlite.errors import translate
from apiary.engine.sqlite.lane import ReadingLane, ReadingSession, Turn, WritingLane
from apiary.engine.sqlite.rules import PRAGMAS_OF_MIGRATIONS, violation
from apiary.engine.sqlite.session import SqliteSession, connect, find, row_record
from apiary.engine.sqlite.workflows import SQL, row_queued
from apiary.runtime.advance import MOST_STEPS
from apiary.runtime.call import Guard, Program
from apiary.runtime.errors import DatabaseUnavailable, MigrationRefused
from apiary.runtime.result import Convert
from apiary.runtime.session import NEVER, Queued, Record
from apiary.runtime.transaction import now_microseconds


class SqliteEngine:
    """One app's SQLite file. `recording=False` leaves out the records (and so exactly-once), to measure their cost."""

    dialect = "sqlite"
    writers = 1
    readers = 2
    max_batch = 128
    most_steps = MOST_STEPS

    def __init__(
        self,
        path: Path,
        convert_rows: Convert,
        *,
        recording: bool = True,
        capturing: Capturing = Capturing.BOTH,
    ) -> None:
        self.path = path
        self._convert_rows = convert_rows
        self._terms = Terms()
        self._recording = recording
        self._capturing = capturing if recording else Capturing.OFF
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = connect(str(path))
            self._migrations = Capture(self._connection, self._capturing, Terms())
            self._install()
        except (apsw.CantOpenError, OSError) as error:
            hint = "is it a place where this user may make files?"
            raise DatabaseUnavailable(f"the database {path} cannot be opened: {error}", hint=hint) from error
        except apsw.Error as error:
            raise translate(error) from error
        self._lock = threading.Lock()
        self._turn = Turn()
        self._disk_failed: OSError | None = None
        self._log: int | None = os.open(f"{path}-wal", os.O_RDONLY)

    def _install(self) -> None:
        """Create the system tables, or bring those of an older release up to date, in one transaction.

        Where nothing is to be done, nothing is locked: another process may be writing for long.
        """
        run = self._connection.execute
        folder = files("apiary.engine.sqlite").joinpath("schema")
        schemas = sorted((entry.name, entry.read_text(encoding="utf-8")) for entry in folder.iterdir())
        if run(SQL["has_schema_table"]).get and run(SQL["schema_number"]).get >= len(schemas):
            return
        run(SQL["begin_write"])
        run(SQL["create_schema_table"])
        installed: Any = run(SQL["schema_number"]).fetchall()[0][0]
        for number, (name, sql) in enumerate(schemas, start=1):
            if number > installed:
                _script(self._connection, sql)
                run(SQL["insert_schema"], (number, name))
        run(SQL["commit"])

    def pending(self, migrations: Sequence[Migration]) -> list[str]:
        with _translated(), self._lock:
            return [migration.name for migration in self._new(migrations)]

    def migrate(self, migrations: Sequence[Migration], version: str) -> list[str]:
        if not self.pending(migrations):
            return []
        with self._lock:
            run = self._connection.execute
            try:
                run(SQL["begin_write"])
            except apsw.Error as error:
                raise translate(error) from error
            try:
                new = self._new(migrations)
                for migration in new:
                    self._apply(migration, version)
                held: Any = run(SQL["references_to_platform"]).fetchall() if new else []
                if held:
                    raise MigrationRefused(
                        f"the table {held[0][0]} refers to {held[0][1]}, which is the platform's own",
                        hint="keep the id of the call in a column without a foreign key",
                    )
                broken = run("pragma foreign_key_check").fetchall() if new else []
                if broken:
                    raise MigrationRefused(f"after the migrations, the table {broken[0][0]} has broken foreign keys")
                self._migrations.write_terms()
                run(SQL["commit"])
            except BaseException as error:
                self._migrations.forget()
                if self._connection.in_transaction:
                    run(SQL["rollback"])
                if isinstance(error, apsw.Error):
                    raise translate(error) from error
                raise
            return [migration.name for migration in new]

    def _new(self, migrations: Sequence[Migration]) -> list[Migration]:
        rows: Any = self._connection.execute(SQL["applied_migrations"]).fetchall()
        return migrations_to_apply(migrations, dict(rows))

    def _apply(self, migration: Migration, version: str) -> None:
        broken: list[str] = []

        def authorize(action: int, first: str | None, second: str | None, *rest: str | None) -> int:
            reason = violation(action, first, second, PRAGMAS_OF_MIGRATIONS)
            if action == apsw.SQLITE_TRANSACTION:
                reason = "all migrations of a deploy are one transaction; leave begin, commit and rollback out"
            if reason is not None:
                broken.append(reason)
            return apsw.SQLITE_DENY if broken else apsw.SQLITE_OK

        if "\0" in migration.sql:
            raise MigrationRefused(f"the migration {migration.name} has a NUL character")
        self._connection.authorizer = authorize
        capture = self._migrations
        capture.begin()
        try:
            capture.run_script(migration.sql)
        except apsw.AuthError as error:
            raise MigrationRefused(f"the migration {migration.name}: {broken[0] if broken else error}") from error
        except apsw.Error as error:
            raise MigrationRefused(
                f"the migration {migration.name} failed: {error}",
                hint="nothing of this deploy was kept; mend the file and deploy again",
            ) from error
        finally:
            self._connection.authorizer = None
        row = (migration.name, migration.checksum, version, now_microseconds())
        self._connection.execute(SQL["insert_migration"], row)
        effects = capture.take()
        if effects is not None:
            self._connection.execute(SQL["insert_migration_effects"], (migration.name, effects))

    def writer(self, program: Program, guard: Guard) -> WritingLane:
        connection = connect(str(self.path), waiting=False)
        capture = Capture(connection, self._capturing, self._terms)
        session = SqliteSession(connection, self._convert_rows, capture, recording=self._recording)
        return WritingLane(session, program, guard, self._turn, self.most_steps)

    def reader(self, program: Program, guard: Guard) -> ReadingLane:
        connection = connect(str(self.path), read_only=True)
        capture = Capture(connection, self._capturing, self._terms, read_only=True)
        session = ReadingSession(connection, self._convert_rows, capture, recording=self._recording)
        return ReadingLane(session, program, guard, self._turn)

    def collides(self, function: str) -> bool:
        return False

    def sync(self) -> None:
        if self._log is None:
            return
        if self._disk_failed is not None:  # another try would succeed, and say nothing of what the first one lost
            raise self._disk_failed
        try:
            os.fdatasync(self._log)
        except OSError as error:
            self._disk_failed = error
            raise

    def rewrite(self) -> None:
        """Copy what the log has into the database, and wait until that is durable; no more than others let it.

        Where the disk failed a process before this one, what that wrote may be in the memory of the system alone. It is
        read from there by everybody, and a later sync would not write it, because it counts as written. A full disk is
        another matter: it refuses to write, and loses nothing.
        """
        with _translated(), suppress(apsw.FullError), self._lock:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def find(self, identifier: bytes | None, key: str | None) -> Record | None:
        with _translated():
            with self._lock:
                record = find(self._connection, identifier, key)
            if record is not None:
                self.sync()
            return record

    def find_all(self, identifiers: Sequence[bytes]) -> list[Record]:
        names = json.dumps([identifier.hex() for identifier in identifiers])
        try:
            with self._lock:
                rows: Any = self._connection.execute(SQL["find_calls"], (names,)).fetchall()
            if rows:
                self.sync()
        except (apsw.Error, OSError) as error:
            raise translate(error) from error
        return list(map(row_record, rows))

    def queued(
        self, limit: int, until: int = NEVER, version: str = "", *, plain: bool = True, queue: str | None = None
    ) -> list[Queued]:
        with _translated():
            with self._lock:
                self._ask("begin_read")  # the shares, and what is of each
                try:
                    rows = self._ask("workflows_due", version, until, limit) if queue is None else []
                    if plain:
                        rows += self._waiting(queue, until, limit)
                finally:
                    self._ask("commit")
            self.sync()
        return list(map(row_queued, rows))

    def _waiting(self, queue: str | None, until: int, limit: int) -> list[Any]:
        shares = self._ask("shares", queue, until, limit)
        each = Counter(row[0] for row in shares)
        found = []
        for name, *share, delayed in shares:
            most = most_of_share(limit, each[name])
            found += self._ask("waiting", name, *share, delayed, until if delayed else NEVER, most)
        return found

    def begun(self) -> list[tuple[str, bytes]]:
        return self._read("begun")

    def paused(self) -> list[str]:
        return [row[0] for row in self._read("paused")]

    def admit(self, queue: str, wanted: int, most: int, seconds: float) -> tuple[int, float]:
        with _translated(), self._lock:
            now = time.time()
            self._ask("begin_write")
            try:
                self._ask("forget_admitted", queue, now, seconds)
                [(counted, first)] = self._ask("admitted", queue)
                fresh: int = min(wanted, most - counted)
                if fresh > 0:
                    self._ask("admit", queue, now, fresh)
                self._ask("commit")
            except BaseException:
                self._ask("rollback")
                raise
        return (fresh, 0.0) if fresh > 0 else (0, first + seconds - now)

    def versions_due(self, version: str, until: int) -> list[str]:
        return [row[0] for row in self._read("versions_due", version, until)]

    def queued_call(self, identifier: bytes) -> Queued | None:
        rows = self._read("queued_call", identifier)
        return row_queued(rows[0]) if rows else None

    def _read(self, statement: str, *parameters: str | int | bytes | None) -> list[Any]:
        """Rows that are durable."""
        with _translated():
            with self._lock:
                rows = self._ask(statement, *parameters)
            self.sync()
        return rows

    def _ask(self, statement: str, *parameters: str | float | bytes | None) -> list[Any]:
        rows: Any = self._connection.execute(SQL[statement], parameters).fetchall()
        return list(rows)

    def adopt(self, version: str, except_for: Iterable[bytes], others: Collection[str] | None) -> None:
        with _translated(), self._lock:
            names = json.dumps([identifier.hex().upper() for identifier in except_for])
            cared_for = None if others is None else json.dumps(list(others))
            self._connection.execute(SQL["adopt"], (now_microseconds(), version, names, cared_for)).fetchall()

    def scheduled(self, function: str, done: float | None, now: float) -> float:
        try:
            with self._lock:
                rows: Any = self._connection.execute(SQL["scheduled"], (function, done, now)).fetchall()
        except apsw.Error as error:
            raise translate(error) from error
        return float(rows[0][0])

    def tell(self) -> None:
        """The server knows when another process of it runs the queue."""

    def listen(self, changed: Callable[[], None]) -> None:
        """Only who owns the file puts calls into its queue."""

    def close(self) -> None:
        with self._lock:
            self._connection.close()
            if self._log is not None:
                os.close(self._log)
                self._log = None


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the driver and of the disk as errors of Apiary."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise translate(error) from error


def _script(connection: apsw.Connection, sql: str) -> None:
    for _ in connection.execute(sql):
        pass
