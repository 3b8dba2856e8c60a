"""Deploys that migrate for long: no request fails, whatever is killed meanwhile, and schema and code stay together."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest
from tests.service.conftest import new_client

APP = """
import time
from pathlib import Path
from apiary import App, Transaction

app = App("grow")


@app.query
def version(tx: Transaction) -> str:
    return "VERSION"


@app.transaction(timeout=1)
def put(tx: Transaction, key: str) -> int:
    return tx.execute("insert into effects (key) values (:key) returning id", key=key).scalar()


@app.transaction(timeout=0.5)
def put_slowly(tx: Transaction, key: str) -> int:
    time.sleep(0.01)
    return put(tx, key)


@app.transaction(timeout=60)
def put_after(tx: Transaction, key: str, until: str) -> str:
    put(tx, key)
    while not Path(until).exists():
        time.sleep(0.01)
    return "VERSION"


@app.transaction
def put_later(tx: Transaction, key: str, count: int) -> None:
    for number in range(count):
        tx.enqueue(put, f"{key}-{number}")


@app.query(timeout=1)
def effects(tx: Transaction, prefix: str) -> dict[str, int]:
    rows = tx.execute("select key, count(*) from effects where key glob :p || '-*' group by key", p=prefix)
    return {row[0]: row[1] for row in rows}


@app.query
def columns(tx: Transaction) -> list[str]:
    return tx.execute("select name from pragma_table_info('effects')").scalars()


@app.action(timeout=1)
def act(path: str, seconds: float) -> str:
    with Path(path).open("a") as file:
        file.write("start\\n")
    time.sleep(seconds)
    with Path(path).open("a") as file:
        file.write("end\\n")
    return "VERSION"
"""
TABLES = "create table effects (id integer primary key, key text not null); create table steps (n integer);"
COUNT = (
    "insert into steps with recursive s (n) as (select 1 union all select n + 1 from s where n < {steps}) "
    "select count(*) from s;"
)
STEPS_A_SECOND = 6_000_000
BIGGER = "alter table effects add column added integer default 1;"
WRITERS, READERS = 6, 2


def long_migration(seconds: float, end: str = "") -> str:
    """SQL that changes the schema, and works for about so long before it ends."""
    return BIGGER + COUNT.replace("{steps}", str(int(seconds * STEPS_A_SECOND))) + end


def rows(database, sql: str, *parameters: str) -> list[tuple]:
    """What a statement finds in a database, asked past the server."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql, parameters).fetchall()


def files(version: str, migration: str | None = None) -> dict[str, str]:
    found = {"grow.py": APP.replace("VERSION", version), "migrations/001-tables.sql": TABLES}
    return found if migration is None else {**found, "migrations/002-bigger.sql": migration}


def applied(server) -> int:
    """How many migrations the database has."""
    return len(rows(server.data / "grow.db", "select * from apiary_migrations"))


class Load:
    """Clients that write and read without a pause. Every write has a key of its own, and every answer must be 200.

    `patient`: a client sends again, with the same key, what got no answer because the server was killed.
    """

    def __init__(self, server, prefix: str, *, patient: bool = False) -> None:
        self.prefix = prefix
        self.answers: dict[str, int] = {}
        self.wrong: list[str] = []
        self.reads = 0
        self.slowest_read = 0.0
        self.slowest_write = 0.0
        self._server = server
        self._patient = patient
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(WRITERS + READERS)
        self._done = [self._pool.submit(self._run, self._write, number) for number in range(WRITERS)]
        self._done += [self._pool.submit(self._run, self._read, number) for number in range(READERS)]

    def finish(self) -> None:
        """Stop; every write must have taken effect once, and its answer tell the row that it left."""
        self._stop.set()
        for done in self._done:
            done.result(60)
        self._pool.shutdown()
        assert not self.wrong, self.wrong[:3]
        assert self._server.call("effects", app="grow", prefix=self.prefix) == dict.fromkeys(self.answers, 1)
        assert len(set(self.answers.values())) == len(self.answers) >= WRITERS

    def _run(self, step: Callable[[httpx.Client, str], float], client: int) -> None:
        number = 0
        with new_client() as http:
            while not self._stop.is_set() and not self.wrong:
                number += 1
                step(http, f"{self.prefix}-{client}-{number}")

    def _write(self, http: httpx.Client, key: str) -> None:
        took, response = self._post(http, "put", {"key": key}, {"Idempotency-Key": key})
        self.slowest_write = max(self.slowest_write, took)
        if response is not None:
            self.answers[key] = response.json()

    def _read(self, http: httpx.Client, key: str) -> None:
        took, response = self._post(http, "effects", {"prefix": "nothing"}, {})
        self.slowest_read = max(self.slowest_read, took)
        self.reads += response is not None

    def _post(self, http, function, arguments, headers) -> tuple[float, httpx.Response | None]:
        began = time.monotonic()
        while True:
            try:
                response = http.post(f"{self._server.url}/apps/grow/{function}", json=arguments, headers=headers)
            except httpx.TransportError as error:
                if self._patient and time.monotonic() < began + 30:
                    time.sleep(0.02)
                    continue
                self.wrong.append(f"{function}: {error!r}")
                return 0.0, None
            if response.status_code == 200:
                return time.monotonic() - began, response
            self.wrong.append(f"{function}: {response.text}")
            return 0.0, None


class Grow:
    """A server with the first version of the app, and what the tests do with it."""

    def __init__(self, server, tools, folder) -> None:
        self.server = server
        self.tools = tools
        self.folder = folder
        self._pool = ThreadPoolExecutor(2)
        self.old = self.deploy(files("old")).json()["version"]

    def deploy(self, content: dict[str, str]) -> httpx.Response:
        return self.server.deploy(self.tools.write_app(self.folder, content))

    def deploying(self, content: dict[str, str]) -> "Future[httpx.Response]":
        """Begin to deploy; returns when the new host migrates."""
        done = self._pool.submit(self.deploy, content)
        self.tools.eventually(lambda: self.migrating() or done.done(), what="the new host migrates")
        assert not done.done(), done.result().text
        return done

    def migrating(self) -> int | None:
        """The process that migrates."""
        return next((host["pid"] for host in self.server.hosts("grow") if host["state"] == "migrating"), None)

    def call(self, function: str, **arguments):
        return self.server.call(function, app="grow", **arguments)

    def state(self) -> tuple[str, bool]:
        """Which version answers, and whether the schema is the new one. The old one never wrote to that."""
        late = (
            "select * from apiary_calls where kind = 'transaction' and version = ? "
            "and started > (select applied from apiary_migrations where name like '002%')"
        )
        assert not rows(self.server.data / "grow.db", late, self.old)
        return self.call("version"), "added" in self.call("columns")

    def registered(self) -> list[bool]:
        """For each version that is kept, whether it serves."""
        return [version["active"] for version in self.server.http.get("/api/v1/apps/grow/versions").json()]

    def applied(self) -> int:
        """How many migrations the database has, asked past the server."""
        return applied(self.server)


class Locked:
    """Holds the write lock of a database, so that nothing can be committed to it meanwhile."""

    def __init__(self, path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> None:
        self._connection.execute("begin immediate")

    def __exit__(self, *error: object) -> None:
        self._connection.close()


@pytest.fixture
def grow(new_server, tools, tmp_path):
    return Grow(new_server("--anonymous-calls"), tools, tmp_path / "app")


def test_no_request_fails_while_a_deploy_migrates_for_seconds(grow):
    load = Load(grow.server, "load")
    deployed = grow.deploying(files("new", long_migration(3)))
    assert grow.call("version") == "old"
    assert grow.migrating()
    before = load.reads
    response = deployed.result()
    assert (response.status_code, response.json()["migrations"]) == (201, ["002-bigger.sql"])
    load.finish()
    assert load.reads > before + 10
    assert load.slowest_write > 1.5
    assert load.slowest_read < 1.5
    assert grow.state() == ("new", True)
    assert grow.registered() == [True, False]


def test_a_long_migration_is_told_by_the_server_and_to_who_deploys(grow, tools):
    app = tools.write_app(grow.folder, files("new", long_migration(3)))
    command = [sys.executable, "-m", "apiary", "deploy", str(app), "--url", grow.server.url, "--key", tools.KEY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    version = json.loads(done.stdout)["version"]
    applies = f"grow {version} applies 002-bigger.sql; calls that write wait until that is done"
    assert f"{applies} (" in done.stderr
    assert applies in grow.server.text()
    assert f"grow {version} serves; applied: 002-bigger.sql" in grow.server.text()


def test_no_request_fails_where_a_long_migration_is_refused(grow):
    load = Load(grow.server, "load")
    response = grow.deploying(files("new", long_migration(2, "insert into missing values (1);"))).result()
    assert (response.status_code, response.json()["code"]) == (422, "migration_refused")
    load.finish()
    assert load.slowest_write > 1
    assert grow.state() == ("old", False)
    assert grow.registered() == [True]
    assert grow.deploy(files("new", BIGGER)).status_code == 201
    assert grow.state() == ("new", True)


@pytest.fixture
def end(tmp_path):
    """A file for which `put_after` waits."""
    return tmp_path / "end"


@pytest.mark.parametrize("migration", [None, pytest.param(BIGGER, marks=pytest.mark.soak)])
def test_a_transaction_that_runs_when_the_deploy_begins_ends_on_its_version(grow, tools, end, migration):
    """Also without migrations: else the two hosts would wait for each other at the lock of the database."""
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(grow.call, "put_after", key="slow", until=str(end))
        tools.eventually(lambda: grow.server.hosts("grow")[0]["in_flight"] == 1)
        load = Load(grow.server, "load")
        deployed = pool.submit(grow.deploy, files("new", migration))
        tools.eventually(lambda: grow.server.hosts("grow")[0]["held"])
        before = load.reads
        threading.Event().wait(2)  # longer than the others may wait
        assert grow.call("version") == "old"
        assert not deployed.done()
        end.touch()
        assert deployed.result().status_code == 201
        assert slow.result() == "old"
        load.finish()
    assert load.reads > before + 10
    assert load.slowest_write > 1.5
    assert grow.state() == ("new", migration is not None)


def test_who_deploys_is_told_that_a_transaction_is_waited_for(grow, tools, end):
    app = tools.write_app(grow.folder, files("new"))
    command = [sys.executable, "-m", "apiary", "deploy", str(app), "--url", grow.server.url, "--key", tools.KEY]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(grow.call, "put_after", key="slow", until=str(end))
        tools.eventually(lambda: grow.server.hosts("grow")[0]["in_flight"] == 1)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as deploying:
            told = f"grow {grow.old} ends the transactions that run; calls that write wait for that\n"
            assert deploying.stderr.readline() == told
            end.touch()
            deploying.communicate(timeout=60)
        assert (deploying.returncode, slow.result()) == (0, "old")


def test_an_action_of_a_version_before_the_last_ends_before_the_migration(grow, tools, tmp_path):
    effects = tmp_path / "effects"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(grow.call, "act", path=str(effects), seconds=0.9)
        tools.eventually(effects.exists)
        assert grow.deploy(files("middle")).status_code == 201
        assert {host["state"] for host in grow.server.hosts("grow")} == {"serving", "draining"}
        assert grow.deploy(files("new", BIGGER)).status_code == 201
        assert slow.result() == "old"
    assert effects.read_text() == "start\nend\n"
    assert grow.state() == ("new", True)


@pytest.mark.soak
def test_an_action_of_the_version_before_is_recorded_however_long_the_new_one_writes(grow, tools, tmp_path, end):
    effects = tmp_path / "effects"
    with ThreadPoolExecutor(2) as pool:
        action = pool.submit(grow.call, "act", path=str(effects), seconds=0.9)
        tools.eventually(effects.exists)
        assert grow.deploy(files("new")).status_code == 201
        slow = pool.submit(grow.call, "put_after", key="slow", until=str(end))
        tools.eventually(lambda: effects.read_text() == "start\nend\n")
        threading.Event().wait(14)  # longer than an action may take, and than anything waits for the lock at once
        assert not action.done()
        end.touch()
        assert (action.result(), slow.result()) == ("old", "new")
    assert effects.read_text() == "start\nend\n"
    calls = grow.server.http.get("/api/v1/calls", params={"app": "grow", "function": "act"}).json()
    assert [(call["status"], call["attempt"]) for call in calls] == [("ok", 1)]
    tools.eventually(lambda: len(grow.server.hosts("grow")) == 1)


def test_calls_that_waited_together_are_not_refused_for_waiting_for_each_other(grow):
    """Together they take seconds, each may wait for half a second."""
    keys = [f"crowd-{number}" for number in range(200)]

    def put(key: str) -> int:
        return http.post("/apps/grow/put_slowly", json={"key": key}, headers={"Idempotency-Key": key}).status_code

    deployed = grow.deploying(files("new", long_migration(2)))
    limits = httpx.Limits(max_connections=len(keys))
    with new_client(base_url=grow.server.url, limits=limits) as http, ThreadPoolExecutor(200) as pool:
        statuses = Counter(pool.map(put, keys))
    assert deployed.result().status_code == 201
    assert statuses == {200: len(keys)}
    assert grow.call("effects", prefix="crowd") == dict.fromkeys(keys, 1)


def test_an_action_and_a_queue_outlive_the_deploy(grow, tools, tmp_path):
    effects = tmp_path / "effects"
    with ThreadPoolExecutor(2) as pool:
        grow.call("put_later", key="queued", count=300)
        early = pool.submit(grow.call, "act", path=str(effects), seconds=0.9)
        tools.eventually(lambda: effects.exists() and effects.read_text() == "start\n")
        deployed = grow.deploying(files("new", long_migration(3)))
        late = pool.submit(grow.call, "act", path=str(effects), seconds=0)
        assert deployed.result().status_code == 201
        assert early.result() == "old"
        assert late.result() == "new"
    assert Counter(effects.read_text().split()) == {"start": 2, "end": 2}
    calls = grow.server.http.get("/api/v1/calls", params={"app": "grow", "function": "act"}).json()
    assert [call["status"] for call in calls] == ["ok", "ok"]
    expected = {f"queued-{number}": 1 for number in range(300)}
    tools.eventually(lambda: grow.call("effects", prefix="queued") == expected)
    tools.eventually(lambda: len(grow.server.hosts("grow")) == 1)


def test_a_long_migration_holds_up_no_other_app(grow, tools, tmp_path):
    other = files("other", BIGGER)
    other["grow.py"] = other["grow.py"].replace('App("grow")', 'App("other")')
    deployed = grow.deploying(files("new", long_migration(60)))
    first = grow.server.deployed(tools.write_app(tmp_path / "other", other))
    assert first["migrations"] == ["001-tables.sql", "002-bigger.sql"]
    other["grow.py"] += "\n"
    grow.server.deployed(tools.write_app(tmp_path / "other", other))
    back = grow.server.http.post("/api/v1/apps/other/rollback")
    assert (back.status_code, back.json()["version"]) == (200, first["version"])
    assert grow.server.call("put", app="other", key="x") == 1
    os.kill(grow.migrating(), signal.SIGKILL)
    assert deployed.result().status_code == 422


def test_a_new_host_that_is_killed_in_the_migration_leaves_all_as_it_was(grow):
    load = Load(grow.server, "load")
    deployed = grow.deploying(files("new", long_migration(20)))
    os.kill(grow.migrating(), signal.SIGKILL)
    response = deployed.result()
    assert (response.status_code, response.json()["code"]) == (422, "bundle_refused")
    load.finish()
    assert grow.state() == ("old", False)
    assert grow.registered() == [True]
    assert grow.deploy(files("new", BIGGER)).status_code == 201


def test_a_new_host_that_is_killed_after_the_migration_is_replaced(grow, tools):
    """The registry is locked meanwhile, so that nothing comes between."""
    deployed = grow.deploying(files("new", long_migration(1)))
    host = grow.migrating()
    with Locked(grow.server.data / "_platform.db"):
        tools.eventually(lambda: grow.applied() == 2)
        os.kill(host, signal.SIGKILL)
    assert deployed.result().status_code == 201
    assert grow.state() == ("new", True)
    assert grow.registered() == [True, False]


def test_an_old_host_that_is_killed_while_it_is_held_is_replaced(grow, tools):
    load = Load(grow.server, "load")
    deployed = grow.deploying(files("new", long_migration(3)))
    host = grow.server.host("grow")
    os.kill(host, signal.SIGKILL)
    tools.eventually(lambda: grow.server.host("grow") != host)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(grow.call, "put", key="late")
        assert grow.call("version") == "old"
        assert grow.migrating()
        assert deployed.result().status_code == 201
        assert late.result()
    load.finish()
    assert grow.state() == ("new", True)


def test_an_old_host_that_is_killed_before_the_migration_is_refused_is_replaced(grow):
    load = Load(grow.server, "load")
    deployed = grow.deploying(files("new", long_migration(2, "insert into missing values (1);")))
    os.kill(grow.server.host("grow"), signal.SIGKILL)
    assert deployed.result().json()["code"] == "migration_refused"
    load.finish()
    assert grow.state() == ("old", False)


def restarted(grow) -> None:
    grow.server.kill()
    grow.server.start()


def test_a_server_that_is_killed_in_the_migration_forgets_the_deployment(grow):
    load = Load(grow.server, "load", patient=True)
    deployed = grow.deploying(files("new", long_migration(20)))
    restarted(grow)
    with pytest.raises(httpx.TransportError):
        deployed.result()
    load.finish()
    assert grow.state() == ("old", False)
    assert grow.registered() == [True]
    restarted(grow)
    assert grow.state() == ("old", False)
    assert grow.deploy(files("new", BIGGER)).status_code == 201
    assert grow.state() == ("new", True)


def test_a_server_that_is_killed_after_the_migration_completes_the_deployment(grow, tools):
    load = Load(grow.server, "load", patient=True)
    deployed = grow.deploying(files("new", long_migration(1)))
    with Locked(grow.server.data / "_platform.db"):
        tools.eventually(lambda: grow.applied() == 2)
        grow.server.kill()
    grow.server.start()
    with pytest.raises(httpx.TransportError):
        deployed.result()
    load.finish()
    assert grow.state() == ("new", True)
    assert grow.registered() == [True, False]


def test_a_first_deploy_is_completed_or_forgotten_like_any_other(new_server, tools, tmp_path):
    server = new_server("--anonymous-calls")
    for seconds, kept in ((20, False), (1, True)):
        content = files("first")
        content["migrations/001-tables.sql"] = TABLES + COUNT.replace("{steps}", str(seconds * STEPS_A_SECOND))
        path = tools.write_app(tmp_path / "app", content)
        with ThreadPoolExecutor(1) as pool:
            deployed = pool.submit(server.deploy, path)
            tools.eventually(lambda: rows(server.data / "_platform.db", "select * from deployments"))
            with Locked(server.data / "_platform.db"):
                if kept:
                    tools.eventually(lambda: applied(server) == 1)
                server.kill()
            with pytest.raises(httpx.TransportError):
                deployed.result()
        server.start()
        assert server.post("version", app="grow").status_code == (200 if kept else 404)


def test_a_rollback_behind_a_migration_lasts(grow):
    grow.deploy(files("new", BIGGER))
    assert grow.server.http.post("/api/v1/apps/grow/rollback").status_code == 200
    for _ in range(2):
        assert (grow.call("version"), "added" in grow.call("columns")) == ("old", True)
        assert grow.call("put", key="x-1")
        restarted(grow)
    assert grow.registered() == [True, False]


def test_a_backup_at_any_moment_of_a_deploy_has_the_schema_of_its_code(grow, tools, tmp_path):
    copies = []

    def backup() -> None:
        content = grow.server.http.get("/api/v1/backup").content
        copies.append(tmp_path / f"backup-{len(copies)}.tar")
        copies[-1].write_bytes(content)

    deployed = grow.deploying(files("new", long_migration(1)))
    backup()
    with Locked(grow.server.data / "_platform.db"):
        tools.eventually(lambda: grow.applied() == 2)
        backup()
    assert deployed.result().status_code == 201
    backup()
    for copy, expected in zip(copies, (("old", False), ("new", True), ("new", True)), strict=True):
        folder = tmp_path / copy.stem
        with tarfile.open(copy) as archive:
            archive.extractall(folder / "data", filter="data")
        server = tools.Server(folder, "--anonymous-calls").start()
        try:
            found = server.call("version", app="grow"), "added" in server.call("columns", app="grow")
            assert found == expected
        finally:
            server.end()
