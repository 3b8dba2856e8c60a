"""A microservice as it is commonly written: FastAPI + PostgreSQL, behind uvicorn with uvloop and httptools.

Two of them: on asyncpg, the fastest driver (`fastapi_app.py`), and on SQLAlchemy, as most people write it
(`sqlalchemy_app.py`). Tables and data are those of bench/apps for PostgreSQL.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.service import POOL_SIZE, Service
from bench.workloads import DATA_NAMES


class FastAPIPostgres(Service):
    """FastAPI with asyncpg: every function a coroutine, every statement by hand."""

    workloads = DATA_NAMES
    guarantees = "serializable, retried on conflict; durable commit"
    lacks = "no record of calls, no idempotency key: a retry after a lost answer runs twice"
    module = "bench.peers.fastapi_app:app"
    pool = f"asyncpg, {POOL_SIZE} connections a worker, prepared statements cached"

    def __init__(self, folder: Path, remote: bool = False) -> None:
        super().__init__("fastapi", folder, remote)

    def command(self) -> Sequence[str]:
        where = [self.module, "--host", "127.0.0.1", "--port", str(self.port)]
        how = ["--workers", str(self.workers), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        return [sys.executable, "-m", "uvicorn", *where, *how, "--log-level", "warning"]


class FastAPISQLAlchemy(FastAPIPostgres):
    """FastAPI with SQLAlchemy's mapped classes and a session a request, functions in the thread pool."""

    workloads = DATA_NAMES - {"tpcc"}
    module = "bench.peers.sqlalchemy_app:app"
    pool = f"SQLAlchemy on psycopg, {POOL_SIZE} connections a worker, the driver's own prepared statements"

    def __init__(self, folder: Path) -> None:
        Service.__init__(self, "sqlalchemy", folder)
