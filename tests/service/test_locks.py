"""Sessions of others have an app's tables locked while it is deployed: who deploys is told, no call is lost."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

APP = """
from apiary import App, Transaction

app = App("held")


@app.query
def version(tx: Transaction) -> str:
    return "VERSION"


@app.transaction(timeout=60)
def put(tx: Transaction, key: str) -> int:
    return tx.execute("insert into effects (key) values (:key) returning id", key=key).scalar()


@app.query(timeout=60)
def effects(tx: Transaction) -> dict[str, int]:
    return {row[0]: row[1] for row in tx.execute("select key, count(*) from effects group by key")}
"""
TABLES = "create table effects (id bigint primary key generated always as identity, key text not null);"
CHANGE = "alter table effects add column note text;"
LONG_SECONDS = 8.0
"""Shorter than a migration waits for its locks; in turns, so that nobody reads behind it for so long."""


@pytest.fixture
def held(new_server, tools, postgres_database, tmp_path):
    server = new_server("--anonymous-calls", database=postgres_database)
    server.deployed(app(tools, tmp_path / "one", "one"))
    return server


def app(tools, folder, version, *migrations):
    files = {"held.py": APP.replace("VERSION", version)}
    files |= {f"migrations/{number:03}.sql": sql for number, sql in enumerate((TABLES, *migrations), start=1)}
    return tools.write_app(folder, files)


@contextmanager
def working(server) -> Iterator[dict[str, float]]:
    """Clients that write and read all the time; all must be answered, and every effect be there once."""
    over = threading.Event()
    slowest = {"put": 0.0, "effects": 0.0}
    keys: list[str] = []

    def work(client: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            function = "effects" if client == 0 else "put"
            key = f"{client}-{number}"
            begun = time.monotonic()
            response = server.post(function, {"key": key} if client else {}, key=key if client else None, app="held")
            slowest[function] = max(slowest[function], time.monotonic() - begun)
            assert response.status_code == 200, response.text
            if client:
                keys.append(key)
            over.wait(0.02)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(work, client) for client in range(3)]
        try:
            yield slowest
        finally:
            over.set()
        for one in done:
            one.result()
    assert server.call("effects", app="held") == dict.fromkeys(keys, 1)


@contextmanager
def session(database: str, statement: str) -> Iterator[int]:
    """Somebody's transaction that has done this, and does not end; its process."""
    with psycopg.connect(database, application_name="a forgotten window") as connection:
        connection.execute(statement)
        yield connection.info.backend_pid


@pytest.mark.parametrize(
    "statement",
    [
        "select count(*) from held.effects",
        pytest.param("lock table held.effects in share mode", marks=pytest.mark.soak),
        pytest.param("lock table held.effects in access exclusive mode", marks=pytest.mark.soak),
        pytest.param("lock table apiary_held.migrations in access exclusive mode", marks=pytest.mark.soak),
    ],
)
def test_a_deploy_that_cannot_have_its_locks_is_refused_and_told_who_has_them(
    held, tools, tmp_path, postgres_database, statement
):
    with working(held) as slowest:
        with session(postgres_database, statement) as pid:
            refused = held.deploy(app(tools, tmp_path / "two", "two", CHANGE))
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable"), refused.text
        if "apiary_held" not in statement:
            assert f"process {pid} of postgres (a forgotten window)" in refused.json()["detail"]
        assert "deploy again" in refused.json()["hint"]
        assert held.call("version", app="held") == "one"
        if "select" in statement:
            assert slowest["effects"] < LONG_SECONDS, "readers waited behind the migration"
        held.deployed(app(tools, tmp_path / "three", "three", CHANGE))
    assert held.call("version", app="held") == "three"


def test_a_deploy_waits_for_a_lock_for_a_while(held, tools, tmp_path, postgres_database):
    with working(held), ThreadPoolExecutor(1) as pool:
        with session(postgres_database, "lock table held.effects in share update exclusive mode") as pid:
            deployed = pool.submit(held.deploy, app(tools, tmp_path / "two", "two", CHANGE))
            with psycopg.connect(postgres_database, autocommit=True) as look:
                tools.eventually(
                    lambda: look.execute(
                        "select pid from pg_stat_activity where %s = any (pg_blocking_pids(pid))", [pid]
                    ).fetchone()
                )
        assert deployed.result().status_code == 201, deployed.result().text
    assert held.call("version", app="held") == "two"
