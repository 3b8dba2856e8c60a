"""The floor behind HTTP: bare APSW behind a bare ASGI answer, under the server that Apiary's gateway runs on.

No product: it does no more than the workload's statements, so its answers are not compared. What Apiary loses against
it is what Apiary is for.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.mix import Workload
from bench.peers.service import ROOT
from bench.probe import wait_until_healthy
from bench.process import Server, free_port, tree
from bench.workloads import DATA_NAMES


class Bare:
    """One process."""

    name = "bare"
    workloads = DATA_NAMES
    prefix = "/apps/"
    floor = True
    guarantees = "serializable; durable commit"
    lacks = "everything else: no validation, no errors, no records, one process with all in it"

    def __init__(self, folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bare-", dir=folder))
        self.log = folder / f"{self.folder.name}.log"
        self.port = free_port()
        self.environment: dict[str, str] = {}
        self.server: Server | None = None

    def set_up(self, workload: Workload) -> None:
        self.environment = {"BENCH_WORKLOAD": workload.name, "BENCH_FILE": str(self.folder / "data.db")}
        self.launch()
        assert self.server is not None
        wait_until_healthy(self.server, self.port, "/healthz")

    def command(self) -> list[str]:
        where = ["bench.peers.bare_app:app", "--host", "127.0.0.1", "--port", str(self.port)]
        how = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        return [sys.executable, "-m", "uvicorn", *where, *how]

    def launch(self) -> None:
        self.server = Server(self.command(), self.log, self.environment, ROOT)

    def halt(self) -> None:
        if self.server is not None:
            self.server.stop()

    def tune(self, _trial: Callable[[], float]) -> None:
        """Nothing to choose."""
        return

    def processes(self) -> Mapping[str, list[int]]:
        return {"service": tree(self.server.pid) if self.server is not None else []}

    def network(self) -> list[int]:
        return []

    def settings(self) -> Mapping[str, str]:
        return {"command": f"python {' '.join(self.command()[1:])}", "sqlite": "WAL, synchronous=full"}

    def tear_down(self) -> None:
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)
