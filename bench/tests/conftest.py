"""Fixtures of the harness's own tests, and the marker of those that need a peer's database server.

`pytest bench -m bench_peer` runs the marked ones; they install PostgreSQL when it is missing.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.process import Server, free_port, wait_for_port

ROOT = Path(__file__).parent.parent.parent
MARKER = "bench_peer"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: needs a peer's servers (PostgreSQL); run with -m {MARKER}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if MARKER in config.getoption("markexpr"):
        return
    for item in items:
        if item.get_closest_marker(MARKER):
            item.add_marker(pytest.mark.skip(reason=f"needs PostgreSQL; run with -m {MARKER}"))


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


@pytest.fixture
def wrk() -> str:
    """The path of wrk; the test is skipped where it is not installed (a bench run installs it)."""
    path = shutil.which("wrk")
    if path is None:
        pytest.skip("wrk is not installed")
    return path
