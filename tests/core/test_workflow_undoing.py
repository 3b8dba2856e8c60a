"""What a workflow does before it ends early: those it started end first, what was done is undone, on each engine."""

import json
import threading

import pytest
from pydantic import SecretStr
from tests.conftest import eventually

from apiary import Cancelled, DeadlineExceeded, Rejected, Transaction, Workflow
from apiary.engine.deaths import Death
from apiary.engine.postgres import lane
from apiary.log.workflows import workflows
from apiary.runtime.errors import HostCrashed, Unseen
from apiary.runtime.ids import id_bytes

SECONDS = 20.0


class World:
    """What the actions of these tests have done, and what holds them up."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.holding = threading.Event()
        self.go_on = threading.Event()


@pytest.fixture
def world():
    world = World()
    yield world
    world.go_on.set()


@pytest.fixture
def app(make_app, world):  # noqa: C901 - many small functions
    app = make_app("create table marks (n integer primary key, mark text not null);")

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
    def outside(word: str) -> str:
        world.did.append(word)
        return word

    @app.action
    def log_in(password: SecretStr) -> str:
        world.did.append(password.get_secret_value())
        world.holding.set()
        world.go_on.wait(SECONDS)
        return "out"

    @app.workflow
    def grandchild(wf: Workflow) -> None:
        wf.run(mark, "grandchild", undo=unmark)
        wf.receive("never")

    @app.workflow
    def child(wf: Workflow) -> str:
        wf.run(mark, "child", undo=unmark)
        wf.run(grandchild)
        return "child"

    @app.workflow(timeout=3600)
    def parent(wf: Workflow) -> None:
        wf.run(mark, "parent", undo=unmark)
        begun = wf.start(child, undo=unmark)
        begun.result()

    @app.workflow
    def fails(wf: Workflow) -> None:
        wf.start(child, undo=unmark)
        if wf.receive("go") is not None:
            raise Rejected("that was it", code="over")

    @app.workflow
    def has_secrets(wf: Workflow) -> None:
        wf.run(mark, "in", undo=(log_in, SecretStr("hunter2")))
        raise Rejected("no", code="no")

    return app


@pytest.fixture
def opened(app, flow_app):
    return flow_app(app)


def begun(opened, count: int, last: str = "") -> None:
    """Wait until so many workflows wait for something, the one of them that has made a mark `last` as well."""
    eventually(lambda: len(workflows(opened._log, status="waiting")) == count)
    if last:  # one that was started waits before it runs, too
        eventually(lambda: last in opened.call("marks"))


def test_a_cancelled_workflow_cancels_those_that_it_started_and_they_undo_first(opened):
    handle = opened.start("parent")
    begun(opened, 3, "grandchild")
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(SECONDS)
    assert opened.call("marks") == ["parent", "child", "grandchild", "not grandchild", "not child", "not parent"]
    assert {found["status"] for found in workflows(opened._log)} == {"cancelled"}


def test_a_workflow_whose_time_is_over_ends_those_that_it_started(app, flow_app):

    @app.workflow(timeout=0.3)
    def brief(wf: Workflow) -> None:
        wf.run(app.functions["child"])

    opened = flow_app(app)
    with pytest.raises(DeadlineExceeded):
        opened.call("brief")
    assert opened.call("marks")[-2:] == ["not grandchild", "not child"]


def test_a_workflow_that_fails_cancels_what_it_is_to_undo(opened):
    handle = opened.start("fails")
    begun(opened, 3, "grandchild")
    handle.send("go", True)
    with pytest.raises(Rejected):
        handle.result(SECONDS)
    assert opened.call("marks") == ["child", "grandchild", "not grandchild", "not child"]


def test_a_workflow_that_was_blocked_is_cancelled_with_those_that_it_started(app, flow_app):
    changed = []

    @app.workflow
    def shifty(wf: Workflow) -> None:
        if changed:
            wf.run(app.functions["mark"], "other")
        wf.start(app.functions["grandchild"])
        wf.receive("go")

    opened = flow_app(app)
    handle = opened.start("shifty")
    begun(opened, 2, "grandchild")
    changed.append(True)
    handle.send("go", 1)
    eventually(lambda: handle.status() == "blocked")
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(SECONDS)
    assert opened.call("marks") == ["grandchild", "not grandchild"]


def test_no_record_has_the_secrets_of_what_is_to_be_undone(opened, world):
    handle = opened.start("has_secrets")
    assert world.holding.wait(SECONDS)
    eventually(lambda: handle.status() == "undoing")

    def told() -> str:
        found = [opened.log.show(call=call["id"]) for call in opened.log.calls()]
        return json.dumps([handle.show(), *found])

    assert "over" not in told()
    assert "hunter2" not in told()
    assert handle.show()["error"]["code"] == "no"
    world.go_on.set()
    with pytest.raises(Rejected):
        handle.result(SECONDS)
    assert world.did == ["hunter2"]
    assert "hunter2" not in told()


def died(opened, handle, times: int) -> None:
    """The process died so often while it ran this workflow."""
    for _ in range(times):
        opened._dispatcher._deaths.count([Death(id_bytes(handle.id), "it was ended by SIGSEGV", True)])


def test_a_workflow_whose_process_dies_again_and_again_is_undone(opened, world):
    opened._dispatcher.leave_queue()
    handle = opened.start("parent")
    died(opened, handle, 2)
    assert handle.status() != "cancelling"
    opened._dispatcher.run_queue()
    begun(opened, 3, "grandchild")
    died(opened, handle, 1)
    with pytest.raises(HostCrashed):
        handle.result(SECONDS)
    assert opened.call("marks") == ["parent", "child", "grandchild", "not grandchild", "not child", "not parent"]
    shown = opened.log.show(call=handle.id)
    assert (shown["status"], shown["code"]) == ("failed", "host_crashed")
    assert [earlier["attempt"] for earlier in shown["earlier_attempts"]] == [1, 2, 3]


def test_an_action_that_ended_its_process_is_not_begun_again_to_undo_it(app, flow_app, world):

    @app.workflow
    def deadly(wf: Workflow) -> None:
        wf.run(app.functions["outside"], "first", undo=(app.functions["outside"], "undo first"))
        wf.run(app.functions["log_in"], SecretStr("x"), undo=app.functions["outside"])

    opened = flow_app(app)
    handle = opened.start("deadly")
    assert world.holding.wait(SECONDS)
    died(opened, handle, 3)
    with pytest.raises(HostCrashed):
        handle.result(SECONDS)
    assert world.did == ["first", "x", "undo first"]
    world.go_on.set()


def test_an_attempt_is_waited_for_however_many_there_were():
    assert 0.0 <= (lane._wait(Unseen(""), 100_000) or 0.0) <= lane.BACKOFF_SECONDS[1]


def test_a_workflow_whose_undoing_ends_its_process_is_given_up(opened, world):
    handle = opened.start("has_secrets")
    assert world.holding.wait(SECONDS)
    eventually(lambda: handle.status() == "undoing")
    died(opened, handle, 3)
    with pytest.raises(HostCrashed):
        handle.result(SECONDS)
    assert handle.show()["error"]["not_undone"] == ["log_in: perhaps"]
    world.go_on.set()
