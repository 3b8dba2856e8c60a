"""DBOS Transact, workflows as a library: on PostgreSQL, as it recommends, and on SQLite, its default for development.

The program is `dbos_app.py`. Its clients are threads in the same process, as its documentation has workflows called: no
HTTP, which ours have in between.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from bench import data_set, front_door
from bench.mix import Workload
from bench.peers.database_server import DatabaseServer
from bench.peers.in_program import InProgram
from bench.workloads import FLOW_NAMES

PROGRAM = "bench.peers.dbos_app"
DATABASE = "bench"


class DBOS(InProgram):
    """On PostgreSQL; its own tables and ours in one database."""

    workloads = FLOW_NAMES
    module = PROGRAM
    guarantees = "serializable, retried on conflict; durable commit; each transaction exactly once; queues; recovery"
    lacks = "no record of what a transaction was called with, no HTTP"

    def __init__(self, folder: Path) -> None:
        super().__init__("dbos", folder, "dbos")
        self.server_of_data = DatabaseServer(folder, self.folder.name, remote=False)
        self.postgres = self.server_of_data.postgres

    def set_up(self, workload: Workload) -> None:
        self.server_of_data.start()
        self.postgres.psql("postgres", f"create database {DATABASE}")
        self.postgres.psql(DATABASE, data_set.postgresql_script(workload))
        self.launch()
        front_door.wait(self, workload)

    def environment(self) -> Mapping[str, str]:
        url = self.server_of_data.url(DATABASE)
        return {"BENCH_SYSTEM_DATABASE": url, "BENCH_DATABASE": url.replace("postgresql:", "postgresql+psycopg:", 1)}

    def processes(self) -> Mapping[str, list[int]]:
        return {**super().processes(), "postgres": self.postgres.pids()}

    def settings(self) -> Mapping[str, str]:
        pools = "DBOS's and SQLAlchemy's defaults; polling intervals, too"
        return {**super().settings(), "pools": pools, **self.server_of_data.settings()}

    def tear_down(self) -> None:
        self.halt()
        self.server_of_data.remove()
        super().tear_down()


class DBOSOnSQLite(InProgram):
    """On SQLite; a file for its own tables, and one for ours."""

    workloads = FLOW_NAMES
    module = PROGRAM
    guarantees = DBOS.guarantees
    lacks = f"{DBOS.lacks}; SQLite is for development, its documentation says"

    def __init__(self, folder: Path) -> None:
        super().__init__("dbos-sqlite", folder, "dbos")
        self.file = self.folder / "data.sqlite"

    def set_up(self, workload: Workload) -> None:
        with closing(sqlite3.connect(self.file)) as database:
            for text in data_set.migrations(workload.app, postgresql=False):
                database.executescript(text)
            with database:
                for load, texts in data_set.loads(workload):
                    for text in texts:
                        database.execute(text, {"first": 1, "last": load.rows})
        self.launch()
        front_door.wait(self, workload)

    def environment(self) -> Mapping[str, str]:
        system = self.folder / "system.sqlite"
        return {"BENCH_SYSTEM_DATABASE": f"sqlite:///{system}", "BENCH_DATABASE": f"sqlite:///{self.file}"}

    def settings(self) -> Mapping[str, str]:
        with closing(sqlite3.connect(self.file)) as database:
            journal = database.execute("pragma journal_mode").fetchone()[0]
            synchronous = database.execute("pragma synchronous").fetchone()[0]
        return {**super().settings(), "sqlite.journal_mode": journal, "sqlite.synchronous": str(synchronous)}
