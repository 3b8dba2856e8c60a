"""Two servers on one database of PostgreSQL, an app for them, and clients that call it through both."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

APP = """
import os
import time
from pathlib import Path
from apiary import App, Transaction, Workflow

app = App("grow")
WANTED


@app.query(timeout=60)
def version(tx: Transaction) -> str:
    return "VERSION"


@app.transaction(timeout=60)
def put(tx: Transaction, key: str, seconds: float = 0) -> int:
    time.sleep(seconds)
    return tx.execute("insert into effects (key) values (:key) returning id", key=key).scalar()


@app.transaction(timeout=60)
def put_later(tx: Transaction, key: str, count: int) -> None:
    for number in range(count):
        tx.enqueue(put, f"{key}-{number}")


@app.transaction(timeout=60)
def act_later(tx: Transaction, path: str, prefix: str, count: int) -> None:
    for number in range(count):
        tx.enqueue(act, path, f"{prefix}-{number}")


@app.action(timeout=60)
def act(path: str, line: str, seconds: float = 0) -> str:
    time.sleep(seconds)
    with Path(path).open("a") as file:
        file.write(line + "\\n")
    return line


@app.workflow
def order(wf: Workflow, key: str, path: str, seconds: float = 0) -> list[int]:
    first = wf.run(put, f"{key}-first")
    wf.run(act, path, key, seconds)
    return [first, wf.run(put, f"{key}-second")]


@app.workflow
def journey(wf: Workflow, key: str, path: str, seconds: float) -> list[int]:
    begun = wf.start(order, f"{key}-order", path)
    first = wf.run(put, f"{key}-first")
    wf.sleep(seconds)
    wf.run(act, path, key)
    return [first, *begun.result(), wf.run(put, f"{key}-last")]


@app.query(timeout=60)
def effects(tx: Transaction, prefix: str) -> dict[str, int]:
    rows = tx.execute("select key, count(*) from effects where key like :p || '-%' group by key", p=prefix)
    return {row[0]: row[1] for row in rows}


@app.query(timeout=60)
def columns(tx: Transaction) -> list[str]:
    return tx.execute(
        "select column_name from information_schema.columns where table_name = 'effects' and table_schema = 'grow'"
    ).scalars()
"""
TABLES = "create table effects (id bigint primary key generated always as identity, key text not null);"
PACE_SECONDS = 0.01
WRITERS, READERS = 2, 1
"""Clients of each server."""
PATIENCE_SECONDS = 60.0


class Load:
    """Clients that write and read through several servers all the time; every answer must be 200.

    Every write has a key of its own. `patient`: what got no answer is sent to another server, with the same key.
    `outage`: the database itself is away for a while, and what is answered with 503 is sent again.
    """

    def __init__(self, servers: Sequence[Any], prefix: str, *, patient: bool = False, outage: bool = False) -> None:
        self.prefix = prefix
        self.answers: dict[str, int] = {}
        self.wrong: list[str] = []
        self.slowest_write = 0.0
        self.reads = 0
        self._urls = [server.url for server in servers]
        self._patient = patient
        self._outage = outage
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor((WRITERS + READERS) * len(servers))
        clients = [(first, step) for first in range(len(servers)) for step in (self._write,) * WRITERS + (self._read,)]
        self._done = [self._pool.submit(self._run, step, first, number) for number, (first, step) in enumerate(clients)]

    def reach(self, writes: int) -> None:
        """Wait until so many writes more are answered."""
        wanted = len(self.answers) + writes
        end = time.monotonic() + PATIENCE_SECONDS
        while len(self.answers) < wanted and not self.wrong:
            assert time.monotonic() < end, f"no {writes} writes within {PATIENCE_SECONDS:g} s"
            time.sleep(0.01)

    def finish(self, server: Any) -> None:
        """Stop; every write must have taken effect once, and its answer tell the row that it left."""
        self._stop.set()
        for done in self._done:
            done.result(PATIENCE_SECONDS + 10)
        self._pool.shutdown()
        assert not self.wrong, "\n".join(self.wrong[:3])
        assert server.call("effects", app="grow", prefix=self.prefix) == dict.fromkeys(self.answers, 1)
        assert len(set(self.answers.values())) == len(self.answers) >= WRITERS

    def _run(self, step: Callable[[httpx.Client, int, str], None], first: int, client: int) -> None:
        number = 0
        with httpx.Client(timeout=PATIENCE_SECONDS) as http:
            while not self._stop.wait(PACE_SECONDS) and not self.wrong:
                number += 1
                step(http, first, f"{self.prefix}-{client}-{number}")

    def _write(self, http: httpx.Client, first: int, key: str) -> None:
        begun = time.monotonic()
        response = self._post(http, first, "put", {"key": key}, {"Idempotency-Key": key})
        self.slowest_write = max(self.slowest_write, time.monotonic() - begun)
        if response is not None:
            self.answers[key] = response.json()

    def _read(self, http: httpx.Client, first: int, key: str) -> None:
        self.reads += self._post(http, first, "effects", {"prefix": "nothing"}, {}) is not None

    def _post(
        self, http: httpx.Client, first: int, function: str, arguments: dict[str, str], headers: dict[str, str]
    ) -> httpx.Response | None:
        end = time.monotonic() + PATIENCE_SECONDS
        server = first
        while True:
            url = f"{self._urls[server]}/apps/grow/{function}"
            try:
                response = http.post(url, json=arguments, headers=headers)
            except httpx.TransportError as error:
                server = (server + 1) % len(self._urls)
                if self._patient and time.monotonic() < end:
                    continue
                self.wrong.append(f"{function}: {error!r}")
                return None
            if response.status_code == 200:
                return response
            if response.status_code == 503 and self._outage and time.monotonic() < end:
                continue
            self.wrong.append(f"{function}: {response.text}")
            return None


class Servers:
    """Servers on one database, each in a folder of its own, as if it had a machine of its own.

    `started[0]` and `started[1]` are `a` and `b`. Tests share them, and leave versions and migrations behind.
    """

    def __init__(self, folder: Path, database: str, tools: Any) -> None:
        self.tools = tools
        self.database = database
        self.started: list[Any] = []
        self._folder = folder
        self._migrations = {1: TABLES}

    @property
    def a(self) -> Any:
        return self.started[0]

    @property
    def b(self) -> Any:
        return self.started[1]

    def new(self, environment: dict[str, str] | None = None) -> Any:
        """A server that is not started."""
        folder = self._folder / f"server-{len(self.started)}"
        folder.mkdir()
        how = {"database": self.database, "environment": environment}
        self.started.append(self.tools.Server(folder, "--anonymous-calls", **how))
        return self.started[-1]

    def start(self) -> None:
        """Start those that do not run, all at the same time."""
        for server in self.started:
            self.signal(server, signal.SIGCONT)
        ended = [
            server for server in self.started if not hasattr(server, "process") or server.process.poll() is not None
        ]
        with ThreadPoolExecutor(len(self.started)) as pool:
            list(pool.map(lambda server: server.start(), ended))

    def app(self, version: str, migration: str | None = None, wanted: str = "") -> Path:
        """A version of the app, with the migrations that the database has and perhaps another one.

        `wanted`: a line of its module.
        """
        present = self.applied() or 1
        if migration is not None:
            self._migrations[present + 1] = f"alter table effects add column added_{present + 1} integer; {migration}"
        files = {"grow.py": APP.replace("VERSION", version).replace("WANTED", wanted)}
        for number in range(1, present + 1 + (migration is not None)):
            files[f"migrations/{number:03}-grow.sql"] = self._migrations[number]
        return Path(self.tools.write_app(self._folder / uuid.uuid4().hex, files))

    def applied(self) -> int:
        """How many migrations the database has, asked past the servers."""
        with psycopg.connect(self.database) as connection:
            there = connection.execute("select to_regclass('apiary_grow.migrations')").fetchone()
            if there is None or there[0] is None:
                return 0
            found = connection.execute("select count(*) from apiary_grow.migrations").fetchone()
            return int(found[0]) if found else 0

    def state(self) -> set[tuple[str, int]]:
        """Which version answers, and how many columns have been added, on all servers: one pair where they agree."""
        found = ((server.call("version", app="grow"), server.call("columns", app="grow")) for server in self.started)
        return {(version, sum(name.startswith("added_") for name in columns)) for version, columns in found}

    def signal(self, server: Any, number: signal.Signals) -> None:
        """Send a signal to a server and its hosts, as to a machine."""
        for process in self.tools.marked_processes(server.mark):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self, server: Any) -> None:
        """What becomes of a server whose machine loses its power."""
        self.signal(server, signal.SIGKILL)
        server.process.wait()

    def end(self) -> None:
        for server in self.started:
            self.signal(server, signal.SIGCONT)
        for server in self.started:
            server.end()


class Known:
    """What servers know of each other."""

    @staticmethod
    def servers(server: Any) -> dict[str, dict[str, Any]]:
        """The servers that one of them knows, by their addresses."""
        found = server.http.get("/api/v1/servers").json()
        return {each["description"].partition(",")[0]: each for each in found if each["lost"] is None}

    @classmethod
    def hosts(cls, server: Any, other: Any) -> list[str]:
        """The identities of the hosts of another server, as one of them knows it."""
        return [host["id"] for host in cls.servers(server)[other.url]["hosts"] if host["lost"] is None]


@contextmanager
def without_python(database: str) -> Iterator[str]:
    """The same database, for a role that may not make functions in Python: they run beside it, and start quickly."""
    with psycopg.connect(database, autocommit=True) as connection:
        name, role = connection.info.dbname, f"installer_{connection.info.dbname}"
        connection.execute(f"create role {role} login createrole password 'secret'")
        connection.execute(f"alter database {name} owner to {role}")
        try:
            yield f"postgresql://{role}:secret@/{name}?host={connection.info.host}&port={connection.info.port}"
        finally:
            connection.execute(f"alter database {name} owner to current_user")


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tools: Any,
    new_postgres_database: Callable[[], AbstractContextManager[str]],
) -> Iterator[Servers]:
    """Two servers that begin at the same time on an empty database; one of them is given the app.

    Functions run inside the database where the module of the tests says `INSIDE`.
    """
    with new_postgres_database() as database, ExitStack() as stack:
        url = database if request.module.INSIDE else stack.enter_context(without_python(database))
        servers = Servers(tmp_path_factory.mktemp("servers"), url, tools)
        try:
            servers.new(environment={"LUCKY": "1"})
            servers.new()
            servers.start()
            servers.a.deployed(servers.app("one"))
            yield servers
        finally:
            servers.end()


@pytest.fixture
def servers(shared: Servers) -> Servers:
    """The two servers; both run, and each serves."""
    shared.start()
    for server in shared.started:
        shared.tools.eventually(lambda server=server: server.post("version", app="grow").status_code == 200, 60)
        server.hosts("grow")
    return shared


@pytest.fixture(scope="session")
def known() -> type[Known]:
    """What servers know of each other."""
    return Known


@pytest.fixture(scope="session")
def load() -> type[Load]:
    """Clients that call all the time."""
    return Load
