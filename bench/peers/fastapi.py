"""A microservice as it is commonly written: FastAPI + asyncpg + PostgreSQL, behind uvicorn with uvloop and httptools.

The app is `fastapi_app.py`; tables and data are those of bench/apps for PostgreSQL. The number of uvicorn workers is
chosen for the peer by a short trial of each candidate before the runs.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import data_set
from bench.mix import Workload
from bench.peers.database_server import DatabaseServer
from bench.probe import wait_until_healthy
from bench.process import Server, free_port, tree

ROOT = Path(__file__).parent.parent.parent
WORKER_CANDIDATES = (1, 2)
POOL_SIZE = 10  # asyncpg's default, for each worker
DATABASE = "bench"


class FastAPIPostgres:
    """The microservice and its own PostgreSQL."""

    guarantees = "serializable, retried on conflict; durable commit"
    lacks = "no record of calls, no idempotency key: a retry after a lost answer runs twice"

    def __init__(self, folder: Path, remote: bool = False) -> None:
        self.name = "fastapi-remote" if remote else "fastapi"
        self.folder = Path(tempfile.mkdtemp(prefix="fastapi-", dir=folder))
        self.log = folder / f"{self.folder.name}.log"
        self.server_of_data = DatabaseServer(folder, self.folder.name, remote)
        self.postgres = self.server_of_data.postgres
        self.port = free_port()
        self.workers = WORKER_CANDIDATES[0]
        self.trials: dict[int, float] = {}
        self.server: Server | None = None

    def set_up(self, workload: Workload) -> None:
        self.server_of_data.start()
        self.postgres.psql("postgres", f"create database {DATABASE}")
        self.postgres.psql(DATABASE, data_set.postgresql_script(workload))
        self.launch()
        self.wait()

    def tune(self, trial: Callable[[], float]) -> None:
        for self.workers in WORKER_CANDIDATES:
            self.halt()
            self.launch()
            self.wait()
            self.trials[self.workers] = trial()
        best = max(self.trials, key=self.trials.__getitem__)
        if best != self.workers:
            self.workers = best
            self.halt()
            self.launch()
            self.wait()

    def launch(self) -> None:
        environment = {"BENCH_DSN": self.server_of_data.url(DATABASE), "BENCH_POOL_SIZE": str(POOL_SIZE)}
        self.server = Server([sys.executable, "-m", "uvicorn", *self.options()], self.log, environment, ROOT)

    def options(self) -> list[str]:
        where = ["bench.peers.fastapi_app:app", "--host", "127.0.0.1", "--port", str(self.port)]
        how = ["--workers", str(self.workers), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        return [*where, *how, "--log-level", "warning"]

    def wait(self) -> None:
        assert self.server is not None
        wait_until_healthy(self.server, self.port, "/healthz")

    def halt(self) -> None:
        if self.server is not None:
            self.server.stop()

    def processes(self) -> Mapping[str, list[int]]:
        return {
            "service": tree(self.server.pid) if self.server is not None else [],
            "postgres": self.postgres.pids(),
        }

    def network(self) -> list[int]:
        return self.server_of_data.network_pids()

    def settings(self) -> Mapping[str, str]:
        trials = ", ".join(f"{workers}: {rate:.0f}/s" for workers, rate in self.trials.items())
        return {
            "command": f"uvicorn {' '.join(self.options())}",
            "workers_tried": trials or "none",
            "pool": f"asyncpg, {POOL_SIZE} connections a worker, prepared statements cached",
            "isolation": "serializable; 40001 and 40P01 run again with jittered backoff",
            **self.server_of_data.settings(),
        }

    def tear_down(self) -> None:
        self.halt()
        self.server_of_data.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
