"""Deploys on servers that share a database: in step, whatever is killed meanwhile, and no request fails."""

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psycopg
import pytest

INSIDE = False


class Deploy:
    """A deploy that is under way on the first server, and migrates."""

    def __init__(self, servers, version: str, seconds: float) -> None:
        self._servers = servers
        self._pool = ThreadPoolExecutor(1)
        path = servers.app(version, f"select pg_sleep({seconds});")
        self._done: Future[httpx.Response] = self._pool.submit(servers.a.deploy, path)
        servers.tools.eventually(lambda: self.migrates() or self._done.done(), 60, "the new host migrates")
        assert not self._done.done(), self._done.result().text

    def migrates(self) -> bool:
        return self._servers.a.http.get("/api/v1/apps/grow").json()["migrating"] is not None

    def result(self) -> httpx.Response:
        return self._done.result(120)


@contextmanager
def no_activation(database: str) -> Iterator[None]:
    """Nothing can be activated meanwhile."""
    with psycopg.connect(database) as connection:
        connection.execute("lock table apiary_registry.activations in share row exclusive mode")
        yield


def late_calls(database: str) -> list[tuple]:
    """Transactions of a version that had been replaced by one with migrations: there must be none after those."""
    with psycopg.connect(database) as connection:
        return connection.execute(
            "select c.function, c.version, m.name, m.version from apiary_grow.calls c, apiary_grow.migrations m "
            "where c.kind = 'transaction' and c.started > m.applied and m.name not like '001%' "
            "and exists (select from apiary_registry.activations a where a.version = c.version and a.number < "
            "(select min(number) from apiary_registry.activations b where b.version = m.version)) "
            "and not exists (select from apiary_registry.activations a where a.version = c.version and a.number > "
            "(select min(number) from apiary_registry.activations b where b.version = m.version))"
        ).fetchall()


def test_what_one_server_deploys_or_rolls_back_the_other_serves(servers):
    servers.b.deployed(servers.app("two"))
    assert servers.state() == {("two", 0)}
    assert servers.a.http.post("/api/v1/apps/grow/rollback").status_code == 200
    assert servers.state() == {("one", 0)}
    versions = [server.http.get("/api/v1/apps/grow/versions").json() for server in servers.started]
    assert versions[0] == versions[1]
    assert [version["active"] for version in versions[0]] == [True, False]


def test_no_request_fails_on_any_server_while_one_deploys_without_and_with_migrations(servers, load, tools):
    clients = load(servers.started, "both")
    clients.reach(10)
    servers.a.deployed(servers.app("three"))
    deploy = Deploy(servers, "four", 3)
    reads = clients.reads
    assert deploy.result().status_code == 201
    assert servers.state() == {("four", 1)}
    assert clients.reads > reads
    clients.reach(10)
    clients.finish(servers.b)
    assert clients.slowest_write > 1.5
    assert not late_calls(servers.database)
    tools.eventually(lambda: [len(server.hosts("grow")) for server in servers.started] == [1, 1], 60)


def test_a_migration_that_is_refused_lets_all_servers_go_on(servers, load):
    before = servers.state()
    clients = load(servers.started, "refused")
    refused = servers.a.deploy(servers.app("bad", "select pg_sleep(1); insert into missing values (1);"))
    assert (refused.status_code, refused.json()["code"]) == (422, "migration_refused")
    clients.reach(10)
    clients.finish(servers.b)
    assert servers.state() == before


def test_a_server_that_is_killed_while_it_migrates_is_settled_by_another(servers, load):
    ((version, columns),) = servers.state()
    clients = load([servers.b], "killed")
    deploy = Deploy(servers, "five", 60)
    servers.kill(servers.a)
    with pytest.raises(httpx.TransportError):
        deploy.result()
    clients.reach(10)
    clients.finish(servers.b)
    assert "had not migrated when its server ended: forgotten" in servers.b.text()
    servers.start()
    assert servers.state() == {(version, columns)}
    servers.b.deployed(servers.app("six", "select 1;"))
    assert servers.state() == {("six", columns + 1)}


def test_a_server_that_is_killed_when_it_has_migrated_is_settled_by_another(servers, load, tools):
    ((_, columns),) = servers.state()
    clients = load([servers.b], "settled")
    before = servers.applied()
    deploy = Deploy(servers, "seven", 1)
    with no_activation(servers.database):
        tools.eventually(lambda: servers.applied() == before + 1, 30)
        servers.kill(servers.a)
    with pytest.raises(httpx.TransportError):
        deploy.result()
    clients.reach(10)
    clients.finish(servers.b)
    assert "had migrated when its server ended: completed" in servers.b.text()
    servers.start()
    assert servers.state() == {("seven", columns + 1)}
    assert not late_calls(servers.database)


@pytest.mark.soak
def test_a_server_that_stood_still_while_it_migrated_keeps_to_what_another_has_settled(servers, load, tools):
    before = servers.state()
    clients = load([servers.b], "frozen")
    deploy = Deploy(servers, "eight", 60)
    servers.signal(servers.a, signal.SIGSTOP)
    try:
        clients.reach(10)
    finally:
        servers.signal(servers.a, signal.SIGCONT)
    assert deploy.result().status_code in (409, 422, 503)
    clients.finish(servers.b)
    tools.eventually(lambda: servers.a.post("put", {"key": "again-1"}, app="grow").status_code == 200, 60)
    assert servers.state() == before


@pytest.mark.soak
def test_a_deploy_goes_on_without_a_server_that_is_killed_while_it_holds(servers, load):
    ((_, columns),) = servers.state()
    clients = load([servers.a], "without")
    deploy = Deploy(servers, "nine", 5)
    servers.kill(servers.b)
    assert deploy.result().status_code == 201
    clients.reach(10)
    clients.finish(servers.a)
    servers.start()
    assert servers.state() == {("nine", columns + 1)}


@pytest.mark.soak
def test_a_server_that_starts_while_another_migrates_waits_with_what_it_would_write(servers, load):
    ((_, columns),) = servers.state()
    servers.b.stop()
    clients = load([servers.a], "late")
    deploy = Deploy(servers, "ten", 3)
    servers.b.start()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(servers.b.call, "put", app="grow", key="later-1")
        assert deploy.result().status_code == 201
        assert late.result(60)
    clients.reach(10)
    clients.finish(servers.b)
    assert servers.state() == {("ten", columns + 1)}
    assert not late_calls(servers.database)


def test_two_deploys_of_one_app_at_once_on_two_servers_follow_one_another(servers, load):
    ((_, columns),) = servers.state()
    clients = load(servers.started, "twice")
    paths = [servers.app(version, "select pg_sleep(1);") for version in ("left", "right")]
    with ThreadPoolExecutor(2) as pool:
        deploys = [pool.submit(server.deploy, path) for server, path in zip(servers.started, paths, strict=True)]
        assert [deploy.result(120).status_code for deploy in deploys] == [201, 201]
    migrated = [deploy.result().json()["migrations"] for deploy in deploys]
    last = "left" if not migrated[0] else "right"
    assert sorted(map(len, migrated)) == [0, 1]
    clients.reach(10)
    clients.finish(servers.a)
    assert servers.state() == {(last, columns + 1)}


def test_a_version_that_another_server_cannot_load_is_refused(servers):
    before = servers.state()
    versions = servers.a.http.get("/api/v1/apps/grow/versions").json()
    refused = servers.a.deploy(servers.app("lucky", wanted="assert 'LUCKY' in os.environ, 'no luck here'"))
    assert (refused.status_code, refused.json()["code"]) == (422, "bundle_refused")
    assert servers.b.url in refused.json()["detail"]
    assert "no luck here" in refused.json()["detail"]
    assert servers.state() == before
    assert servers.a.http.get("/api/v1/apps/grow/versions").json() == versions
