"""What is dropped of workflows that ended long ago, and what is not, on each engine."""

import threading
from typing import Any

import pytest
from tests.conftest import eventually

from apiary import App, Conflict, KeyReused, NotFound, Rejected, Transaction, Workflow
from apiary.log import retention
from apiary.log.retention import drop_workflows
from apiary.log.workflows import workflows
from apiary.runtime.transaction import now_microseconds

SECONDS = 20.0


@pytest.fixture
def app(make_app) -> App:
    app = make_app("create table effects (key text not null)")

    @app.transaction
    def put(tx: Transaction, key: str) -> str:
        tx.execute("insert into effects (key) values (:key)", key=key)
        return key

    @app.query
    def keys(tx: Transaction) -> list[str]:
        return tx.execute("select key from effects order by key").scalars()

    @app.workflow
    def five(wf: Workflow, key: str) -> str:
        wf.publish("state", key)
        for n in range(5):
            wf.run(put, f"{key}{n}")
        wf.log("done")
        return key

    @app.workflow
    def refused(wf: Workflow, key: str) -> None:
        wf.run(put, key)
        raise Rejected("no", code="no")

    @app.workflow
    def approval(wf: Workflow, key: str) -> Any:
        wf.run(put, key)
        return wf.receive("answer")

    @app.workflow
    def rounds(wf: Workflow, n: int, key: str) -> Any:
        wf.run(put, key)
        if n == 3:
            return wf.receive("answer")
        wf.run(five, f"{key}{n}-")
        wf.continue_as(n + 1, key)

    @app.workflow
    def parent(wf: Workflow, key: str) -> Any:
        wf.run(five, key)
        return wf.run(approval, key)

    return app


@pytest.fixture
def opened(app, engine_app, alarm):
    return engine_app(app)


def drop_all(opened) -> tuple[int, int]:
    """Drop what has ended; how many workflows and steps."""
    opened.call("put", key="last")  # the last row of all stays
    found, after = (0, 0), retention.FIRST
    while after is not None:
        done = drop_workflows(opened._log, now_microseconds(), after)
        found, after = (found[0] + done.workflows, found[1] + done.steps), done.after
    return found


def test_what_a_workflow_did_is_dropped_and_its_effects_stay(opened):
    handle = opened.start("five", key="a")
    assert handle.result(SECONDS) == "a"
    other = opened.call("put", key="other", idempotency_key="k")
    assert drop_all(opened) == (1, 6)
    with pytest.raises(NotFound):
        handle.show()
    assert opened.call("keys") == ["a0", "a1", "a2", "a3", "a4", "last", "other"]
    assert {found["function"] for found in opened.log.calls()} - {"keys"} == {"put"}
    assert opened.call("put", key="other", idempotency_key="k") == other
    assert drop_all(opened) == (0, 0)


def test_a_key_answers_for_ever(opened):
    first = opened.start("five", key="a", idempotency_key="k")
    assert first.result(SECONDS) == "a"
    with pytest.raises(Rejected):
        opened.call("refused", key="b", idempotency_key="r")
    assert drop_all(opened) == (2, 7)
    assert opened.start("five", key="a", idempotency_key="k").id == first.id
    assert opened.call("five", key="a", idempotency_key="k") == first.result(SECONDS) == "a"
    with pytest.raises(Rejected) as refused:
        opened.call("refused", key="b", idempotency_key="r")
    assert refused.value.code == "no"
    with pytest.raises(KeyReused):
        opened.call("five", key="other", idempotency_key="k")
    assert opened.call("keys") == ["a0", "a1", "a2", "a3", "a4", "b", "last"]
    shown = first.show()
    assert (shown["status"], shown["steps"], shown["published"]) == ("ok", [], {})
    assert [line["message"] for line in shown["lines"]] == ["what it did is not kept any more"]
    with pytest.raises(Conflict, match="not kept any more"):
        first.fork()
    assert drop_all(opened) == (0, 0)


def test_what_runs_is_left_alone_with_what_it_began(opened):
    handle = opened.start("parent", key="a")
    (child,) = eventually(lambda: workflows(opened._log, status="waiting", function="approval"))
    assert drop_all(opened) == (0, 0)
    opened.workflow(child["id"]).send("answer", 7)
    assert handle.result(SECONDS) == 7
    assert drop_all(opened) == (3, 8)
    assert workflows(opened._log) == []


def test_what_a_workflow_did_before_it_began_again_is_dropped(opened):
    handle = opened.start("rounds", n=0, key="k", idempotency_key="rounds")
    eventually(lambda: (handle.show()["waits_for"] or {}).get("for") == "message")
    assert drop_all(opened) == (3, 3 * 6 + 3)  # three children with their steps, and three steps of its own
    shown = handle.show()
    assert [step["function"] for step in shown["steps"] if step["step"] < 2**40] == ["put", "wf.receive"]
    handle.send("answer", 7)
    assert handle.result(SECONDS) == 7
    assert opened.call("rounds", n=0, key="k", idempotency_key="rounds") == 7


def test_what_ended_later_is_kept(opened):
    opened.call("five", key="a")
    between = now_microseconds()
    late = opened.start("five", key="b")
    late.result(SECONDS)
    assert drop_workflows(opened._log, between).workflows == 1
    assert len(late.show()["steps"]) == 6


def test_it_is_dropped_a_little_at_a_time_and_gone_on_with(opened, monkeypatch):
    monkeypatch.setattr(retention, "MAX_STEPS", 4)
    monkeypatch.setattr(retention, "MAX_WORKFLOWS", 1)
    handle = opened.start("five", key="a", idempotency_key="k")
    handle.result(SECONDS)
    opened.call("five", key="b")
    opened.call("put", key="last")
    first = drop_workflows(opened._log, now_microseconds())
    assert (first.workflows, first.steps, first.after) == (0, 4, retention.FIRST)
    assert len(handle.show()["steps"]) == 2
    with pytest.raises(Conflict):
        handle.fork()
    assert drop_all(opened) == (2, 8)


def test_the_numbers_of_the_log_are_given_once(opened):
    handle = opened.start("five", key="a")
    handle.result(SECONDS)
    last = opened.log.calls()[0]["seq"]
    drop_workflows(opened._log, now_microseconds())
    opened.call("put", key="next")
    assert opened.log.calls()[0]["seq"] > last
    assert drop_all(opened)[0] <= 1


def test_calls_go_on_while_it_is_dropped(opened):
    for n in range(30):
        opened.call("five", key=f"{n}-", idempotency_key=f"k{n}")
    dropping = threading.Thread(target=drop_all, args=(opened,))
    dropping.start()
    for n in range(30, 60):
        assert opened.call("five", key=f"{n}-") == f"{n}-"
    dropping.join()
    assert len(opened.call("keys")) == 60 * 5 + 1
    assert all(opened.engine.find(None, f"k{n}") is not None for n in range(30))
