"""Fixtures of the harness's own tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import provision
from bench.process import Server, free_port, wait_for_port

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def responder(tmp_path: Path) -> Iterator[int]:
    """The port of a server that answers everything with {}."""
    port = free_port()
    server = Server([sys.executable, "-m", "bench.responder", str(port)], tmp_path / "responder.log", {}, ROOT)
    try:
        wait_for_port(server, port)
        yield port
    finally:
        server.stop()


@pytest.fixture(scope="session")
def wrk() -> str:
    """The path of wrk."""
    return provision.wrk()


@pytest.fixture(scope="session")
def local_postgres() -> Path:
    """The folder of PostgreSQL's programs; nothing is installed where the tests were given a server elsewhere."""
    if os.environ.get("APIARY_TEST_POSTGRES") and provision.newest_postgres() is None:
        pytest.skip("APIARY_TEST_POSTGRES is set, and PostgreSQL is not installed here")
    return provision.postgres_bin()
