"""A server and the other clients of its database: functions for SQL follow its deploys, and it runs their queue."""

import psycopg
import pytest

APP = """
from apiary import App, Transaction

app = App("grow")


@app.transaction
def put(tx: Transaction, key: str) -> str:
    tx.execute("insert into effects (key) values (:key)", key=key)
    return "VERSION"


@app.transaction
def put_later(tx: Transaction, key: str, count: int = 1) -> None:
    for number in range(count):
        tx.enqueue(put, f"{key}-{number}")


@app.action
def outside(key: str) -> str:
    return key
"""
TABLES = "create table effects (id bigint primary key generated always as identity, key text not null);"


@pytest.fixture
def served(new_server, postgres_database):
    return new_server("--anonymous-calls", database=postgres_database)


@pytest.fixture
def database(postgres_database):
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        yield connection


def write(tools, folder, version, **changed):
    source = APP.replace("VERSION", version)
    for old, new in changed.values():
        source = source.replace(old, new)
    return tools.write_app(folder, {"grow.py": source, "migrations/001-tables.sql": TABLES})


def one(database, statement):
    return database.execute(statement).fetchone()[0]


def test_functions_follow_deploys_and_rollbacks(served, database, tools, tmp_path):
    first = served.deployed(write(tools, tmp_path / "one", "one"))["version"]
    assert one(database, "select grow.put('a')") == "one"
    database.execute("create view later as select grow.put_later('v') is null as later")
    more = ("key: str) -> str", "key: str, extra: int = 0) -> str")
    gone = ("def put_later", "def put_after")
    served.deployed(write(tools, tmp_path / "two", "two", more=more, gone=gone))
    assert one(database, "select grow.put('b', extra => 1)") == "two"
    assert one(database, "select grow.put('b')") == "two"
    assert "grow.put_later(text,bigint) is kept" in served.text().replace(", ", ",")
    back = served.http.post("/api/v1/apps/grow/rollback", json={"version": first})
    assert back.status_code == 200, back.text
    assert one(database, "select grow.put('c')") == "one"
    with pytest.raises(psycopg.errors.UndefinedFunction):
        database.execute("select grow.put('b', extra => 1)")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        database.execute("select grow.outside('b')")
    calls = served.http.get("/api/v1/calls", params={"app": "grow"}).json()
    assert {call["caller"] for call in calls} == {f"postgresql:{database.info.user}"}


def test_functions_are_there_again_after_a_start(served, database, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    served.stop()
    database.execute("drop function grow.put")
    served.start()
    assert one(database, "select grow.put('a')") == "one"


def test_the_server_runs_what_sql_put_into_the_queue(served, database, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    with database.transaction(force_rollback=True):
        database.execute("select grow.put_later('never')")
    with database.transaction():
        database.execute("select grow.put_later('a', 3), grow.put_later('b')")
        assert one(database, "select count(*) from apiary_grow.queue") == 4
    tools.eventually(lambda: one(database, "select count(*) from grow.effects") == 4)
    tools.eventually(lambda: one(database, "select count(*) from apiary_grow.queue") == 0)
    ran = database.execute("select distinct caller, parent is not null from apiary_grow.calls where function = 'put'")
    assert ran.fetchall() == [(f"postgresql:{database.info.user}", True)]


def test_the_queue_waits_for_a_server(served, database, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    served.stop()
    database.execute("select grow.put_later('a', 3)")
    assert one(database, "select count(*) from apiary_grow.queue") == 3
    served.start()
    tools.eventually(lambda: one(database, "select count(*) from grow.effects") == 3)


def test_the_server_hears_again_after_its_connection_was_cut(served, database, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    listening = "from pg_stat_activity where datname = current_database() and query ilike 'listen%'"
    tools.eventually(lambda: one(database, f"select count(*) {listening}") == 1)
    database.execute(f"select pg_terminate_backend(pid) {listening}")
    database.execute("select grow.put_later('a', 3)")
    tools.eventually(lambda: one(database, "select count(*) from grow.effects") == 3)
    tools.eventually(lambda: one(database, f"select count(*) {listening}") == 1)


def test_functions_that_cannot_be_made_at_once_are_made_later(served, database, tools, tmp_path):
    served.deployed(write(tools, tmp_path / "one", "one"))
    with database.transaction():
        database.execute("alter function grow.put(text) cost 200")
        served.deployed(write(tools, tmp_path / "two", "two"))
        assert served.call("put", app="grow", key="a") == "two"
        assert "it is tried again" in served.text()
    tools.eventually(lambda: one(database, "select grow.put('a')") == "two")


def test_records_can_be_left_out(new_server, postgres_database, database, tools, tmp_path):
    server = new_server(database=postgres_database, environment={"APIARY_UNSAFE_NO_RECORD": "1"})
    server.deployed(write(tools, tmp_path / "one", "one"))
    assert one(database, "select grow.put('a')") == "one"
    assert one(database, "select count(*) from apiary_grow.calls") == 0


def test_a_statement_starts_and_tells_workflows_with_its_transaction(served, database, tools):
    served.deployed(tools.APPS / "flows")
    with database.transaction(force_rollback=True):
        undone = one(database, "select flows.\"order\"('undone')")
    with database.transaction():
        identifier = one(database, "select flows.\"order\"('kept')")

    def stands(workflow):
        return served.http.get(f"/api/v1/workflows/{workflow}").json().get("status")

    tools.eventually(lambda: stands(identifier) == "waiting")
    assert stands(undone) == 404
    caller = served.http.get(f"/api/v1/workflows/{identifier}").json()["caller"]
    assert caller == f"postgresql:{database.info.user}"
    with database.transaction(force_rollback=True):
        database.execute("select flows.answer(%s, 'undone')", (identifier,))
    database.execute("select flows.answer(%s, 'kept')", (identifier,))
    answer = served.http.get(f"/api/v1/workflows/{identifier}/result", params={"wait": 30})
    assert (answer.status_code, answer.json()) == (200, "kept")
    with pytest.raises(psycopg.Error, match="no workflow"):
        database.execute("select flows.answer(%s, 'late')", (identifier,))
