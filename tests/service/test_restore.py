"""A platform on PostgreSQL is dumped while it serves, and restored under another name, with the tools of PostgreSQL."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from bench import provision
from bench.postgres import Postgres
from psycopg.conninfo import conninfo_to_dict

APP = """
from apiary import App, Transaction, Workflow

app = App("kept")


@app.transaction
def put(tx: Transaction, key: str) -> int:
    return tx.execute("insert into effects (key) values (:key) returning id", key=key).scalar()


@app.workflow
def patient(wf: Workflow, key: str) -> str:
    wf.run(put, f"{key}-first")
    word = wf.receive("word")
    wf.run(put, f"{key}-second")
    return word


@app.query
def effects(tx: Transaction) -> list[str]:
    return tx.execute("select key from effects order by id").scalars()
"""
TABLES = "create table effects (id bigint primary key generated always as identity, key text not null);"


def run(program: str, *arguments: str, text: str | None = None) -> str:
    argv = [str(provision.postgres_bin() / program), *arguments]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def here(postgres) -> Iterator[Callable[[str], str]]:
    """The same server."""
    yield postgres.url


@contextmanager
def elsewhere(postgres) -> Iterator[Callable[[str], str]]:
    """Another server, which gets the roles of this one first."""
    folder = Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory() as logs:
        other = Postgres(folder, Path(logs, "postgres.log"), {})
        try:
            other.start()
            roles = run("pg_dumpall", "--roles-only", "--no-role-passwords", "-d", postgres.url())
            mine = [line for line in roles.splitlines() if ' ROLE "apiary_' in line]
            run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", other.url(), text="\n".join(mine))
            yield other.url
        finally:
            other.remove()


@pytest.mark.parametrize("where", [here, pytest.param(elsewhere, marks=pytest.mark.soak)])
def test_a_dump_is_restored_under_another_name(new_server, tools, postgres_database, postgres, tmp_path, where):
    server = new_server("--anonymous-calls", database=postgres_database)
    server.deployed(tools.write_app(tmp_path / "kept", {"kept.py": APP, "migrations/001-tables.sql": TABLES}))
    first = server.post("put", {"key": "a"}, key="k", app="kept")
    begun = server.http.post("/apps/kept/patient", json={"key": "p"}, headers={"Prefer": "respond-async"}).json()["id"]
    tools.eventually(lambda: server.http.get(f"/api/v1/workflows/{begun}").json()["status"] == "waiting")
    dump = str(tmp_path / "dump")
    run("pg_dump", "--format=custom", "--file", dump, "-d", postgres_database)
    server.call("put", app="kept", key="after the dump")

    name = f"{conninfo_to_dict(postgres_database)['dbname']}_restored"
    with where(postgres) as url:
        try:
            run("createdb", "--maintenance-db", url("postgres"), "--template", "template0", name)
            run("pg_restore", "--exit-on-error", "--dbname", url(name), dump)
            with psycopg.connect(url(name), autocommit=True) as connection:  # before any server has seen it
                assert connection.execute("select kept.put('by SQL')").fetchone() is not None
            os.makedirs(tmp_path / "restored")
            restored = tools.Server(tmp_path / "restored", "--anonymous-calls", database=url(name))
            try:
                restored.start()
                again = restored.post("put", {"key": "a"}, key="k", app="kept")
                assert (again.json(), again.headers["apiary-call-id"]) == (1, first.headers["apiary-call-id"])
                sent = restored.http.post(
                    f"/api/v1/workflows/{begun}/messages", json={"topic": "word", "value": "restored"}
                )
                assert sent.status_code == 200, sent.text
                result = restored.http.get(f"/api/v1/workflows/{begun}/result", params={"wait": 30})
                assert (result.status_code, result.json()) == (200, "restored")
                assert restored.call("effects", app="kept") == ["a", "p-first", "by SQL", "p-second"]
            finally:
                restored.end()
        finally:
            with psycopg.connect(url("postgres"), autocommit=True) as connection:
                connection.execute(f"drop database if exists {name} with (force)")
    assert server.call("effects", app="kept") == ["a", "p-first", "after the dump"]
