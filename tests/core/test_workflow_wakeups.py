"""What wakes a workflow is not missed, whatever else happens to it at that moment."""

import time

import pytest
from tests.conftest import eventually

from apiary import Transaction, Workflow
from apiary.runtime.ids import id_text, new_id

SOON_SECONDS = 15.0
"""Long before the table is looked at for what was missed."""


@pytest.fixture
def app(make_app):
    app = make_app()

    @app.transaction
    def busy(tx: Transaction, seconds: float) -> None:
        time.sleep(seconds)

    @app.action
    def act(seconds: float) -> None:
        time.sleep(seconds)

    return app


def test_a_message_that_comes_while_its_workflow_is_called_again_is_not_missed(app, engine_app, platform):
    """A call is sent again under its id, where its process had died."""

    @app.workflow
    def flow(wf: Workflow) -> str:
        return str(wf.receive("word"))

    opened = engine_app(app, writers=1)
    calls = platform(opened)
    identifier = new_id()
    calls.run("flow", id=identifier, key="flow", wait=0.0)
    calls.submit("busy", '{"seconds": 0.2}')
    told = f'{{"workflow": "{identifier.hex()}", "topic": "word", "value": "heard"}}'
    sent = calls.submit("apiary.send", told)
    calls.submit("flow", id=identifier, key="flow")
    assert sent.outcome().error is None
    assert opened.workflow(id_text(identifier)).result(SOON_SECONDS) == "heard"


def test_an_action_is_not_lost_where_its_workflow_was_taken_over_meanwhile(app, engine_app, platform):
    """A process looks for what others have left, just as a workflow of its own begins an action."""

    @app.workflow
    def flow(wf: Workflow) -> str:
        acting = wf.start(app.functions["act"], 1.0)
        heard = wf.receive("word", timeout=30)
        acting.result()
        return str(heard)

    opened = engine_app(app)
    calls = platform(opened)
    begun = opened.workflow(id_text(calls.submit("flow").call.id))
    eventually(lambda: opened._dispatcher.flows._acting)
    for _ in range(3):
        opened.engine.adopt(opened.program.version, (), ())
        opened._dispatcher.backlog.reload()
        eventually(lambda: not opened._dispatcher.flows._running)
    begun.send("word", "heard")
    assert begun.result(SOON_SECONDS) == "heard"


def test_a_time_that_means_nothing_any_more_keeps_nobody_waiting(app, engine_app, monkeypatch):
    @app.workflow
    def flow(wf: Workflow) -> str:
        return str(wf.receive("word", timeout=1.0))

    opened = engine_app(app)
    flows = opened._dispatcher.flows
    ring = flows.ring
    monkeypatch.setattr(flows, "ring", lambda: time.sleep(0.5) or ring())
    handle = opened.start("flow")
    over = time.monotonic() + 1.1
    handle.send("word", "soon")
    assert handle.result(SOON_SECONDS) == "soon"
    time.sleep(over - time.monotonic())
    assert not flows._is_idle()
    opened.drain(SOON_SECONDS)
    assert time.monotonic() < over + SOON_SECONDS / 2
