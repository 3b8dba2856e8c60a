"""Apiary on its embedded database: `serve`, `deploy` from the command line, the data set loaded by calls."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.mix import Workload
from bench.peers.database_server import DatabaseServer
from bench.probe import CallFailed, Connection, wait_until_healthy
from bench.process import Server, ServerFailed, free_port, tree
from bench.workloads import DATA_NAMES, FLOW_NAMES

APPS = Path(__file__).parent.parent / "apps"
WAIT_SECONDS = 30
UNRECORDED = {"APIARY_UNSAFE_NO_RECORD": "1"}


class Apiary:
    """`apiary serve` with one app, as it comes, or a variant that shows what something costs.

    With `recorded=False`, unsafely, nothing is recorded. `capture`: what the log keeps of what calls read and write.
    """

    workloads = DATA_NAMES | FLOW_NAMES
    prefix = "/apps/"
    floor = False
    guarantees = "serializable; durable commit; each call recorded with its effects; exactly once by idempotency key"
    lacks = ""

    def __init__(self, folder: Path, recorded: bool = True, capture: str | None = None) -> None:
        self.name = f"apiary-capture-{capture}" if capture else "apiary" if recorded else "apiary-unrecorded"
        self.capture = capture
        if not recorded:
            self.guarantees, self.lacks = "serializable; durable commit", "exactly once; records of calls"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=folder))
        self.database = f"sqlite:///{self.folder}/data"
        self.log = folder / f"{self.folder.name}.log"
        self.key = secrets.token_urlsafe(24)
        self.environment = {"APIARY_ADMIN_KEY": self.key, **({} if recorded else UNRECORDED)}
        self.port = free_port()
        self.server: Server | None = None

    def set_up(self, workload: Workload) -> None:
        self.launch()
        assert self.server is not None
        wait_until_healthy(self.server, self.port, "/healthz")
        self.deploy(APPS / workload.app)
        with Connection(self.port) as connection:
            for load in workload.load:
                for first in range(1, load.rows + 1, load.batch):
                    last = min(first + load.batch - 1, load.rows)
                    connection.call(workload.path(load.function), {"first": first, "last": last})

    def tune(self, trial: Callable[[], float]) -> None:
        """Nothing to choose: what is measured is the default."""

    def launch(self) -> None:
        argv = [sys.executable, "-m", "apiary", *self.options()]
        self.server = Server(argv, self.log, self.environment, self.folder)

    def options(self) -> list[str]:
        captured = ["--capture", self.capture] if self.capture else []
        return ["serve", "--port", str(self.port), "--database", self.database, "--anonymous-calls", *captured]

    def halt(self) -> None:
        if self.server is not None:
            self.server.stop()

    def deploy(self, app_folder: Path) -> None:
        url = ["--url", f"http://127.0.0.1:{self.port}", "--key", self.key]
        argv = [sys.executable, "-m", "apiary", "deploy", str(app_folder), *url]
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, cwd=self.folder, env={**os.environ, **self.environment}
        )
        if done.returncode != 0:
            raise ServerFailed(f"deploy of {app_folder.name} failed: {done.stderr.strip() or done.stdout.strip()}")

    def enqueue(self, connection: Connection, path: str, arguments: dict[str, Any]) -> Any:
        """Start it without waiting, then wait for its result."""
        status, body = connection.post(path, arguments, {"Prefer": "respond-async"})
        if status != 202:
            raise CallFailed(f"enqueuing {path} answered {status}: {body.decode(errors='replace')[:800]}")
        return connection.get(f"/api/v1/workflows/{json.loads(body)['id']}/result?wait={WAIT_SECONDS}")

    def processes(self) -> Mapping[str, list[int]]:
        return {"platform": tree(self.server.pid) if self.server is not None else []}

    def network(self) -> list[int]:
        return []

    def settings(self) -> Mapping[str, str]:
        command = " ".join(self.options()).replace(str(self.folder), "DIR")
        return {"command": f"python -m apiary {command}", "processes": str(len(self.processes()["platform"]))}

    def tear_down(self) -> None:
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)


class ApiaryPostgres(Apiary):
    """`apiary serve --database postgresql://…` and its own PostgreSQL, with the settings of the other peers' servers.

    Functions run inside the database or, where `inside` is false, beside it: the platform is then given a role that is
    no superuser, and may not make functions in Python.
    """

    def __init__(self, folder: Path, inside: bool = True, recorded: bool = True, remote: bool = False) -> None:
        super().__init__(folder, recorded)
        place = "postgres" if inside else "beside"
        self.name = f"apiary-{place}{'' if recorded else '-unrecorded'}{'-remote' if remote else ''}"
        self.inside = inside
        self.server_of_data = DatabaseServer(folder, self.folder.name, remote)
        self.postgres = self.server_of_data.postgres

    def set_up(self, workload: Workload) -> None:
        self.server_of_data.start()
        self.postgres.psql("postgres", f"create role installer login createrole password '{self.postgres.password}'")
        self.postgres.psql("postgres", "create database bench owner installer")
        self.database = self.server_of_data.url("bench", "postgres" if self.inside else "installer")
        super().set_up(workload)
        self.postgres.psql("bench", "vacuum analyze")

    def processes(self) -> Mapping[str, list[int]]:
        return {**super().processes(), "postgres": self.postgres.pids()}

    def settings(self) -> Mapping[str, str]:
        command = f"serve --port {self.port} --database postgresql://… --anonymous-calls"
        return {"command": f"python -m apiary {command}", **self.server_of_data.settings()}

    def network(self) -> list[int]:
        return self.server_of_data.network_pids()

    def tear_down(self) -> None:
        self.halt()
        self.server_of_data.remove()
        super().tear_down()
