"""Hosts as the server sees them, in the process of the test, so that limits of a minute can be made short."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.service.conftest import WAIT_SECONDS

from apiary.bundle import make_bundle, unpack
from apiary.events import Event, Migrating
from apiary.platform import process
from apiary.platform.hosts import AppHosts
from apiary.platform.messages import Invoke, Start
from apiary.platform.migrating import MigrationUnknown, after_death
from apiary.platform.process import HostProcess
from apiary.platform.turns import Turn
from apiary.runtime.errors import BundleRefused
from apiary.runtime.ids import new_id

APP = """
import time
from apiary import App, Transaction

app = App("one")


@app.transaction(timeout=20)
def slow(tx: Transaction, seconds: float) -> int:
    time.sleep(seconds)
    return 1


@app.transaction(timeout=0.1)
def quick(tx: Transaction) -> int:
    return 2


@app.action(timeout=0.4)
def act() -> int:
    time.sleep(0.3)
    return 3


@app.action(timeout=20)
def act_long(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    time.sleep(2.0)
    with open(path) as file:
        return len(file.read())
"""
ENDLESS = "insert into t with recursive n (x) as (select 1 union all select x + 1 from n) select count(*) from n;"


@pytest.fixture
def start(tmp_path, tools) -> Start:
    """What a host is told that loads the app."""
    app = tools.write_app(tmp_path / "app", {"one.py": APP, "migrations/001-t.sql": "create table t (x integer);"})
    bundle = make_bundle(app)
    code = tmp_path / "code"
    unpack(bundle.content, code)
    return Start("one", "v", str(code), None, str(tmp_path), 0, True)


def invoke(function: str, arguments: bytes = b"{}", key: str | None = None) -> Invoke:
    return Invoke(new_id(), function, arguments, "tester", ("admin",), key=key)


async def make(app: str, start: Start) -> dict[str, str]:
    return {"kind": "sqlite", "path": f"{start.folder}/{app}.db"}


def hosts_of(start: Start, emit: Callable[[Event], None] = lambda event: None) -> AppHosts:
    async def load(app: str, version: str) -> HostProcess:
        host = HostProcess(version)
        await host.start(start, make)
        return host

    async def always(app: str) -> bool:
        return True

    async def keep(app: str) -> None:
        """Nobody else would run the queue."""

    async def publish(host: HostProcess) -> None:
        """Nobody else calls the app."""

    return AppHosts("one", load, Turn("one", always, keep), publish, emit, 100, one_writer=True)


def test_an_import_that_hangs_is_given_up(monkeypatch, tmp_path, tools):
    monkeypatch.setattr(process, "START_SECONDS", 0.5)
    folder = tools.write_app(tmp_path / "code", {"hangs.py": "import time\ntime.sleep(3600)\n"})
    start = Start("hangs", "v", str(folder), None, str(tmp_path), 0, True)

    async def begin() -> int:
        host = HostProcess("v")
        with pytest.raises(BundleRefused, match="load"):
            await host.start(start, make)
        await asyncio.wait_for(host.wait_for_end(), WAIT_SECONDS)
        return host.pid

    assert not os.path.exists(f"/proc/{asyncio.run(begin())}")


def test_a_migration_that_hangs_is_given_up(monkeypatch, start, tools):
    monkeypatch.setattr(process, "MIGRATE_SECONDS", 0.5)
    tools.write_app(Path(start.code), {"migrations/002-endless.sql": ENDLESS})

    async def migrate() -> None:
        hosts = hosts_of(start)
        with pytest.raises(BundleRefused, match="migrate"):
            await hosts.take_over(await hosts.load("v"), lambda host: asyncio.sleep(0))
        assert hosts.active is hosts.migrating is None
        await hosts.close()

    asyncio.run(migrate())


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_a_server_that_stops_waits_for_no_migration(start, how):
    async def migrate() -> None:
        migrating = asyncio.Event()
        hosts = hosts_of(start, lambda event: migrating.set() if isinstance(event, Migrating) else None)
        await hosts.switch(await hosts.start("v"))
        Path(start.code, "migrations/002-endless.sql").write_text(ENDLESS)
        new = await hosts.load("v")
        taking = asyncio.ensure_future(hosts.take_over(new, lambda host: asyncio.sleep(0)))
        await asyncio.wait_for(migrating.wait(), WAIT_SECONDS)
        quick = hosts.call(invoke("quick"))
        if how == "cancel":
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(taking, WAIT_SECONDS)
            assert (await asyncio.wait_for(quick, WAIT_SECONDS)).output == b"2"
        await asyncio.wait_for(hosts.close(), WAIT_SECONDS)
        if how == "close":
            with pytest.raises(MigrationUnknown, match="the server is stopping"):
                await asyncio.wait_for(taking, WAIT_SECONDS)
            assert (await asyncio.wait_for(quick, WAIT_SECONDS)).output == b"2" or b"stopping" in quick.result().error
        assert new.ended

    asyncio.run(migrate())


def test_a_host_that_died_after_its_commit_had_migrated(start):
    """The answer can be lost when the migrations are not."""

    async def migrate() -> None:
        hosts = hosts_of(start)
        host = await hosts.load("v")
        assert host.pending == ("001-t.sql",)
        await host.migrate()
        host.kill("of the test")
        await host.wait_for_end()
        other = await after_death(host, hosts.load)
        assert other.migrated == host.pending
        assert other.pending == ()
        await other.stop()

    asyncio.run(migrate())


def test_a_host_is_not_silent_as_long_as_it_runs_what_it_may(monkeypatch, start):
    """A call that waits behind another one, for longer than itself may, is no reason to kill both."""
    monkeypatch.setattr(process, "PATIENCE_SECONDS", 0.6)

    async def call() -> None:
        hosts = hosts_of(start)
        await hosts.switch(await hosts.start("v"))
        host = hosts.active
        slow = hosts.call(invoke("slow", b'{"seconds": 2}'))
        quick = hosts.call(invoke("quick"))
        assert (await asyncio.wait_for(slow, WAIT_SECONDS)).output == b"1"
        await asyncio.wait_for(quick, WAIT_SECONDS)
        assert hosts.active is host
        assert not host.ended
        await hosts.close()

    asyncio.run(call())


def test_a_host_that_is_silent_is_replaced(monkeypatch, start):
    monkeypatch.setattr(process, "PATIENCE_SECONDS", 0.6)

    async def call() -> None:
        hosts = hosts_of(start)
        await hosts.switch(await hosts.start("v"))
        stopped = hosts.active
        os.kill(stopped.pid, signal.SIGSTOP)
        quick = hosts.call(invoke("quick"))
        assert (await asyncio.wait_for(quick, WAIT_SECONDS)).output == b"2"
        assert stopped.ended
        await hosts.close()

    asyncio.run(call())


@pytest.mark.parametrize("moment", ["before the hold", "in the hold"])
def test_a_host_that_is_silent_holds_no_deploy_up(monkeypatch, start, tools, moment):
    for limit in ("PATIENCE_SECONDS", "HOLD_SECONDS"):
        monkeypatch.setattr(process, limit, 0.6)

    async def call() -> None:
        hosts = hosts_of(start)
        await hosts.switch(await hosts.start("v"))
        old = hosts.active
        old._longest = 0.0
        tools.write_app(Path(start.code), {"migrations/002-more.sql": "create table more (x integer);"})
        new = await hosts.load("v")

        async def activate(host: HostProcess) -> None:
            if moment == "in the hold":
                os.kill(old.pid, signal.SIGSTOP)

        if moment == "before the hold":
            os.kill(old.pid, signal.SIGSTOP)
        taking = asyncio.ensure_future(hosts.take_over(new, activate))
        quick = hosts.call(invoke("quick"))
        assert await asyncio.wait_for(taking, WAIT_SECONDS) == ("002-more.sql",)
        assert (await asyncio.wait_for(quick, WAIT_SECONDS)).output == b"2"
        assert hosts.active is new
        await asyncio.wait_for(asyncio.gather(old.wait_for_end(), *hosts._tasks), WAIT_SECONDS)
        await hosts.close()

    asyncio.run(call())


def test_who_serves_no_more_has_time_to_record_what_it_ran(monkeypatch, start, tools):
    """Another process may write for longer than the action may take; the host of that is not silent meanwhile."""
    monkeypatch.setattr(process, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)

    async def replace() -> None:
        hosts = hosts_of(start)
        await hosts.switch(await hosts.start("v"))
        old, new, message = hosts.active, await hosts.load("v"), invoke("act")
        action = hosts.call(message)
        await asyncio.to_thread(tools.eventually, old.running)
        await hosts.switch(new)
        with closing(sqlite3.connect(Path(start.folder, "one.db"), isolation_level=None)) as other:
            other.execute("begin immediate")
            done, _ = await asyncio.wait({action}, timeout=2.0)
            assert not done
        assert (await asyncio.wait_for(action, WAIT_SECONDS)).output == b"3"
        assert message.attempt == 1
        await asyncio.wait_for(old.wait_for_end(), WAIT_SECONDS)
        assert old.reason == "it exited with status 0"
        await hosts.close()

    asyncio.run(replace())


def test_an_action_that_outlives_its_version_is_not_run_beside_itself(start, tmp_path, tools):
    async def replace() -> None:
        hosts = hosts_of(start)
        await hosts.switch(await hosts.start("v"))
        old, new, ran = hosts.active, await hosts.load("v"), tmp_path / "ran"
        body = json.dumps({"path": str(ran)}).encode()
        first = hosts.call(invoke("act_long", body, key="k"))
        await asyncio.to_thread(tools.eventually, ran.exists)
        await hosts.switch(new)
        again = hosts.call(invoke("act_long", body, key="k"))
        assert hosts.active is new
        assert old.in_flight
        answers = await asyncio.wait_for(asyncio.gather(first, again), WAIT_SECONDS)
        assert [answer.output for answer in answers] == [b"1", b"1"]
        assert ran.read_text() == "x"
        await hosts.close()

    asyncio.run(replace())


def test_a_keyed_action_that_nobody_waits_for_any_more_holds_up_no_repetition(start, tmp_path, tools):
    async def replace() -> None:
        hosts = hosts_of(start)
        await hosts.switch(await hosts.start("v"))
        old, new, ran = hosts.active, await hosts.load("v"), tmp_path / "ran"
        body = json.dumps({"path": str(ran)}).encode()
        first = hosts.call(invoke("act_long", body, key="k"))
        await asyncio.to_thread(tools.eventually, ran.exists)
        await hosts.switch(new)
        first.cancel()
        again = hosts.call(invoke("act_long", body, key="k"))
        assert old.in_flight
        assert [flight.answer for flight in new.in_flight.values()] == [again]
        assert (await asyncio.wait_for(again, WAIT_SECONDS)).error is None
        await hosts.close()

    asyncio.run(replace())


def test_a_deploy_that_nobody_waits_for_leaves_no_hold(start, tools):
    async def replace() -> None:
        hosts = hosts_of(start)
        await hosts.switch(await hosts.start("v"))
        old = hosts.active
        new = await hosts.load("v")
        slow = hosts.call(invoke("slow", b'{"seconds": 1}'))
        taking = asyncio.ensure_future(hosts.take_over(new, lambda host: asyncio.sleep(0)))
        await asyncio.to_thread(tools.eventually, lambda: old.held)
        taking.cancel()
        quick = hosts.call(invoke("quick"))
        assert (await asyncio.wait_for(quick, WAIT_SECONDS)).output == b"2"
        assert slow.result().output == b"1"
        assert hosts.active is new
        await hosts.close()

    asyncio.run(replace())


def test_a_host_that_dies_as_soon_as_it_serves_is_replaced_by_one_other(start, tools):
    async def replace() -> int:
        started: list[str] = []
        hosts = hosts_of(start)
        load, serve = hosts._load, hosts._serve

        async def counted(app: str, version: str) -> HostProcess:
            started.append(version)
            return await load(app, version)

        def serve_and_die(host: HostProcess) -> HostProcess | None:
            if len(started) < 4:
                host.kill("the test wants it")
            return serve(host)

        hosts._load, hosts._serve = counted, serve_and_die
        hosts.version = "v"
        hosts.keep_trying("v")
        await asyncio.to_thread(tools.eventually, lambda: len(started) >= 4 and hosts.active, WAIT_SECONDS)
        assert (await hosts.call(invoke("quick"))).output == b"2"
        await hosts.close()
        return len(started)

    assert asyncio.run(replace()) == 4
