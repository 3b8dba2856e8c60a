"""Versions follow one another while calls of all kinds run, and processes are killed: nothing is lost or done twice."""

import os
import random
import signal
import sqlite3
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest
from tests.service.conftest import new_client

APP = """
import time
from apiary import App, Transaction, Workflow

app = App("relay")


@app.transaction(timeout=5)
def put(tx: Transaction, key: str, nap: float = 0.0) -> str:
    time.sleep(nap)
    tx.execute("insert into effects (key) values (:key)", key=key)
    return key


@app.transaction
def put_later(tx: Transaction, key: str) -> str:
    tx.enqueue(put, key)
    return key


@app.action(timeout=5)
def outside(key: str) -> str:
    time.sleep(0.05)
    return key


@app.workflow
def flow(wf: Workflow, key: str) -> str:
    wf.run(put, key + "-first")
    wf.run(outside, key)
    wf.run(put, key + "-last")
    return key


@app.query
def count(tx: Transaction) -> int:
    return tx.execute("select count(*) from effects").scalar()
"""
TABLES = "create table effects (id integer primary key, key text not null);"
CLIENTS = 6
WAIT_SECONDS = 60


class Clients:
    """They call without a pause. Each call has a key, and must be answered with it, whatever happens meanwhile."""

    def __init__(self, server) -> None:
        self.wanted: list[str] = []
        self.wrong: list[str] = []
        self._server = server
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._done = [self._pool.submit(self._run, number) for number in range(CLIENTS)]

    def finish(self) -> None:
        self._stop.set()
        for done in self._done:
            done.result(2 * WAIT_SECONDS)
        self._pool.shutdown()

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        with new_client(base_url=self._server.url, timeout=WAIT_SECONDS) as http:
            while not self._stop.is_set():
                key = uuid.uuid4().hex
                function = chance.choice(["put", "put", "put_later", "flow", "outside", "count"])
                arguments = {} if function == "count" else {"key": key}
                if function == "put":
                    arguments["nap"] = chance.choice([0.0, 0.0, 0.02, 0.2])
                headers = {"Idempotency-Key": key} if arguments else {}
                response = http.post(f"/apps/relay/{function}", json=arguments, headers=headers)
                if response.status_code != 200:
                    self.wrong.append(f"{function}: {response.text}")
                elif function in ("put", "put_later"):
                    self.wanted.append(key)
                elif function == "flow":
                    self.wanted += [f"{key}-first", f"{key}-last"]


@pytest.mark.parametrize(
    ("deploys", "killing"),
    [(4, True), pytest.param(20, False, marks=pytest.mark.soak), pytest.param(20, True, marks=pytest.mark.soak)],
)
def test_nothing_is_lost_or_done_twice_while_versions_follow_one_another(new_server, tools, tmp_path, deploys, killing):
    server = new_server("--anonymous-calls")
    chance = random.Random(deploys)

    def deploy(number: int) -> None:
        content = {"relay.py": APP + f"# {number}\n", "migrations/001.sql": TABLES}
        server.deployed(tools.write_app(tmp_path / "app", content))

    def kill() -> None:
        """Any of the hosts, whatever it does: serve, be held, or end what it began."""
        threading.Event().wait(chance.uniform(0.0, 1.0))
        hosts = server.hosts("relay")
        if hosts:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(hosts)["pid"], signal.SIGKILL)

    deploy(0)
    clients = Clients(server)
    with ThreadPoolExecutor(1) as pool:
        for number in range(1, deploys + 1):
            killed = pool.submit(kill) if killing else None
            deploy(number)
            if killed is not None:
                killed.result()
    clients.finish()
    assert not clients.wrong, clients.wrong[:3]
    assert clients.wanted

    def rows(sql: str) -> list[tuple[str, int]]:
        with closing(sqlite3.connect(server.data / "relay.db")) as connection:
            return connection.execute(sql).fetchall()

    end = time.monotonic() + WAIT_SECONDS
    while rows("select id, 1 from apiary_queue"):
        assert time.monotonic() < end, "calls are left in the queue"
        time.sleep(0.05)
    assert dict(rows("select key, count(*) from effects group by key")) == dict.fromkeys(clients.wanted, 1)
