"""Recorded runs of workflows, run again with other code: what does the same passes, what departs is told of."""

import json
from typing import Any

import pytest
from pydantic import SecretStr
from tests.conftest import eventually

from apiary import App, Conflict, Nondeterministic, Rejected, Transaction, Workflow, WrongArguments
from apiary.log import export
from apiary.log.workflows import workflows
from apiary.runtime.errors import PayloadTooLarge
from apiary.testing import replay

SECONDS = 20.0


def declared(app: App, change: str = "") -> App:  # noqa: C901 - many small functions
    """The app, or what it became by a `change`."""

    @app.transaction
    def put(tx: Transaction, key: str) -> int:
        tx.execute("insert into effects (key) values (:key)", key=key)
        return len(key)

    @app.action
    def send(to: str, password: SecretStr) -> list[str]:
        return [to]

    @app.workflow
    def child(wf: Workflow) -> Any:
        return wf.receive("never", timeout=60)

    @app.workflow
    def order(wf: Workflow, key: str, password: SecretStr, fail: bool = False) -> list[Any]:
        if change == "another first":
            wf.run(put, "before")
        count = wf.run(put, f"{key}!" if change == "other arguments" else key)
        if change != "one less":
            wf.sleep(0.001)
        sent = [wf.start(send, "ann", password), wf.start(send, "bob", password)]
        if change == "read first":
            wf.gather(sent)
        wf.publish("state", "sent")
        found = [future.result() for future in sent]
        if fail:
            raise Rejected("no", code="no")
        if change == "one more":
            wf.run(put, "more")
        wf.start(child)
        return [count, *found, wf.random.random()]

    @app.workflow
    def approval(wf: Workflow, key: str) -> Any:
        wf.run(put, key)
        answer = wf.receive("answer")
        if change == "not yet reached":
            wf.run(put, "later")
        return answer

    @app.workflow
    def again(wf: Workflow, n: int = 0) -> int:
        wf.run(put, f"{n}")
        if n < 2:
            wf.continue_as(n + 1)
        return n if n < 3 else wf.receive("never")

    return app


@pytest.fixture
def opened(make_app, engine_app, alarm):
    return engine_app(declared(make_app("create table effects (key text not null)")))


@pytest.fixture
def changed(make_app):
    return lambda change: declared(make_app(), change)


@pytest.fixture
def order(opened) -> dict[str, Any]:
    handle = opened.start("order", key="a", password="hunter2")
    handle.result(SECONDS)
    return handle.export()


def test_what_does_the_same_passes_and_runs_no_function(opened, changed, order, tmp_path):
    assert "hunter2" not in json.dumps(order)
    file = tmp_path / "order.json"
    file.write_text(json.dumps(order))
    for change in ("", "not yet reached"):
        replayed = replay(changed(change), file)
        assert (replayed.status, replayed.recorded, replayed.steps) == ("ok", "ok", 6)
        assert replayed.result == json.loads(order["output"])
    assert opened.call("order", key="b", password="x")  # the app itself goes on


@pytest.mark.parametrize(
    ("change", "step", "says"),
    [
        ("another first", 0, 'step 0 was transaction put({"key":"a"}), and is now transaction put({"key":"before"})'),
        ("other arguments", 0, 'is now transaction put({"key":"a!"})'),
        ("one less", 1, "step 1 was sleep wf.sleep"),
        ("one more", 5, "behind the last step that was recorded comes now transaction put"),
    ],
)
def test_what_departs_is_told_of_with_its_step(changed, order, change, step, says):
    with pytest.raises(Nondeterministic) as departed:
        replay(changed(change), order)
    assert says in departed.value.message
    assert departed.value.details == {"step": step}


def test_reading_results_in_another_order_is_no_departure(changed, order):
    assert replay(changed("read first"), order).status == "ok"


def test_a_workflow_that_ended_too_soon_departs(changed, order):
    order["steps"].append({**order["steps"][-1], "step": 6})
    order["issued"] = 7
    with pytest.raises(Nondeterministic, match="step 6 is not asked for any more: order returned"):
        replay(changed(""), order)


def test_one_that_was_refused_is_refused_again(opened, changed):
    handle = opened.start("order", key="a", password="x", fail=True)
    with pytest.raises(Rejected):
        handle.result(SECONDS)
    replayed = replay(changed(""), handle.export())
    assert (replayed.status, replayed.recorded, replayed.error.code) == ("raised", "rejected", "no")


def test_one_that_still_runs_is_followed_as_far_as_it_is(opened, changed):
    handle = opened.start("approval", key="a")
    eventually(lambda: workflows(opened._log, status="waiting", function="approval"))
    run = handle.export()
    for change in ("", "not yet reached"):
        assert replay(changed(change), run).status == "waiting"
    handle.send("answer", 7)
    assert handle.result(SECONDS) == 7
    assert replay(changed(""), handle.export()).result == 7
    with pytest.raises(Nondeterministic, match="behind the last step"):
        replay(changed("not yet reached"), handle.export())


def test_what_cannot_be_run_again_is_refused(opened, changed, monkeypatch, order):
    handle = opened.start("again")
    assert handle.result(SECONDS) == 2
    with pytest.raises(Conflict, match="begun again"):
        handle.export()
    with pytest.raises(WrongArguments, match="no recorded run"):
        replay(changed(""), {"format": 0})
    with pytest.raises(Nondeterministic, match="now a transaction"):
        replay(changed(""), {**order, "function": "put"})
    monkeypatch.setattr(export, "MAX_BYTES", 10)
    with pytest.raises(PayloadTooLarge):
        opened.workflow(order["id"]).export()


def test_one_that_has_begun_again_and_runs_is_followed_from_there(opened, changed):
    handle = opened.start("again", 3)
    eventually(lambda: workflows(opened._log, status="waiting", function="again"))
    assert replay(changed(""), handle.export()).status == "waiting"
