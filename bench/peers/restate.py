"""Restate: a server that journals the steps of handlers, which run in a service of ours and write to PostgreSQL.

The server is the program of its npm package, with its defaults; the service is `restate_app.py` behind Hypercorn, with
the settings that its documentation has for production. Calls go to the ingress of the server.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import environments
from bench.peers.service import POOL_SIZE, Service
from bench.probe import Connection, request
from bench.process import Server, ServerFailed, free_port, tree, wait_for_port
from bench.workloads import FLOW_NAMES

CONFIGURATION = """\
node-name = "bench"
auto-provision = true
disable-telemetry = true
listen-mode = "tcp"
bind-ip = "127.0.0.1"
bind-port = {fabric}
base-dir = "{folder}"

[ingress]
bind-port = {ingress}

[admin]
bind-port = {admin}
"""
HYPERCORN = """\
bind = "127.0.0.1:{port}"
workers = {workers}
h2_max_concurrent_streams = 2147483647
keep_alive_max_requests = 2147483647
keep_alive_timeout = 2147483647
"""
ACCEPTED = (200, 201, 202)


class Restate(Service):
    """The server, the service and its PostgreSQL."""

    workloads = FLOW_NAMES
    prefix = "/"
    guarantees = "serializable, retried on conflict; durable commit; handlers run to completion; queued calls"
    lacks = "a transaction that commits before its step is journaled runs again after a crash: at least once"
    pool = f"asyncpg, {POOL_SIZE} connections a worker, prepared statements cached"

    def __init__(self, folder: Path) -> None:
        self.program = environments.restate_server()
        self.python = environments.python("restate")
        super().__init__("restate", folder)
        self.service_port, self.admin_port, self.fabric_port = free_port(), free_port(), free_port()
        self.journal: Server | None = None
        self.registered = False

    def command(self) -> Sequence[str]:
        return [
            self.python,
            "-m",
            "hypercorn",
            "--config",
            str(self.folder / "hypercorn.toml"),
            "bench.peers.restate_app:app",
        ]

    def launch(self) -> None:
        text = HYPERCORN.format(port=self.service_port, workers=self.workers)
        (self.folder / "hypercorn.toml").write_text(text)
        ports = {"fabric": self.fabric_port, "ingress": self.port, "admin": self.admin_port}
        configuration = self.folder / "restate.toml"
        configuration.write_text(CONFIGURATION.format(folder=self.folder / "journal", **ports))
        super().launch()
        argv = [self.program, "--no-logo", "--config-file", str(configuration)]
        self.journal = Server(argv, self.log, {"RUST_LOG": "warn"}, self.folder)

    def wait(self) -> None:
        assert self.server is not None
        assert self.journal is not None
        wait_for_port(self.server, self.service_port)
        wait_for_port(self.journal, self.admin_port)
        wait_for_port(self.journal, self.port)
        if not self.registered:
            self.register()

    def register(self) -> None:
        """Tell the server where the service is."""
        body = json.dumps({"uri": f"http://127.0.0.1:{self.service_port}"}).encode()
        with Connection(self.admin_port) as connection:
            status, answer = connection.exchange(request("POST", "/deployments", connection.address, body))
        if status not in ACCEPTED:
            raise ServerFailed(f"Restate did not take the service: {status} {answer.decode(errors='replace')[:800]}")
        self.registered = True

    def halt(self) -> None:
        if self.journal is not None:
            self.journal.stop()
        super().halt()

    def enqueue(self, connection: Connection, path: str, arguments: dict[str, Any]) -> Any:
        """Send, then attach: the ingress answers when the invocation has ended."""
        status, answer = connection.post(f"{path}/send", arguments)
        if status not in ACCEPTED:
            raise ServerFailed(f"sending answered {status}: {answer.decode(errors='replace')[:400]}")
        invocation = json.loads(answer)["invocationId"]
        return connection.get(f"/restate/invocation/{invocation}/attach")

    def processes(self) -> Mapping[str, list[int]]:
        return {**super().processes(), "journal": tree(self.journal.pid) if self.journal is not None else []}

    def settings(self) -> Mapping[str, str]:
        packages = ", ".join(f"{name} {version}" for name, version in environments.versions("restate").items())
        return {
            **super().settings(),
            "command": "python -m hypercorn --config hypercorn.toml bench.peers.restate_app:app",
            "server": f"restate-server {environments.RESTATE_VERSION}, defaults: 24 partitions, its log synced to disk",
            "packages": packages,
        }
