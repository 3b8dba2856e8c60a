"""Workflows are taken over by one conditional update, and who has lost one can do nothing for it any more."""

import threading
from contextlib import closing
from dataclasses import replace
from queue import SimpleQueue

import pytest
from tests.conftest import eventually

from apiary import Transaction, Workflow
from apiary.engine.jobs import Job
from apiary.engine.postgres import lane
from apiary.engine.postgres.connection import Access
from apiary.engine.postgres.errors import Conflicted, ConnectionLost
from apiary.engine.postgres.install import Installer
from apiary.runtime.errors import Unavailable
from apiary.runtime.ids import new_id
from apiary.runtime.machine import step_id
from apiary.runtime.session import Call, Outcome, Record


@pytest.fixture
def acting(make_app, engine_app, platform):
    """A workflow whose action runs: the open app and its id. The action ends with the test."""
    app = make_app("create table marks (mark text not null)")
    ended = threading.Event()

    @app.transaction
    def mark(tx: Transaction, mark: str) -> None:
        tx.execute("insert into marks (mark) values (:mark)", mark=mark)

    @app.query
    def marks(tx: Transaction) -> list[str]:
        return tx.execute("select mark from marks").scalars()

    @app.action
    def wait() -> str:
        ended.wait()
        return "waited"

    @app.workflow
    def flow(wf: Workflow) -> str:
        wf.run(mark, "before")
        said = wf.run(wait)
        wf.run(mark, "after")
        return said

    opened = engine_app(app)
    calls = platform(opened)
    identifier = new_id()
    calls.run("flow", id=identifier, wait=0.0)
    eventually(lambda: opened._dispatcher.flows._acting)
    yield opened, identifier
    ended.set()
    opened.drain()


def test_of_many_that_take_over_at_once_one_does(acting, together):
    opened, identifier = acting

    def adopt(_: int) -> None:
        try:
            opened.engine.adopt(opened.program.version, (), ())
        except Unavailable:
            pass  # another one was faster

    together(adopt, range(8))
    assert opened.engine.queued_call(identifier).epoch == 2


def test_a_run_of_an_older_epoch_does_and_records_nothing(acting):
    opened, identifier = acting
    opened._dispatcher.backlog.deactivate()
    opened.engine.adopt(opened.program.version, (), ())
    record = Record(
        id=step_id(identifier, 1),
        function="wait",
        kind="action",
        version=opened.program.version,
        caller="tester",
        attempt=1,
        started=0,
        duration=0,
        status="ok",
        input=b"{}",
        output=b'"too late"',
        parent=identifier,
        step=1,
    )

    def run(epoch: int, *arrived: Record) -> Outcome:
        answers: SimpleQueue[Outcome] = SimpleQueue()
        call = Call(identifier, "flow", b"{}", roles=frozenset({"admin"}), queued=True, epoch=epoch, arrived=arrived)
        opened._dispatcher.flows._submit(
            Job(call, opened.program.find("flow"), lambda _, outcome: answers.put(outcome))
        )
        return answers.get(timeout=30)

    for arrived in ((), (record,), (replace(record, step=0, id=step_id(identifier, 0)),)):
        assert run(1, *arrived).pause.epoch == 2
        assert opened.engine.find(record.id, None) is None
    assert opened.call("marks") == ["before"]
    assert run(2, record).output == b'"too late"'
    assert sorted(opened.call("marks")) == ["after", "before"]


@pytest.mark.parametrize("error", [ConnectionLost("gone"), Conflicted("met")], ids=["connection", "conflict"])
def test_pauses_between_attempts_have_a_limit_however_many_there_were(error):
    assert 0 <= lane._wait(error, 100_000) <= 1.0


def test_a_database_that_is_away_for_hours_is_tried_again(postgres_url):
    with closing(Installer(postgres_url)) as installer:
        access = Access(installer.app("away"))
    access._failures = 100_000
    access._failed("it is away", 0.0)
    access._again = 0.0
    access.open().close()
    access.close()
