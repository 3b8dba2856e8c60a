"""What the peers share that are a service of one process tree before a PostgreSQL of their own."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import data_set
from bench.mix import Workload
from bench.peers.database_server import DatabaseServer
from bench.probe import wait_until_healthy
from bench.process import Server, free_port, tree

ROOT = Path(__file__).parent.parent.parent
WORKER_CANDIDATES = (1, 2)
POOL_SIZE = 10  # connections of each worker
DATABASE = "bench"


class Service(ABC):
    """A service and its PostgreSQL. The number of its workers is chosen by a short trial of each candidate."""

    prefix = "/apps/"
    floor = False
    pool: str

    def __init__(self, name: str, folder: Path, remote: bool = False) -> None:
        self.name = f"{name}-remote" if remote else name
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
        self.log = folder / f"{self.folder.name}.log"
        self.server_of_data = DatabaseServer(folder, self.folder.name, remote)
        self.postgres = self.server_of_data.postgres
        self.port = free_port()
        self.workers = WORKER_CANDIDATES[0]
        self.trials: dict[int, float] = {}
        self.server: Server | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts the service."""

    def environment(self) -> Mapping[str, str]:
        return {"BENCH_DSN": self.server_of_data.url(DATABASE), "BENCH_POOL_SIZE": str(POOL_SIZE)}

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
        self.server = Server(self.command(), self.log, self.environment(), ROOT)

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
        _, *words = self.command()
        trials = ", ".join(f"{workers}: {rate:.0f}/s" for workers, rate in self.trials.items())
        return {
            "command": f"python {' '.join(words)}",
            "workers": str(self.workers),
            "workers_tried": trials or "none",
            "pool": self.pool,
            "isolation": "serializable; 40001 and 40P01 run again with jittered backoff",
            **self.server_of_data.settings(),
        }

    def tear_down(self) -> None:
        self.halt()
        self.server_of_data.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
