"""Two processes write to one file of SQLite: they take turns, and neither harms the other by what takes it long."""

import threading
import time
from contextlib import closing

import apsw
import pytest

from apiary import Transaction

WAIT_SECONDS = 20


class Other:
    """Another process, as far as the file can tell; it could not, were this another copy of SQLite."""

    def __init__(self, path) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.set_busy_timeout(WAIT_SECONDS * 1000)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def begin(self) -> None:
        """Hold the database from now on."""
        self._connection.execute("begin immediate")

    def end(self) -> None:
        self._connection.execute("rollback")

    def write_on(self) -> None:
        """Write for a while, again and again, with next to nothing in between, until `stop`."""
        self._thread.start()

    def _write(self) -> None:
        while not self._stop.is_set():
            self.begin()
            time.sleep(0.03)
            self.end()
            time.sleep(0.0002)

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(WAIT_SECONDS)

    def close(self) -> None:
        self.stop()
        self._connection.close()


@pytest.fixture
def writing(monkeypatch, make_app, sqlite_app, platform):
    monkeypatch.setattr("apiary.engine.sqlite.lane.BUSY_SECONDS", 0.05)
    app = make_app("create table t (x integer)")

    @app.transaction(timeout=0.2)
    def quick(tx: Transaction, x: int) -> int:
        tx.execute("insert into t (x) values (:x)", x=x)
        return x

    @app.transaction(timeout=WAIT_SECONDS)
    def patient(tx: Transaction, x: int) -> int:
        return quick(tx, x)

    @app.transaction(timeout=1.0)
    def endless(tx: Transaction) -> int:
        return tx.execute("insert into t with recursive n (x) as (select 1 union all select 1 from n) select x from n")

    @app.action(timeout=1.0)
    def act() -> str:
        return "done"

    @app.query
    def count(tx: Transaction) -> int:
        return tx.execute("select count(*) from t").scalar()

    opened = sqlite_app(app)
    opened.call("patient", x=0)
    return opened, platform(opened)


@pytest.fixture
def other(tmp_path):
    with closing(Other(tmp_path / "database.db")) as other:
        yield other


def test_calls_wait_for_another_process_as_long_as_they_may(writing, other):
    opened, calls = writing
    other.begin()
    patient = calls.submit("patient", '{"x": 1}')
    time.sleep(0.2)  # so that the next one comes while the writer waits
    refused = calls.run("quick", '{"x": 2}').error
    assert (refused["code"], refused["status"]) == ("overloaded", 503)
    assert "for another process that writes to the database" in refused["detail"]
    assert opened.call("count") == 1
    other.end()
    assert patient.outcome().output == b"1"
    assert calls.run("quick", '{"x": 3}').output == b"3"
    assert opened.call("count") == 3


def test_what_has_run_is_recorded_however_long_another_process_writes(writing, other, sqlite_app, promptly):
    opened, calls = writing
    other.begin()
    action = calls.submit("act")
    assert opened.call("count") == 1
    threading.Timer(1.5, other.end).start()  # longer than an action may take, and many times as long as a lane looks
    assert action.outcome().output == b'"done"'
    promptly(opened.close)
    with sqlite_app(opened.app) as again:
        assert {"act", "count"} <= {call["function"] for call in again.log.calls()}


def test_an_app_that_is_closed_records_first_what_has_run(writing, other, promptly):
    opened, calls = writing
    other.begin()
    action = calls.submit("act")
    threading.Timer(1.5, other.end).start()
    promptly(opened._dispatcher.close)
    assert action.outcome().output == b'"done"'
    assert [call["status"] for call in opened.log.calls(function="act")] == ["ok"]


def test_a_process_that_writes_without_a_pause_is_met_between_two_transactions(writing, other):
    _, calls = writing
    other.write_on()
    assert [calls.run("patient", f'{{"x": {x}}}').output for x in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    other.stop()


def test_a_transaction_that_cannot_begin_is_answered(writing, monkeypatch):
    """Whatever the reason is: the thread that writes has other calls to answer."""
    opened, calls = writing
    for error in (MemoryError(), apsw.FullError("full"), RuntimeError("odd")):

        def begin(self, statement: str, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr("apiary.engine.sqlite.session.SqliteSession.begin", begin)
            assert calls.run("patient", '{"x": 1}').error["status"] == 503
    assert calls.run("patient", '{"x": 2}').output == b"2"
    assert opened.call("count") == 2


def test_a_batch_that_is_undone_waits_again(writing, other):
    """A write that is interrupted ends the transaction; another process may be faster then."""
    opened, calls = writing
    other.write_on()
    stopped, *safe = [calls.submit("endless"), *(calls.submit("patient", f'{{"x": {x}}}') for x in range(3))]
    assert stopped.outcome().error["code"] == "deadline_exceeded"
    assert [pending.outcome().output for pending in safe] == [b"0", b"1", b"2"]
    other.stop()
    assert opened.call("count") == 4
