"""Procrastinate: a queue of jobs in PostgreSQL, for queued work. No workflows.

The program and the jobs are in `procrastinate_app.py`; one worker runs them, started by Procrastinate's own command.
The clients are threads of the program, without HTTP.
"""

from collections.abc import Mapping
from pathlib import Path

from bench import data_set, front_door
from bench.mix import Workload
from bench.peers.database_server import DatabaseServer
from bench.peers.in_program import InProgram
from bench.peers.service import DATABASE, POOL_SIZE, ROOT
from bench.process import Server, ServerFailed, tree

MODULE = "bench.peers.procrastinate_app"
CONCURRENCY = 8


class Procrastinate(InProgram):
    """The program, the worker, and their PostgreSQL."""

    workloads = frozenset({"queued"})
    module = MODULE
    guarantees = "serializable, retried on conflict; durable commit; queued jobs, pushed by the database"
    lacks = "no workflows; a job that commits before it is marked runs again after a crash; no results of jobs"

    def __init__(self, folder: Path) -> None:
        super().__init__("procrastinate", folder, "procrastinate")
        self.server_of_data = DatabaseServer(folder, self.folder.name, remote=False)
        self.postgres = self.server_of_data.postgres
        self.worker: Server | None = None

    def set_up(self, workload: Workload) -> None:
        self.server_of_data.start()
        self.postgres.psql("postgres", f"create database {DATABASE}")
        self.postgres.psql(DATABASE, data_set.postgresql_script(workload))
        schema = Server(self.command("schema", "--apply"), self.log, self.environment(), ROOT)
        if schema.process.wait() != 0:
            raise ServerFailed(f"Procrastinate's schema was not applied.\n{schema.tail()}")
        self.launch()
        front_door.wait(self, workload)

    def command(self, *words: str) -> list[str]:
        return [self.python, "-m", "procrastinate", "--app", f"{MODULE}.app", *words]

    def environment(self) -> Mapping[str, str]:
        return {"BENCH_DSN": self.server_of_data.url(DATABASE), "BENCH_POOL_SIZE": str(POOL_SIZE)}

    def launch(self) -> None:
        super().launch()
        argv = self.command("worker", "--concurrency", str(CONCURRENCY))
        self.worker = Server(argv, self.log, self.environment(), ROOT)

    def halt(self) -> None:
        if self.worker is not None:
            self.worker.stop()
        super().halt()

    def processes(self) -> Mapping[str, list[int]]:
        worker = tree(self.worker.pid) if self.worker is not None else []
        return {**super().processes(), "worker": worker, "postgres": self.postgres.pids()}

    def settings(self) -> Mapping[str, str]:
        worker = f"procrastinate worker --concurrency {CONCURRENCY}; woken by LISTEN/NOTIFY, its default"
        return {**super().settings(), "worker": worker, **self.server_of_data.settings()}

    def tear_down(self) -> None:
        self.halt()
        self.server_of_data.remove()
        super().tear_down()
