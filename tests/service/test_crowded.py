"""A server on a PostgreSQL whose connections others have: it says so at its start and to who deploys, and goes on."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from bench.postgres import Postgres
from tests.conftest import crowd, new_database

CONNECTIONS = 32
APP = "from apiary import App\n\napp = App('small')\n\n\n@app.query\ndef version(tx) -> str:\n    return '{}'\n"


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Postgres]:
    """A server with few connections."""
    server = Postgres(Path(tempfile.gettempdir()), tmp_path / "postgres.log", {"max_connections": str(CONNECTIONS)})
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def database(few: Postgres) -> Iterator[str]:
    with new_database(few) as url:
        yield url


def app(tools, folder, version):
    return tools.write_app(folder, {"small.py": APP.format(version)})


def test_what_needs_a_connection_says_that_there_is_none(few, database, new_server, tools, tmp_path):
    with closing(psycopg.connect(database, autocommit=True)) as admin:
        name = admin.info.dbname
        admin.execute(f"create role installer_{name} login createrole")
        admin.execute(f"alter database {name} owner to installer_{name}")
    url = few.url(name, f"installer_{name}")
    with crowd(few, database), pytest.raises(AssertionError, match="has it a connection left"):
        new_server(database=url)
    server = new_server("--anonymous-calls", database=url)
    server.deployed(app(tools, tmp_path / "one", "one"))
    with crowd(few, database):
        refused = server.deploy(app(tools, tmp_path / "two", "two"))
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable"), refused.text
        assert "connection slots" in refused.json()["detail"]
        assert server.call("version", app="small") == "one"
    assert server.deploy(app(tools, tmp_path / "two", "two")).status_code == 201, server.text()
    assert server.call("version", app="small") == "two"
