"""Crashes: what was acknowledged is there, once; nothing is there by half; the rest can be asked for again."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from tests.core import child

import apiary
from apiary import Transaction
from apiary.engine import backlog, table

CHILD = Path(child.__file__)
ENDLESS = 1_000_000


@pytest.fixture
def world(tmp_path):
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "001.sql").write_text(child.TABLES)
    return tmp_path


def start(world: Path, worker: str, keys: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(world / "app.db"), str(world / "outside"), worker, str(keys)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def reopen(world: Path) -> apiary.OpenApp:
    return apiary.open(child.make_app(world / "outside"), f"sqlite:///{world}/app.db")


def check(world: Path, opened: apiary.OpenApp, acknowledged: list[list[object]]) -> None:
    """Every acknowledged call is there exactly once and answers as it did; the books are balanced."""
    opened.drain()
    before = opened.call("state")
    for function, key, cents, outcome in acknowledged:
        assert json.loads(json.dumps(child.call(opened, function, key, cents))) == outcome
    opened.drain()
    after = opened.call("state")
    assert after == before
    entries = dict(after["entries"])
    assert set(entries.values()) <= {0}
    assert sum(cents for _, cents in after["accounts"]) == 2000
    for function, key, _, _ in acknowledged:
        assert (key in entries) == (function in ("move", "leave"))
    left = {key for key in entries if key.endswith("leave")}
    outside = (world / "outside").read_text().split() if (world / "outside").exists() else []
    assert {key for (key,) in after["sent"]} == left <= set(outside)
    log = dict(
        opened.engine._connection.execute("select key, count(*) from apiary_calls where key is not null group by key")
    )
    assert set(log.values()) <= {1}
    assert set(entries) <= set(log)


def test_two_processes_on_one_database_agree(world):
    processes = [start(world, "same", 90) for _ in range(2)]
    for process in processes:
        go(process)
    outcomes = []
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        outcomes.append(sorted(map(json.loads, out.splitlines())))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 90
    with reopen(world) as opened:
        check(world, opened, outcomes[0])


def test_a_process_that_is_killed_again_and_again_loses_nothing(world):
    chance = random.Random(7)
    acknowledged: list[list[object]] = []
    for round_ in range(5):
        process = start(world, f"r{round_}-", ENDLESS)
        go(process)
        for _ in range(chance.randrange(1, 120)):
            acknowledged.append(json.loads(process.stdout.readline()))
        process.kill()
        rest = process.stdout.read()
        acknowledged += map(json.loads, rest.splitlines(keepends=False)[: rest.count("\n")])
        process.wait()
        process.stdin.close()
        process.stdout.close()
    with reopen(world) as opened:
        check(world, opened, acknowledged)


# Faults of the database at any statement


@pytest.fixture
def connections(monkeypatch):
    """The connections of the engines that are opened in this test, the writers marked by `synchronous = normal`."""
    made: list[apsw.Connection] = []
    from apiary.engine.sqlite import engine

    original = engine.connect

    def connect(*args, **kwargs):
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(engine, "connect", connect)
    return made


class Fault:
    """Raises an error before the n-th statement of a connection; `ended`: as SQLite does, after it has rolled back."""

    def __init__(self, connection: apsw.Connection, number: int, error: type[Exception], ended: bool) -> None:
        self.connection, self.left, self.error, self.ended = connection, number, error, ended
        connection.exec_trace = self

    def __call__(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        self.left -= 1
        if self.left == 0:
            if self.ended and self.connection.in_transaction:
                self.connection.exec_trace = None
                self.connection.execute("rollback")
                self.connection.exec_trace = self
            raise self.error("injected")
        return True


PROGRAM = [
    ("move", '{"key": "m", "cents": 1}'),
    ("refuse", '{"key": "r", "cents": 2}'),
    ("leave", '{"key": "l", "cents": 3}'),
    ("act", '{"key": "x", "cents": 4}'),
]


def one_fault(world, platform, connections, number, error, ended) -> bool:
    """Run the program with a fault at one statement, and check everything; false where there is no such statement."""
    for file in (*world.glob("app.db*"), *world.glob("outside")):
        file.unlink()
    connections.clear()
    with reopen(world) as opened:
        calls = platform(opened)
        writer = next(one for one in connections if one.pragma("synchronous") == 1)
        fault = Fault(writer, number, error, ended)
        pending = [calls.submit(function, body, key=function) for function, body in PROGRAM]
        first = [one.outcome() for one in pending]
        opened.drain()
        writer.exec_trace = None
        for (function, body), one in zip(PROGRAM, first, strict=True):
            expected = "rejected" if function == "refuse" else "ok"
            code = (one.error or {"code": "ok"})["code"]
            assert code in (expected, "database_unavailable"), (function, one.error)
            again = calls.run(function, body, key=function)
            assert (again.error or {"code": "ok"})["code"] == expected
            if code == expected:
                assert (one.output, one.error, True) == (again.output, again.error, bool(again.replayed))
        opened.drain()
        state = opened.call("state")
        assert state["accounts"] == [["a", 996], ["b", 1004]]
        assert state["entries"] == [["l", 0], ["m", 0]]
        assert state["sent"] == [["l"]]
    return fault.left <= 0


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (apsw.IOError, False),
        (apsw.FullError, True),
        pytest.param(apsw.IOError, True, marks=pytest.mark.soak),
        pytest.param(apsw.BusyError, False, marks=pytest.mark.soak),
        pytest.param(apsw.CorruptError, False, marks=pytest.mark.soak),
    ],
)
def test_a_fault_at_any_statement_keeps_all_or_nothing_of_each_call(
    world, platform, connections, monkeypatch, error, ended
):
    monkeypatch.setattr(table, "RETRY_SECONDS", 0.001)
    number = 1
    while one_fault(world, platform, connections, number, error, ended):
        number += 1
    assert number > 20


def test_a_full_disk_refuses_what_does_not_fit_and_nothing_else(make_app, sqlite_app, platform, connections):
    app = make_app("create table blobs (id integer primary key, content blob)")

    @app.transaction
    def put(tx: Transaction, id: int, size: int) -> int:
        tx.execute("insert into blobs (id, content) values (:id, zeroblob(:size))", id=id, size=size)
        return id

    @app.transaction
    def put_stubbornly(tx: Transaction, id: int, size: int) -> int:
        for _ in range(3):
            try:
                put(tx, id, size)
            except Exception:  # noqa: BLE001 - the point
                pass
        tx.execute("insert into blobs (id) values (:id)", id=id + 1000)
        return id

    @app.query
    def ids(tx: Transaction) -> list[int]:
        return tx.execute("select id from blobs order by id").scalars()

    opened = sqlite_app(app)
    calls = platform(opened)

    def leave_room(pages: int) -> None:
        """For so many pages more than there are. Meanwhile nothing uses the connection."""
        opened._dispatcher.hold(lambda call: None)
        writer = next(one for one in connections if one.pragma("synchronous") == 1)
        writer.pragma("max_page_count", writer.pragma("page_count") + pages)
        opened._dispatcher.resume()

    opened.call("put", 0, 10)
    leave_room(30)
    pending = []
    for number in range(1, 21):
        function, size = [("put", 10), ("put", 1_000_000), ("put_stubbornly", 1_000_000), ("put", 20)][number % 4]
        pending.append(
            (number, size, calls.submit(function, json.dumps({"id": number, "size": size}), key=f"k{number}"))
        )
    for _, size, one in pending:
        outcome = one.outcome()
        assert (outcome.error or {"status": 200})["status"] == (200 if size < 100 else 503)
    assert opened.call("ids") == [0] + [number for number, size, _ in pending if size < 100]
    leave_room(30_000)
    for number, size, one in pending:
        again = calls.run(one.call.function, one.call.input, key=f"k{number}")
        assert again.error is None
        assert bool(again.replayed) == (size < 100)
    assert [id for id in opened.call("ids") if id < 1000] == list(range(21))


def test_a_disk_that_does_not_sync_makes_no_promises(world, platform, monkeypatch):
    original = os.fdatasync
    broken = False

    def fdatasync(descriptor):
        if broken:
            raise OSError(5, "Input/output error")
        original(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with reopen(world) as opened:
        calls = platform(opened)
        assert calls.run("move", '{"key": "1", "cents": 1}').error is None
        broken = True
        outcome = calls.run("move", '{"key": "2", "cents": 1}')
        assert outcome.error["status"] == 503
        assert "may or may not" in outcome.error["detail"]
        broken = False
        later = calls.run("move", '{"key": "3", "cents": 1}')  # a second sync says nothing of what the first one lost
        assert later.error["status"] == 503
        assert calls.run("act", '{"key": "x", "cents": 1}').error["status"] == 503


def test_what_a_process_before_left_in_the_log_is_written_again(world):
    """Its last sync may have failed, and then only the memory of the system has it, whatever a later sync says."""
    process = start(world, "same", ENDLESS)
    go(process)
    lines = [process.stdout.readline() for _ in range(20)]
    process.kill()
    process.communicate()
    assert all(lines)
    with reopen(world):
        copy = world / "copy.db"
        copy.write_bytes((world / "app.db").read_bytes())
        found = apsw.Connection(str(copy)).execute("select count(*) from apiary_calls").get
    assert found >= 20


def test_a_queue_that_cannot_be_read_is_read_later(make_app, sqlite_app, monkeypatch):
    """Whoever looks into it lives on: the threads that run calls do, and so does what wakes them."""
    app = make_app("create table done (x integer)")

    @app.transaction
    def put(tx: Transaction, x: int) -> None:
        tx.execute("insert into done (x) values (:x)", x=x)

    @app.transaction
    def put_later(tx: Transaction, count: int) -> None:
        for x in range(count):
            tx.enqueue(put, x)

    @app.query
    def done(tx: Transaction) -> list[int]:
        return tx.execute("select x from done order by x").scalars()

    monkeypatch.setattr(backlog, "WINDOW", 4)
    monkeypatch.setattr(backlog, "RELOAD_SECONDS", 0.05)
    opened = sqlite_app(app)
    sync = opened.engine.sync
    faults = [OSError(5, "Input/output error"), apsw.IOError("disk I/O error"), apsw.FullError("full")]

    def faulty() -> None:
        looking = sys._getframe(1).f_code.co_name == "queued"
        if looking and faults:
            raise faults.pop()
        sync()

    monkeypatch.setattr(opened.engine, "sync", faulty)
    opened.call("put_later", 30)
    opened.drain()
    assert (opened.call("done"), faults) == (list(range(30)), [])
