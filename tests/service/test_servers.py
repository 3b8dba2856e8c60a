"""Several servers on one database of PostgreSQL: who lives, who is lost, and what becomes of that."""

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

APP = """
import os
import time
from apiary import App, Transaction

app = App("grow")


@app.query
def version(tx: Transaction) -> str:
    return "VERSION"


@app.transaction(timeout=20)
def put(tx: Transaction, key: str, seconds: float = 0) -> int:
    time.sleep(seconds)
    return tx.execute("insert into effects (key) values (:key) returning id", key=key).scalar()


@app.query
def count(tx: Transaction, prefix: str) -> int:
    return tx.execute("select count(*) from effects where key like :prefix || '%'", prefix=prefix).scalar()
"""
TABLES = "create table effects (id bigint primary key generated always as identity, key text not null);"


def app(tools, folder, version: str, **migrations: str):
    files = {"grow.py": APP.replace("VERSION", version), "migrations/001-tables.sql": TABLES}
    return tools.write_app(folder, files | {f"migrations/{name}.sql": sql for name, sql in migrations.items()})


@pytest.fixture
def servers(tmp_path, tools, postgres_database) -> Iterator[SimpleNamespace]:
    """Two servers, `a` and `b`, on one database, as if each had a machine of its own; `start` makes another one."""
    started = []

    def start(name: str, *options: str):
        folder = tmp_path / name
        folder.mkdir()
        started.append(tools.Server(folder, "--anonymous-calls", *options, database=postgres_database))
        return started[-1].start()

    try:
        yield SimpleNamespace(a=start("a"), b=start("b"), start=start)
    finally:
        for server in started:
            if server.process.poll() is None:
                os.kill(server.process.pid, signal.SIGCONT)
            server.end()


def listed(server) -> dict[str, dict]:
    """The servers that one of them knows, by their addresses."""
    found = server.http.get("/api/v1/servers").json()
    return {each["description"].partition(",")[0]: each for each in found}


def hosts_of(server, other) -> list[str]:
    """The identities of the hosts of another server, as one of them knows it."""
    return [host["id"] for host in listed(server)[other.url]["hosts"] if host["lost"] is None]


def deploy(servers, tools, folder):
    """Deploy the app on `a`, and start `b` (again), which serves it by that."""
    servers.a.deployed(app(tools, folder, "one"))
    servers.b.stop()
    servers.b.start()


def freeze(server, tools) -> None:
    """Stop a server and its hosts, as a machine that stands still does."""
    for process in tools.marked_processes(server.mark):
        os.kill(process, signal.SIGSTOP)


def thaw(server, tools) -> None:
    for process in tools.marked_processes(server.mark):
        os.kill(process, signal.SIGCONT)


def test_servers_know_each_other_and_each_others_hosts(servers, tools, tmp_path):
    deploy(servers, tools, tmp_path / "app")
    assert listed(servers.a).keys() == {servers.a.url, servers.b.url} == listed(servers.b).keys()
    for one in (servers.a, servers.b):
        for other in (servers.a, servers.b):
            assert [host["app"] for host in listed(one)[other.url]["hosts"]] == ["grow"]


def test_what_a_killed_server_left_is_taken_over_by_another_one(servers, tools, tmp_path):
    deploy(servers, tools, tmp_path / "app")
    servers.b.call("put", app="grow", key="x")
    (host,) = hosts_of(servers.a, servers.b)
    servers.b.kill()
    tools.eventually(lambda: f"grow has taken over what was left by {host}" in servers.a.text(), 30)
    tools.eventually(lambda: listed(servers.a).keys() == {servers.a.url}, 10)
    assert servers.a.call("count", app="grow", prefix="x") == 1


def test_a_server_that_was_lost_while_it_stood_still_goes_on_with_new_hosts(servers, tools, tmp_path):
    deploy(servers, tools, tmp_path / "app")
    servers.b.call("put", app="grow", key="x")
    (host,) = hosts_of(servers.a, servers.b)
    process = servers.b.host("grow")
    freeze(servers.b, tools)
    tools.eventually(lambda: f"grow has taken over what was left by {host}" in servers.a.text(), 30)
    thaw(servers.b, tools)
    assert servers.b.call("put", app="grow", key="y") == 2
    assert servers.b.host("grow") != process
    tools.eventually(lambda: len(listed(servers.a)) == 2, 10)
    (again,) = hosts_of(servers.a, servers.b)
    assert again != host


def test_a_host_that_died_leaves_what_it_had_to_the_one_after_it(servers, tools, tmp_path):
    deploy(servers, tools, tmp_path / "app")
    (host,) = hosts_of(servers.a, servers.b)
    os.kill(servers.b.host("grow"), signal.SIGKILL)
    assert servers.b.call("put", app="grow", key="y") == 1
    tools.eventually(lambda: host not in {each["id"] for each in listed(servers.a)[servers.b.url]["hosts"]}, 30)


def test_a_deploy_on_one_server_is_served_by_the_other(servers, tools, tmp_path):
    for version in ("one", "two"):
        servers.a.deployed(app(tools, tmp_path / version, version))
        assert servers.b.call("version", app="grow") == servers.a.call("version", app="grow") == version
    assert servers.b.http.post("/api/v1/apps/grow/rollback").status_code == 200
    assert servers.b.call("version", app="grow") == servers.a.call("version", app="grow") == "one"
