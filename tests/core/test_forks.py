"""Forks of workflows: what they take for done, and what as; on each engine."""

import threading

import pytest
from tests.conftest import eventually

from apiary import Conflict, Forbidden, Rejected, Transaction, Workflow
from apiary.runtime import control

SECONDS = 20.0


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def app(make_app, gate):  # noqa: C901 - many small functions
    app = make_app("create table marks (n integer primary key, mark text not null);")
    app.queue("narrow", concurrency=1)

    @app.transaction
    def mark(tx: Transaction, mark: str) -> str:
        n = tx.execute("select count(*) from marks").scalar() + 1
        tx.execute("insert into marks (n, mark) values (:n, :mark)", n=n, mark=mark)
        return mark

    @app.transaction
    def unmark(tx: Transaction, what: str) -> str:
        return mark(tx, f"not {what}")

    @app.query
    def marks(tx: Transaction) -> list[str]:
        return tx.execute("select mark from marks order by n").scalars()

    @app.action
    def outside() -> None:
        gate.wait(SECONDS)

    @app.workflow
    def saga(wf: Workflow) -> None:
        wf.run(mark, "paid")
        wf.run(mark, "reserved", undo=unmark)
        wf.run(mark, "sent")
        raise Rejected("no", code="no")

    @app.workflow
    def many(wf: Workflow, count: int) -> None:
        begun = [wf.start(outside) for _ in range(count)]
        wf.run(mark, "behind")
        wf.gather(begun)

    @app.workflow(queue="narrow")
    def one_by_one(wf: Workflow) -> str:
        wf.run(mark, "turn")
        return str(wf.receive("go"))

    @app.transaction(roles=["clerk"])
    def for_clerks(tx: Transaction) -> str:
        return "clerk"

    @app.workflow
    def asks_clerks(wf: Workflow) -> str:
        return wf.run(for_clerks)

    @app.workflow(roles=["clerk"])
    def by_clerks(wf: Workflow) -> str:
        return "done"

    return app


@pytest.fixture
def opened(app, engine_app):
    return engine_app(app)


def test_a_fork_does_not_take_for_done_what_was_undone(opened):
    handle = opened.start("saga")
    with pytest.raises(Rejected):
        handle.result(SECONDS)
    assert opened.call("marks") == ["paid", "reserved", "sent", "not reserved"]
    for step in (None, 3, 2):
        with pytest.raises(Conflict, match="has undone its step 1") as raised:
            handle.fork(step)
        assert "fork with step 1" in raised.value.hint
    fork = handle.fork(1)
    with pytest.raises(Rejected):
        fork.result(SECONDS)
    assert opened.call("marks")[4:] == ["reserved", "sent", "not reserved"]


def test_a_fork_keeps_what_is_recorded_behind_many_open_actions(opened, monkeypatch):
    monkeypatch.setattr(control, "PAGE", 4)
    handle = opened.start("many", count=9)
    eventually(lambda: opened.call("marks") == ["behind"])
    eventually(lambda: handle.show()["waits_for"] is not None)
    fork = handle.fork()
    eventually(lambda: fork.show()["waits_for"] is not None)
    steps = fork.show()["steps"]
    assert [step["step"] for step in steps if step["function"] == "mark"] == [9]
    assert opened.call("marks") == ["behind"]


def test_a_fork_waits_for_its_turn_in_its_queue(opened):
    handle = opened.start("one_by_one")
    eventually(lambda: handle.status() == "waiting")
    fork = handle.fork()
    assert fork.status() == "queued"
    handle.send("go", "first")
    assert handle.result(SECONDS) == "first"
    eventually(lambda: fork.status() == "waiting")
    fork.send("go", "second")
    assert fork.result(SECONDS) == "second"
    assert opened.call("marks") == ["turn"]


def test_a_fork_of_what_has_ended_is_no_administrator(opened):
    for function in ("asks_clerks", "by_clerks"):
        handle = opened.start(function)
        handle.result(SECONDS)
        with pytest.raises(Forbidden):
            handle.fork(0).result(SECONDS)


def test_a_fork_to_a_version_without_the_function_is_refused(app, make_app, engine_app):
    opened = engine_app(app)
    handle = opened.start("asks_clerks")
    handle.result(SECONDS)
    opened.close()
    other = engine_app(make_app("create table marks (n integer primary key, mark text not null);"))
    with pytest.raises(Conflict, match="has no workflow asks_clerks"):
        other.workflow(handle.id).fork(0)
