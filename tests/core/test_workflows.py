"""Workflows: ordinary Python that ends, each of its functions once, whether its steps share a commit or not."""

import datetime as times
import threading
import uuid
from typing import Any

import pytest
from pydantic import SecretStr
from tests.conftest import eventually

from apiary import (
    Cancelled,
    DeadlineExceeded,
    Error,
    InternalError,
    KeyReused,
    NotFound,
    Rejected,
    RuleBroken,
    Transaction,
    Workflow,
    WrongArguments,
)
from apiary.runtime import ledger

TABLES = """
create table marks (n integer primary key, mark text not null);
create table fibonacci (n integer primary key, value integer not null);
"""


class Declined(Exception):
    """What a function of the app raises, and a workflow catches."""


@pytest.fixture
def app(make_app):
    app = make_app(TABLES)

    @app.transaction
    def mark(tx: Transaction, mark: str) -> int:
        n = tx.execute("select count(*) from marks").scalar() + 1
        tx.execute("insert into marks (n, mark) values (:n, :mark)", n=n, mark=mark)
        return n

    @app.transaction
    def mark_then_fail(tx: Transaction, mark: str) -> int:
        app.functions["mark"](tx, mark)
        raise Declined("no", 7)

    @app.query
    def marks(tx: Transaction) -> list[str]:
        return tx.execute("select mark from marks order by n").scalars()

    @app.action
    def outside(word: str) -> str:
        return word.upper()

    return app


@pytest.fixture
def mark(app):
    return app.functions["mark"]


@pytest.fixture
def marks(app):
    return app.functions["marks"]


@pytest.fixture
def outside(app):
    return app.functions["outside"]


# Steps


def test_steps_run_in_order_and_their_results_have_their_types(app, mark, marks, outside, flow_app):

    @app.transaction
    def midnight(tx: Transaction, day: times.date) -> times.datetime:
        return times.datetime.combine(day, times.time(), times.UTC)

    @app.workflow
    def flow(wf: Workflow, day: times.date) -> list[str | int]:
        """Does one thing after another."""
        moment = wf.run(midnight, day)
        assert isinstance(moment, times.datetime)
        first = wf.run(mark, mark=moment.isoformat())
        said = wf.run(outside, "hello")
        second = wf.run(mark, said)
        return [first, second, *wf.run(marks)]

    opened = flow_app(app)
    day = times.date(2026, 1, 2)
    assert opened.call(flow, day) == [1, 2, "2026-01-02T00:00:00+00:00", "HELLO"]
    assert opened.call("flow", day="2026-01-03")[:2] == [3, 4]


def test_what_is_started_is_gathered_in_its_order(app, mark, outside, flow_app):

    @app.workflow
    def flow(wf: Workflow, words: list[str]) -> list[str]:
        begun = [wf.start(outside, word) for word in words]
        more = [wf.start(mark, word) for word in words]
        assert begun[1].result() == words[1].upper()
        assert wf.gather(more) == [1, 2, 3]
        assert begun[2].result() == begun[2].result() == words[2].upper()
        return wf.gather(begun) + wf.gather([])

    opened = flow_app(app)
    assert opened.call(flow, ["a", "b", "c"]) == ["A", "B", "C"]
    assert opened.call("marks") == ["a", "b", "c"]


def test_a_map_keeps_few_open_and_takes_items_as_they_are_wanted(app, flow_app):
    running, most, taken = [], [], []
    lock = threading.Lock()

    @app.action
    def slow(x: int) -> int:
        with lock:
            running.append(x)
            most.append(len(running))
        with lock:
            running.remove(x)
        return 2 * x

    @app.workflow
    def flow(wf: Workflow) -> list[int]:
        taken.clear()

        def items():
            for x in range(20):
                taken.append(x)
                yield x

        found = []
        for result in wf.map(slow, items(), at_most=3):
            found.append(result)
            assert len(taken) <= len(found) + 2
        return found

    assert flow_app(app).call(flow) == [2 * x for x in range(20)]
    assert max(most) <= 3


def test_an_exception_is_caught_as_it_was_raised_and_so_again(app, mark, flow_app):
    caught = []

    @app.action
    def refuse(word: str) -> str:
        raise Rejected("not that", code="taste", word=word)

    @app.workflow
    def flow(wf: Workflow) -> list[str | int]:
        found: list[str | int] = []
        try:
            wf.run(app.functions["mark_then_fail"], "gone")
        except Declined as declined:
            caught.append(declined.args)
            found += [str(declined.args[0]), declined.args[1]]
        wf.sleep(0.001)
        try:
            wf.run(refuse, "spam")
        except Rejected as error:
            caught.append((error.code, error.details, error.message))
            found.append(error.code)
        wf.run(mark, "kept")
        return found

    opened = flow_app(app)
    assert opened.call(flow) == ["no", 7, "taste"]
    assert opened.call("marks") == ["kept"]
    assert set(map(repr, caught)) == {repr(("no", 7)), repr(("taste", {"word": "spam"}, "not that"))}
    assert len(caught) > 2  # it was run again


@pytest.mark.parametrize("kind", ["transaction", "query", "action", "workflow"])
def test_what_a_step_raises_ends_the_workflow_where_that_catches_it_not(app, mark, flow_app, kind):

    def raises(x: int) -> int:
        raise Declined(x)

    def raises_in(tx, x: int) -> int:
        raises(x)

    body = raises if kind == "action" else raises_in
    body.__name__ = "raises"
    step = getattr(app, kind)(body)

    @app.workflow
    def flow(wf: Workflow) -> int:
        wf.run(mark, "before")
        return wf.run(step, 7)

    opened = flow_app(app)
    with pytest.raises(InternalError) as failed:
        opened.call(flow)
    assert "flow failed with an internal error" in str(failed.value)
    assert opened.call("marks") == ["before"]


def test_a_refusal_of_a_step_reaches_the_caller_of_the_workflow(app, flow_app):
    @app.transaction
    def refuse(tx: Transaction) -> None:
        raise Rejected("sold out", code="sold_out", left=0)

    @app.workflow
    def flow(wf: Workflow) -> None:
        wf.run(refuse)

    opened = flow_app(app)
    with pytest.raises(Rejected) as refused:
        opened.call(flow)
    assert (refused.value.code, refused.value.details, refused.value.message) == ("sold_out", {"left": 0}, "sold out")


class Odd(Exception):
    """An exception whose constructor wants what its arguments are not."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{code}: {why}")


class Hidden:
    class Inner(ValueError):
        """An exception inside a class."""


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        (Odd(7, why="x"), (Odd, "7: x")),
        (Hidden.Inner("deep", [1]), (Hidden.Inner, "('deep', [1])")),
        (KeyError("k"), (KeyError, "'k'")),
        (OSError(2, "none", "file"), (FileNotFoundError, "[Errno 2] none")),
        (SystemExit(3), (InternalError, "SystemExit: 3")),
        (type("Local", (Exception,), {})("here"), (InternalError, "Local: here")),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), (UnicodeDecodeError, None)),
        (ExceptionGroup("many", [ValueError(1)]), (InternalError, None)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_any_exception_can_be_recorded_and_raised_again(app, flow_app, raised, caught):
    @app.action
    def fails() -> None:
        raise raised

    @app.workflow
    def flow(wf: Workflow) -> list[str]:
        try:
            wf.run(fails)
        except caught[0] as error:
            return [type(error).__name__, str(error)]
        return []

    kind, said = flow_app(app).call(flow)
    assert kind == ("StepFailed" if caught[0] is InternalError else caught[0].__name__)
    assert caught[1] is None or said == caught[1]


# Time, chance, and what is said


def test_time_and_chance_are_the_same_whenever_the_body_runs(app, mark, outside, flow_app):
    seen = []

    @app.workflow
    def flow(wf: Workflow) -> list[str]:
        found = [wf.now.isoformat(), wf.uuid(), str(wf.random.random()), wf.id, wf.caller]
        wf.run(mark, "one")
        found += [wf.now.isoformat(), wf.uuid(), str(wf.random.randrange(10**9))]
        wf.run(outside, "two")
        seen.append(found)
        return found

    opened = flow_app(app)
    before = times.datetime.now(times.UTC)
    found = opened.call(flow)
    other = opened.call(flow)
    assert before <= times.datetime.fromisoformat(found[0]) <= times.datetime.fromisoformat(found[5])
    assert times.datetime.fromisoformat(found[5]) <= times.datetime.now(times.UTC)
    assert uuid.UUID(found[1]).version == uuid.UUID(found[6]).version == 4
    assert {len(set(column)) for column in zip(found, other, strict=True)} - {2} == {1}  # the caller
    assert found[4] == other[4] == "local"
    assert len(set(map(tuple, seen))) == 2


def test_a_sleep_ends_when_its_time_is_over_and_not_before(app, mark, flow_app):

    @app.workflow
    def flow(wf: Workflow) -> list[float]:
        start = wf.now
        wf.sleep(0.05)
        middle = wf.now
        wf.sleep(0)
        wf.run(mark, "slept")
        return [(middle - start).total_seconds(), (wf.now - middle).total_seconds()]

    slept, rest = flow_app(app).call(flow)
    assert slept >= 0.05
    assert rest >= 0


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", None, 10**12])
def test_what_is_no_time_to_wait_is_refused(app, flow_app, seconds):
    @app.workflow
    def flow(wf: Workflow) -> str:
        with pytest.raises(RuleBroken) as refused:
            wf.sleep(seconds)
        return refused.value.message

    assert "no number of seconds" in flow_app(app).call(flow)


def test_what_a_workflow_logs_is_in_its_record_once(app, mark, flow_app):

    @app.workflow
    def flow(wf: Workflow) -> None:
        wf.log("begins", user=1)
        wf.run(mark, "x")
        wf.sleep(0.001)
        wf.log("ends")

    opened = flow_app(app)
    opened.call(flow)
    lines = recorded(opened, "flow")[0]["lines"]
    assert [(line["message"], line.get("fields")) for line in lines] == [("begins", {"user": 1}), ("ends", None)]


def recorded(opened, function):
    """What the log says of all calls of a function."""
    return [opened.log.show(call=one["id"]) for one in opened.log.calls(function=function)]


# Children


def test_a_child_is_a_workflow_whose_result_its_parent_gets(app, mark, flow_app):

    @app.workflow
    def child(wf: Workflow, name: str, fail: bool = False) -> str:
        wf.run(mark, name)
        wf.sleep(0.001)
        if fail:
            raise Rejected(f"{name} fails", code="failing")
        return name.title()

    @app.workflow
    def parent(wf: Workflow) -> list[str]:
        begun = [wf.start(child, name) for name in ("ann", "bob", "cid")]
        found = [wf.run(child, "dan")]
        try:
            wf.run(child, "eve", fail=True)
        except Rejected as refused:
            found.append(refused.code)
        return found + wf.gather(begun)

    opened = flow_app(app)
    assert opened.call(parent) == ["Dan", "failing", "Ann", "Bob", "Cid"]
    assert sorted(opened.call("marks")) == ["ann", "bob", "cid", "dan", "eve"]


def test_fibonacci(app, flow_app):
    @app.query
    def known(tx: Transaction, n: int) -> int | None:
        return tx.execute("select value from fibonacci where n = :n", n=n).scalar()

    @app.transaction
    def store(tx: Transaction, n: int, value: int) -> int:
        tx.execute("insert into fibonacci (n, value) values (:n, :value) on conflict do nothing", n=n, value=value)
        return value

    @app.workflow
    def fibonacci(wf: Workflow, n: int) -> int:
        found = wf.run(known, n)
        if found is not None:
            return found
        if n < 2:
            return wf.run(store, n, n)
        parts = [wf.start(fibonacci, n - 1), wf.start(fibonacci, n - 2)]
        return wf.run(store, n, sum(wf.gather(parts)))

    opened = flow_app(app)
    assert opened.call(fibonacci, 8) == 21
    assert opened.call(fibonacci, 8) == 21
    assert opened.call(known, 7) == 13


def test_a_child_goes_on_when_its_parent_has_ended(app, mark, flow_app):

    @app.workflow
    def child(wf: Workflow) -> None:
        wf.sleep(0.02)
        wf.run(mark, "child")

    @app.workflow
    def parent(wf: Workflow) -> None:
        wf.start(child)
        wf.run(mark, "parent")

    opened = flow_app(app)
    opened.call(parent)
    eventually(lambda: sorted(opened.call("marks")) == ["child", "parent"])


def test_an_action_that_nobody_waits_for_has_run_when_its_workflow_has_ended(app, flow_app):
    ran = []

    @app.action
    def act(x: int) -> None:
        ran.append(x)

    @app.workflow
    def flow(wf: Workflow) -> None:
        wf.start(act, 1)
        wf.start(act, 2)

    flow_app(app).call(flow)
    assert sorted(ran) == [1, 2]


def test_a_child_has_the_time_that_it_declares(app, flow_app):
    @app.workflow(timeout=0.1)
    def child(wf: Workflow) -> None:
        wf.sleep(3600)

    @app.workflow
    def parent(wf: Workflow) -> str:
        try:
            wf.run(child)
        except DeadlineExceeded as late:
            return late.code
        return "no"

    assert flow_app(app).call(parent) == "deadline_exceeded"


def test_a_transaction_leaves_a_workflow_for_later_if_it_commits(app, mark, outside, flow_app):

    @app.workflow
    def flow(wf: Workflow, word: str) -> None:
        wf.run(mark, wf.run(outside, word))

    @app.transaction
    def later(tx: Transaction, word: str, fail: bool) -> str:
        identifier = tx.enqueue(flow, word)
        if fail:
            raise Rejected("changed my mind")
        return identifier

    opened = flow_app(app)
    identifier = opened.call(later, "x", fail=False)
    with pytest.raises(Rejected):
        opened.call(later, "y", fail=True)
    opened.drain()
    assert opened.call("marks") == ["X"]
    assert [one["id"] for one in recorded(opened, "flow")] == [identifier]


# Long ones


def test_thousands_of_steps(app, mark, marks, flow_app, steps):
    """Each step is looked up in the history as often as the body runs: about once for a hundred steps."""
    count = 250 if steps == "each" else 3000

    @app.workflow
    def flow(wf: Workflow) -> int:
        total = 0
        for _ in range(count // 2):
            total += len(wf.run(marks)) if total < 10 else 1
            wf.run(mark, "x")
        return total

    opened = flow_app(app)
    opened.call(flow)
    assert len(opened.call("marks")) == count // 2


def test_more_queries_than_a_page_of_history_has(app, marks, flow_app, steps):
    count = 510 if steps == "together" else 30

    @app.workflow
    def flow(wf: Workflow) -> int:
        wf.sleep(0.001)
        return len(wf.gather([wf.start(marks) for _ in range(count)]))

    assert flow_app(app).call(flow) == count


def test_hundreds_of_children(app, mark, flow_app):

    @app.workflow
    def child(wf: Workflow, x: int) -> int:
        wf.run(mark, str(x))
        return 2 * x

    @app.workflow
    def parent(wf: Workflow, count: int) -> int:
        return sum(wf.gather(wf.start(child, x) for x in range(count)))

    opened = flow_app(app)
    assert opened.call(parent, 200) == sum(range(200)) * 2
    assert sorted(map(int, opened.call("marks"))) == list(range(200))


def test_large_arguments_and_results(app, flow_app):
    @app.transaction
    def double(tx: Transaction, text: str) -> str:
        return text + text

    @app.workflow
    def flow(wf: Workflow, text: str) -> str:
        for _ in range(3):
            text = wf.run(double, text)
            wf.publish("length", len(text))
        wf.sleep(0.001)
        return text

    size = 1 << 18
    assert flow_app(app).call(flow, "é" * size) == "é" * (size * 8)


def test_continue_as_begins_again_without_a_history(app, mark, flow_app):

    @app.workflow
    def flow(wf: Workflow, left: int, done: list[int] | None = None) -> list[int]:
        done = [*(done or []), wf.run(mark, f"round {left}")]
        wf.sleep(0.001)
        if left:
            wf.continue_as(left - 1, done=done)
        return done

    opened = flow_app(app)
    assert opened.call(flow, 4) == [1, 2, 3, 4, 5]
    assert opened.call("marks") == [f"round {left}" for left in (4, 3, 2, 1, 0)]


def test_a_workflow_that_has_begun_again_draws_other_numbers(app, mark, flow_app):

    @app.workflow
    def flow(wf: Workflow, left: int, drawn: list[str]) -> list[str]:
        drawn = [*drawn, wf.uuid(), str(wf.random.random())]
        wf.run(mark, drawn[-1])
        wf.sleep(0.001)
        if left:
            wf.continue_as(left - 1, drawn=drawn)
        return drawn

    assert len(set(flow_app(app).call(flow, 3, []))) == 8


def test_a_workflow_that_has_begun_again_is_the_call_that_it_was(app, mark, flow_app):
    """Its key stands for its first arguments, and a parent knows its child by them."""

    @app.workflow
    def flow(wf: Workflow, left: int, word: SecretStr | None = None) -> int:
        n = wf.run(mark, f"round {left}")
        if left:
            wf.continue_as(left - 1, word=word)
        return n

    @app.workflow
    def parent(wf: Workflow) -> int:
        return wf.run(flow, 2) + wf.run(flow, 1, SecretStr("hidden"))

    opened = flow_app(app)
    assert opened.call("flow", 2, idempotency_key="k") == 3
    assert opened.call("flow", 2, idempotency_key="k") == 3
    with pytest.raises(KeyReused):
        opened.call("flow", 0, idempotency_key="k")
    assert opened.call(parent) == 6 + 8
    inputs = [record["input"] for record in recorded(opened, "flow")]
    assert sorted(each["left"] for each in inputs) == [1, 2, 2]
    assert "hidden" not in str(inputs)


def test_an_action_that_was_started_before_continue_as_runs_to_its_end(app, flow_app):
    ran = []

    @app.action
    def act(x: int) -> None:
        ran.append(x)

    @app.workflow
    def flow(wf: Workflow, left: int) -> None:
        wf.start(act, left)
        if left:
            wf.continue_as(left - 1)

    opened = flow_app(app)
    opened.call(flow, 3)
    assert sorted(ran) == [0, 1, 2, 3]
    assert [one["status"] for one in recorded(opened, "act")] == ["ok"] * 4


# What a workflow may not do


def test_functions_are_run_by_the_workflow_and_not_called(app, flow_app):

    @app.workflow
    def child(wf: Workflow) -> None: ...

    @app.workflow
    def flow(wf: Workflow, which: str) -> None:
        app.functions[which](*((wf,) if which != "outside" else ("x",)))

    opened = flow_app(app)
    for which in ("mark", "marks", "outside", "child"):
        with pytest.raises(InternalError) as failed:
            opened.call(flow, which)
        assert "wf.run" in failed.value.__cause__.hint
    with pytest.raises(RuleBroken, match="is not called like a function"):
        child(None)


def test_a_step_with_wrong_arguments_is_refused_before_it_runs(app, mark, flow_app):

    @app.workflow
    def flow(wf: Workflow) -> list[str]:
        found = []
        for arguments in ({"mark": 7}, {"marks": "x"}, {}):
            try:
                wf.run(mark, **arguments)
            except RuleBroken as broken:
                found.append(broken.message)
        wf.run(mark, "right")
        return found

    opened = flow_app(app)
    messages = opened.call(flow)
    assert all("mark" in message for message in messages)
    assert len(messages) == 3
    assert opened.call("marks") == ["right"]
    with pytest.raises(WrongArguments):
        opened.call("flow", x=1)


def test_a_function_of_another_app_is_refused(app, make_app, flow_app):
    other = make_app(name="other")

    @other.transaction
    def strange(tx: Transaction) -> None: ...

    @app.workflow
    def flow(wf: Workflow) -> None:
        wf.run(strange)

    with pytest.raises(InternalError) as failed:
        flow_app(app).call(flow)
    assert "strange" in failed.value.__cause__.message


def test_a_body_that_swallows_everything_ends_all_the_same(app, mark, outside, flow_app):
    """Being left is a `BaseException`; a body that holds on to it is left at its next step, and its result is lost."""

    @app.workflow
    def flow(wf: Workflow) -> str:
        for word in ("a", "b"):
            try:
                wf.run(outside, word)
                wf.run(mark, word)
                wf.sleep(0.001)
            except BaseException:  # noqa: BLE001 - the point
                pass
        return "done"

    opened = flow_app(app)
    assert opened.call(flow) == "done"
    assert opened.call("marks") == ["a", "b"]


def test_a_body_that_ends_its_process_ends_its_workflow_only(app, mark, flow_app):

    @app.workflow
    def flow(wf: Workflow) -> None:
        wf.run(mark, "before")
        raise SystemExit

    opened = flow_app(app)
    with pytest.raises(InternalError):
        opened.call(flow)
    assert opened.call("marks") == ["before"]


def test_a_result_that_is_not_declared_fails_the_workflow(app, outside, flow_app):

    @app.workflow
    def flow(wf: Workflow) -> int:
        return wf.run(outside, "x")

    with pytest.raises(InternalError) as failed:
        flow_app(app).call(flow)
    assert "does not declare" in failed.value.__cause__.message


@pytest.mark.parametrize("bad", [object(), float("nan"), [float("inf")], "x" * (1 << 24)])
def test_what_is_no_json_cannot_be_published_or_sent(app, outside, flow_app, bad):

    @app.workflow
    def flow(wf: Workflow) -> str:
        with pytest.raises(RuleBroken):
            wf.publish("x", bad)
        with pytest.raises(RuleBroken):
            wf.send(wf.id, "x", bad)
        return wf.run(outside, "x")

    assert flow_app(app).call(flow) == "X"


def test_what_is_no_step_is_refused_by_its_name(app, outside, flow_app):

    @app.workflow
    def flow(wf: Workflow) -> list[str]:
        wrong: Any = wf
        for use in (
            lambda: wrong.run(print),
            lambda: wrong.start("outside", "x"),
            lambda: list(wrong.map(None, [1])),
            lambda: wrong.run(outside, "x", undo=print),
            lambda: wrong.gather([wf.start(outside, "a"), 1]),
        ):
            with pytest.raises(RuleBroken, match=r"function|nothing that this workflow has started"):
                use()
        return wf.gather([wf.start(outside, "x")])

    assert flow_app(app).call(flow) == ["X"]


def test_a_message_to_nobody_is_told_of(app, outside, flow_app):

    @app.workflow
    def flow(wf: Workflow) -> str:
        for _ in range(2):
            try:
                wf.send(wf.uuid(), "topic")
            except NotFound as error:
                wf.run(outside, "x")
                return error.code
        return ""

    assert flow_app(app).call(flow) == "not_found"


# Time that is over


def impatient(function, seconds=0.2):
    """Give the code of a workflow itself so long."""
    import dataclasses

    function.options = dataclasses.replace(function.options, timeout=seconds)
    return function


@pytest.mark.parametrize("how", ["compute", "ask", "publish"])
def test_a_body_that_never_comes_to_an_end_is_ended(app, mark, flow_app, how, monkeypatch):
    monkeypatch.setattr(ledger, "MAX_STEPS", 300)

    @app.workflow
    def flow(wf: Workflow) -> None:
        wf.run(mark, "begun")
        while True:
            if how == "ask":
                wf.now  # noqa: B018 - the point
            elif how == "publish":
                wf.publish("x", 1)

    if how == "compute":
        impatient(flow)
    opened = flow_app(app)
    with pytest.raises(Error) as failed:
        opened.call(flow)
    assert failed.value.code == ("deadline_exceeded" if how == "compute" else "too_many_steps")
    assert opened.call("marks") == ["begun"]


def test_a_workflow_whose_time_is_over_ends_wherever_it_is(app, mark, outside, flow_app):

    @app.workflow(timeout=0.15)
    def flow(wf: Workflow, how: str) -> None:
        wf.run(mark, how, undo=(mark, f"undo {how}"))
        if how == "sleep":
            wf.sleep(3600)
        elif how == "receive":
            wf.receive("nothing")
        elif how == "receive with timeout":
            wf.receive("nothing", timeout=3600)
        while True:
            wf.run(outside, "again")

    opened = flow_app(app)
    for how in ("sleep", "receive", "receive with timeout", "act"):
        with pytest.raises(DeadlineExceeded):
            opened.call(flow, how)
        assert opened.call("marks")[-2:] == [how, f"undo {how}"]


@pytest.mark.parametrize("how", ["compute", "sql", "write"])
def test_a_step_that_takes_too_long_fails_and_the_workflow_sees_it(app, mark, marks, flow_app, how):
    """An interrupted write ends the whole transaction on SQLite; what was done in it before is done again."""
    endless = "with recursive n (x) as (select 1 union all select x % 7 + 1 from n) select count(*) from n"

    @app.transaction(timeout=0.1)
    def slow(tx: Transaction) -> None:
        tx.log("it began")
        mark(tx, "lost")
        if how == "sql":
            tx.execute(endless)
        elif how == "write":
            tx.execute(f"insert into marks (n, mark) select 99, 'x' from ({endless}) as many")
        while True:
            pass

    @app.workflow
    def flow(wf: Workflow) -> str:
        wf.run(mark, "before")
        wf.run(marks)
        try:
            wf.run(slow)
        except DeadlineExceeded as late:
            wf.run(mark, "after")
            return late.code
        return ""

    opened = flow_app(app)
    assert opened.call(flow) == "deadline_exceeded"
    assert opened.call("marks") == ["before", "after"]
    recorded = opened.log.show(call=opened.log.calls(function="slow")[0]["id"])
    assert [line["message"] for line in recorded["lines"]] == ["it began"]


def test_a_step_that_took_too_long_may_be_another_step_when_it_comes_again(app, mark, marks, sqlite_app, steps):
    """What was done before it was lost with its transaction, and comes out otherwise the next time."""
    endless = "with recursive n (x) as (select 1 union all select x % 7 + 1 from n) select count(*) from n"
    runs = []

    @app.transaction
    def which(tx: Transaction) -> str:
        mark(tx, "which")
        runs.append(1)
        return "slow" if len(runs) == 1 else "slower"

    def body(tx) -> None:
        tx.execute(f"insert into marks (n, mark) select 99, 'x' from ({endless}) as many")

    for name in ("slow", "slower"):
        body.__name__ = name
        app.transaction(timeout=0.1)(body)

    @app.workflow
    def flow(wf: Workflow) -> str:
        chosen = wf.run(which)
        try:
            wf.run(app.functions[chosen])
        except DeadlineExceeded:
            return chosen
        return ""

    opened = sqlite_app(app)
    assert opened.call(flow) == ("slow" if steps == "each" else "slower")
    assert opened.call("marks") == ["which"]


def test_a_replay_that_takes_longer_than_the_body_may_take_is_no_fault(app, mark, flow_app, steps):
    """The time of a body is counted between two steps, also where they are answered from what is recorded."""

    @impatient
    @app.workflow
    def flow(wf: Workflow) -> int:
        total = 0
        for number in range(0, 1200, 1 if steps == "together" else 50):
            total += wf.run(mark, "x") if number % 300 == 0 else len(str(wf.now))
            if number % 100 == 0:
                threading.Event().wait(0.03)
        return wf.run(mark, "end") if total else 0

    opened = flow_app(app)
    assert opened.call(flow) == 5


def test_cancelled_and_its_friends_can_be_told_apart():
    assert not issubclass(Cancelled, Rejected)
