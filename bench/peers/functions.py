"""The runtime of Google's functions: functions-framework, behind the gunicorn that it starts, with psycopg's pool.

Set up as its documentation says for concurrent functions: one worker, and as many threads as requests may run at the
same time; its own default of four threads a core. The number of workers is chosen by trial, too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import environments
from bench.peers.service import POOL_SIZE, Service
from bench.workloads import DATA_NAMES

SOURCE = Path(__file__).parent / "functions_app.py"


class FunctionsFramework(Service):
    """One function with all operations, as a small service of functions is written."""

    workloads = DATA_NAMES
    guarantees = "serializable, retried on conflict; durable commit"
    lacks = "no record of calls, no idempotency key: a retry after a lost answer runs twice"
    pool = f"psycopg_pool, {POOL_SIZE} connections a worker, the driver's own prepared statements"

    def __init__(self, folder: Path) -> None:
        self.python = environments.python("functions")
        super().__init__("functions", folder)

    def command(self) -> Sequence[str]:
        where = ["--source", str(SOURCE), "--target", "handle", "--host", "127.0.0.1", "--port", str(self.port)]
        return [self.python, "-m", "functions_framework", *where]

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "WORKERS": str(self.workers)}

    def settings(self) -> Mapping[str, str]:
        command = " ".join(self.command()[1:]).replace(str(SOURCE), SOURCE.name)
        threads = {"threads": "four a core, the default", "packages": str(environments.versions("functions"))}
        return {**super().settings(), "command": f"WORKERS={self.workers} python {command}", **threads}
