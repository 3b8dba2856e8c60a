"""A whole server on PostgreSQL: deploys, rollbacks, deaths of hosts, the queue, the log, in both placements."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

APP = """
import os
from apiary import App, Rejected, Transaction

app = App("grow")


@app.query
def version(tx: Transaction) -> str:
    return "VERSION"


@app.transaction(timeout=30)
def put(tx: Transaction, key: str) -> int:
    return tx.execute("insert into effects (key) values (:key) returning id", key=key).scalar()


@app.transaction
def put_later(tx: Transaction, key: str, count: int) -> None:
    for number in range(count):
        tx.enqueue(put, f"{key}-{number}")


@app.transaction
def refuse(tx: Transaction, key: str) -> None:
    put(tx, key)
    raise Rejected("no", code="no")


@app.transaction
def fail(tx: Transaction) -> None:
    raise LookupError("a mistake of the app")


@app.transaction(timeout=0.5)
def loop(tx: Transaction) -> None:
    while True:
        pass


@app.query
def count(tx: Transaction, prefix: str) -> int:
    return tx.execute("select count(*) from effects where key like :prefix || '%'", prefix=prefix).scalar()


@app.transaction
def process(tx: Transaction) -> list[int]:
    return [os.getpid(), tx.execute("select pg_backend_pid()").scalar()]
"""
TABLES = "create table effects (id bigint primary key generated always as identity, key text not null);"
LONG = "create table more (x integer); select pg_sleep(1.5);"


@pytest.fixture(params=["inside", "beside"])
def database(request: pytest.FixtureRequest, postgres_database: str) -> Iterator[str]:
    """The URL of a database, whose role may make functions in Python or not."""
    if request.param == "inside":
        yield postgres_database
        return
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        name = connection.info.dbname
        role = f"installer_{name}"
        connection.execute(f"create role {role} login createrole password 'secret'")
        connection.execute(f"alter database {name} owner to {role}")
        try:
            info = connection.info
            yield f"postgresql://{role}:secret@/{name}?host={info.host}&port={info.port}"
        finally:
            connection.execute(f"alter database {name} owner to current_user")


@pytest.fixture
def served(new_server, database, tools, tmp_path):
    server = new_server("--anonymous-calls", database=database)
    server.deployed(app(tools, tmp_path / "one", "one"))
    return server


def app(tools, folder: Path, version: str, **migrations: str) -> Path:
    files = {"grow.py": APP.replace("VERSION", version), "migrations/001-tables.sql": TABLES}
    return tools.write_app(folder, files | {f"migrations/{name}.sql": sql for name, sql in migrations.items()})


def test_calls_end_as_they_must(served):
    first = served.post("put", {"key": "a"}, key="k", app="grow")
    assert (first.status_code, first.json()) == (200, 1)
    again = served.post("put", {"key": "a"}, key="k", app="grow")
    assert again.json() == 1
    assert again.headers["apiary-call-id"] == first.headers["apiary-call-id"]
    assert served.post("put", {"key": "b"}, key="k", app="grow").status_code == 422
    assert served.post("refuse", {"key": "r"}, app="grow").json()["code"] == "no"
    failed = served.post("fail", app="grow")
    assert (failed.status_code, failed.json()["code"]) == (500, "internal_error")
    shown = served.http.get(f"/api/v1/calls/{failed.headers['apiary-call-id']}").json()
    assert "LookupError: a mistake of the app" in shown["error"]["traceback"]
    assert "grow.py" in shown["error"]["traceback"]
    assert served.post("loop", app="grow").status_code == 504
    assert served.call("count", app="grow", prefix="") == 1
    calls = served.http.get("/api/v1/calls", params={"app": "grow"}).json()
    assert Counter(call["status"] for call in calls) >= Counter(ok=1, rejected=1, failed=1, stopped=1)


def test_functions_run_in_backends_or_in_the_host(served, database):
    process, backend = served.call("process", app="grow")
    assert (process == backend) == ("installer" not in database)
    assert f"run {'inside' if process == backend else 'beside'} the database" in served.text()


def test_no_call_fails_while_versions_change(served, tools, tmp_path):
    ended = threading.Event()

    def work(client: int) -> list[tuple[str, int]]:
        answers = []
        while not ended.is_set():
            key = f"w-{client}-{len(answers)}"
            answers.append((key, served.post("put", {"key": key}, key=key, app="grow").status_code))
            assert served.http.get("/apps/grow/version").status_code == 200
        return answers

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, client) for client in range(4)]
        try:
            deployed = served.deployed(app(tools, tmp_path / "two", "two", **{"002-long": LONG}))
            assert deployed["migrations"] == ["002-long.sql"]
            refused = served.deploy(
                app(tools, tmp_path / "bad", "bad", **{"002-long": LONG, "003-bad": "create nonsense"})
            )
            assert (refused.status_code, refused.json()["code"]) == (422, "migration_refused")
            assert served.call("version", app="grow") == "two"
            assert served.http.post("/api/v1/apps/grow/rollback").status_code == 200
            os.kill(served.host("grow"), signal.SIGKILL)
            tools.eventually(lambda: served.call("version", app="grow") == "one")
        finally:
            ended.set()
        answers = [answer for done in working for answer in done.result()]
    assert {status for _, status in answers} == {200}
    assert served.call("count", app="grow", prefix="w-") == len(answers)


def test_the_queue_is_run_and_survives_the_server(served, new_server, database, tools):
    served.call("put_later", app="grow", key="q", count=20)
    tools.eventually(lambda: served.call("count", app="grow", prefix="q-") == 20)
    served.call("put_later", app="grow", key="z", count=50)
    served.kill()
    again = new_server("--anonymous-calls", database=database)
    tools.eventually(lambda: again.call("count", app="grow", prefix="z-") == 50)
    assert again.call("version", app="grow") == "one"


def test_an_app_cannot_take_a_name_that_is_in_use(served, tools, tmp_path, postgres_database):
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("create schema taken")
    for name in ("taken", "apiary_grow", "public", "pg_x"):
        refused = served.deploy(
            tools.write_app(tmp_path / name, {f"{name}.py": f"from apiary import App\napp = App('{name}')\n"})
        )
        assert (refused.status_code, refused.json()["code"]) == (422, "bundle_refused"), name
        assert name in refused.json()["detail"]


def test_a_backup_is_postgresqls_own_business(served):
    refused = served.http.get("/api/v1/backup")
    assert refused.status_code == 400
    assert "pg_dump" in refused.json()["hint"]
