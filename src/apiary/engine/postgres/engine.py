"""The PostgreSQL engine: one app's schema, reached as its role."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import psycopg

from apiary.bundle import Migration, migrations_to_apply
from apiary.engine.postgres.connection import Access, Target
from apiary.engine.postgres.errors import Conflicted, ConnectionLost, Locked, NotConnected, translate
from apiary.engine.postgres.lane import PostgresLane
from apiary.engine.postgres.link import Link
from apiary.engine.postgres.listen import Listener
from apiary.engine.postgres.placed import BESIDE, PlacedLane
from apiary.engine.postgres.runner import BesideRunner, InsideRunner, Runner
from apiary.engine.postgres.session import own_statements, row_record
from apiary.engine.postgres.statement import check_script
from apiary.engine.postgres.turns import SharedTurn, Turns
from apiary.engine.postgres.workflows import row_queued
from apiary.engine.protocol import Lane
from apiary.runtime.advance import MOST_STEPS
from apiary.runtime.call import Guard, Program
from apiary.runtime.errors import (
    BundleRefused,
    DatabaseUnavailable,
    Error,
    InternalError,
    MigrationRefused,
)
from apiary.runtime.result import Convert
from apiary.runtime.session import NEVER, Queued, Record
from apiary.runtime.transaction import now_microseconds

Cursor = psycopg.RawCursor[Any]

WRITERS = 4
READERS = 2
ASK_SECONDS = 10.0
MIGRATION_LOCK_SECONDS = 10.0
"""So long, in all, a migration waits for locks that others hold."""
LOCK_TURN_SECONDS = 1.0
PAUSE_SECONDS = 0.2
RECONNECT_SECONDS = 30.0
"""So long a migration whose connection was lost tries to find out whether it was kept."""
MAX_LOST = 3


class PostgresEngine:
    """One app in PostgreSQL. `recording=False` leaves out the records (and so exactly-once), to measure their cost.

    `host`: the identity of the process, where other servers may use the database, too; `expelled` is called, from any
    thread, when it counts no more, and nothing of it can be committed.
    """

    dialect = "postgresql"
    max_batch = 16
    most_steps = MOST_STEPS

    def __init__(
        self,
        target: Target,
        convert_rows: Convert,
        *,
        recording: bool = True,
        writers: int = WRITERS,
        readers: int = READERS,
        host: UUID | None = None,
        expelled: Callable[[], None] = lambda: None,
    ) -> None:
        self.writers = writers
        self.readers = readers
        self._target = target
        self._convert_rows = convert_rows
        self._recording = recording
        self._own = own_statements(target.log)
        self.host = host
        self._access = Access(target, host, expelled)
        self._turns = Turns(SharedTurn(self._access, target.log))
        self._runners: defaultdict[tuple[type[Runner], bool], list[Runner]] = defaultdict(list)
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._listener: Listener | None = None

    def pending(self, migrations: Sequence[Migration]) -> list[str]:
        with self._migrating(MIGRATION_LOCK_SECONDS) as cursor:
            return [migration.name for migration in self._new(cursor, migrations)]

    def migrate(self, migrations: Sequence[Migration], version: str) -> list[str]:
        """Waits for locks in short turns, so that what reads meanwhile is not held up behind it for long."""
        end = time.monotonic() + MIGRATION_LOCK_SECONDS
        lost = 0
        wanted: list[str] | None = None
        while True:
            try:
                with self._migrating(LOCK_TURN_SECONDS) as cursor:
                    new = self._new(cursor, migrations)
                    if wanted is None:
                        wanted = [migration.name for migration in new]
                    for migration in new:
                        self._apply(cursor, migration, version)
                return wanted
            except (Locked, Conflicted) as error:
                if time.monotonic() > end:
                    raise self._held_up(error) from error
            except ConnectionLost:
                lost += 1
                if lost == MAX_LOST:
                    raise
                end = time.monotonic() + RECONNECT_SECONDS
            except NotConnected:
                if not lost or time.monotonic() > end:
                    raise
            time.sleep(PAUSE_SECONDS)

    @contextmanager
    def _migrating(self, lock_seconds: float) -> Iterator[Cursor]:
        """A transaction in which nobody else migrates, not even a backend whose client has died.

        It sees what was committed while it waited for that.
        """
        try:
            link = self._access.open()
        except NotConnected as error:  # whoever deploys may know why
            raise NotConnected(f"{error.message}: {self._access.why}") from error
        link.connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        try:
            with link.waiting() as connection, connection.transaction():
                cursor = psycopg.RawCursor(connection)
                self._run(cursor, "lock_timeout", (f"{lock_seconds * 1000:.0f}",))
                self._run(cursor, "migration_lock", (f"apiary migrate {self._target.schema}",))
                yield cursor
        except psycopg.Error as error:
            found = _translated(error, link)
            if isinstance(found, DatabaseUnavailable):
                raise found from error
            raise MigrationRefused(f"the migrations cannot be committed: {found.message}") from error
        finally:
            link.close()

    def _held_up(self, error: Error) -> DatabaseUnavailable:
        """The error of a migration that has waited long enough; names those that have tables of the app locked."""
        found: list[Any] = []
        with suppress(DatabaseUnavailable):
            found = self._ask_own("holders", (self._target.schema,))
        holders = "; ".join(f"process {pid} of {role} ({name or 'without a name'})" for pid, role, name in found)
        return DatabaseUnavailable(
            f"the migration waited {MIGRATION_LOCK_SECONDS:g} s for a lock that another session holds: {error.message}"
            + (f"; tables are locked by {holders}" if holders else ""),
            hint="nothing of this deploy was kept; end that session (pg_stat_activity has it), and deploy again",
        )

    def _run(self, cursor: Cursor, name: str, values: Sequence[Any] = ()) -> list[Any]:
        cursor.execute(self._own[name].sql.encode(), values)
        return cursor.fetchall() if cursor.description else []

    def _new(self, cursor: Cursor, migrations: Sequence[Migration]) -> list[Migration]:
        return migrations_to_apply(migrations, dict(self._run(cursor, "applied_migrations")))

    def _apply(self, cursor: Cursor, migration: Migration, version: str) -> None:
        before = self._run(cursor, "transaction_id")
        try:
            check_script(migration.sql)
            cursor.connection.execute(migration.sql.encode())
            if self._run(cursor, "transaction_id") != before:
                raise MigrationRefused(f"the migration {migration.name} ends the transaction in which it runs")
        except InternalError as error:
            raise MigrationRefused(f"the migration {migration.name}: {error.message}") from error
        except psycopg.Error as error:
            known = translate(error.sqlstate or "", str(error))
            if isinstance(known, DatabaseUnavailable):
                raise
            raise MigrationRefused(
                f"the migration {migration.name} failed: {error.diag.message_primary or error}",
                hint="nothing of this deploy was kept; mend the file and deploy again",
            ) from error
        self._run(cursor, "insert_migration", (migration.name, migration.checksum, version, now_microseconds()))

    def writer(self, program: Program, guard: Guard) -> Lane:
        return self._lane(program, guard, read_only=False)

    def reader(self, program: Program, guard: Guard) -> Lane:
        return self._lane(program, guard, read_only=True)

    def _lane(self, program: Program, guard: Guard, *, read_only: bool) -> Lane:
        target = self._target
        wanted = {bound.function.options.placement: name for name, bound in program.functions.items()}
        if target.program is None and target.why_beside is not None and "database" in wanted:
            raise BundleRefused(
                f"{wanted['database']} must run inside the database, and cannot: {target.why_beside}",
                hint='apiary doctor looks at the database; without placement="database" it runs beside it',
            )
        how: dict[str, Any] = {"recording": self._recording, "read_only": read_only, "most_steps": self.most_steps}
        lanes = []
        if target.program is not None:
            lanes.append(self._lane_of(InsideRunner(self._access, target, **how), program, guard, read_only))
        if target.program is None or BESIDE in wanted:
            runner = BesideRunner(self._access, target, program, self._convert_rows, **how)
            lanes.append(self._lane_of(runner, program, guard, read_only))
        return lanes[0] if len(lanes) == 1 else PlacedLane(lanes[0], lanes[1], program)

    def _lane_of(self, runner: Runner, program: Program, guard: Guard, read_only: bool) -> PostgresLane:
        turns = None if read_only else self._turns
        return PostgresLane(runner, self._runners[type(runner), read_only], program, guard, turns)

    def collides(self, function: str) -> bool:
        return self._turns.collides(function)

    def sync(self) -> None:
        """A commit waits for the disk by itself."""

    def rewrite(self) -> None:
        """The database ends and recovers by itself where its disk fails."""

    def find(self, identifier: bytes | None, key: str | None) -> Record | None:
        rows = self._ask_own("find", (UUID(bytes=identifier) if identifier else None, key))
        return row_record(rows[0]) if rows else None

    def find_all(self, identifiers: Sequence[bytes]) -> list[Record]:
        return list(
            map(row_record, self._ask_own("find_all", ([UUID(bytes=identifier) for identifier in identifiers],)))
        )

    def queued(
        self, limit: int, until: int = NEVER, version: str = "", *, plain: bool = True, queue: str | None = None
    ) -> list[Queued]:
        rows = self._ask_own("workflows_due", (version, until, limit)) if queue is None else []
        rows += self._ask_own("waiting", (queue, until, limit)) if plain else []
        return list(map(row_queued, rows))

    def queued_call(self, identifier: bytes) -> Queued | None:
        rows = self._ask_own("queued_call", (UUID(bytes=identifier),))
        return row_queued(rows[0]) if rows else None

    def begun(self) -> list[tuple[str, bytes]]:
        return [(queue, identifier.bytes) for queue, identifier in self._ask_own("begun", ())]

    def paused(self) -> list[str]:
        return [row[0] for row in self._ask_own("paused", ())]

    def admit(self, queue: str, wanted: int, most: int, seconds: float) -> tuple[int, float]:
        admitted, wait = self._ask_own("admit", (queue, wanted, most, seconds))[0]
        return admitted, wait

    def versions_due(self, version: str, until: int) -> list[str]:
        return [row[0] for row in self._ask_own("versions_due", (version, until))]

    def adopt(self, version: str, except_for: Iterable[bytes], others: Collection[str] | None) -> None:
        """Rows say which process ran their actions, and the table of the processes whether it is gone."""
        self._ask_own("adopt", (version, now_microseconds(), [UUID(bytes=identifier) for identifier in except_for]))

    def _ask_own(self, name: str, values: Sequence[Any]) -> list[Any]:
        with self._lock:
            for last in (False, True):
                if self._link is None or self._link.closed:
                    if self._link is not None:
                        self._link.close()
                    self._link = self._access.open()
                try:
                    with self._link.waiting(ASK_SECONDS) as connection:
                        return self._run(psycopg.RawCursor(connection), name, values)
                except psycopg.Error as error:
                    if last or not self._link.closed:
                        raise _translated(error, self._link) from error
        raise AssertionError("the second attempt returns or raises")

    def scheduled(self, function: str, done: float | None, now: float) -> float:
        return float(self._ask_own("scheduled", (function, done, now))[0][0])

    def tell(self) -> None:
        with suppress(DatabaseUnavailable):  # who runs the queue looks from time to time
            self._ask_own("notify", (self._target.log,))

    def listen(self, changed: Callable[[], None]) -> None:
        if (self._target.program is not None or self.host is not None) and self._listener is None:
            self._listener = Listener(self._access, self._target.log, changed)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._turns.close()
        with self._lock:
            if self._link is not None:
                self._link.close()
            self._access.close()


def _translated(error: psycopg.Error, link: Link) -> Error:
    """The error of Apiary for one of the driver; a connection that is gone is closed."""
    if link.connection.broken or not error.sqlstate:
        return link.lost(error)
    return translate(error.sqlstate, error.diag.message_primary or str(error))
