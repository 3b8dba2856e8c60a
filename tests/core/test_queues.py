"""Queues that an app declares: how many run at once, who is first, what waits once only. Around `test_queue.py`."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

import apiary
from apiary import App, Conflict, DeclarationError, RuleBroken, Transaction, Workflow
from apiary.engine import backlog
from apiary.engine.deaths import Death
from apiary.log import workflows

TABLES = "create table done (x integer not null)"
LONG_SECONDS = 30.0


class Gate:
    """Lets actions through one by one, and knows who has come."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.came: list[int] = []
        self.inside = 0
        self.most = 0
        self.open = 0

    def through(self, x: int) -> None:
        with self.changed:
            self.came.append(x)
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.open > 0, LONG_SECONDS)
            self.open -= 1
            self.inside -= 1

    def let(self, number: int) -> None:
        with self.changed:
            self.open += number
            self.changed.notify_all()

    def wait(self, number: int) -> None:
        """Until so many have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.came) >= number, LONG_SECONDS), self.came


@pytest.fixture
def gate(alarm):
    return Gate()


@pytest.fixture
def app(make_app, gate):
    app = make_app(TABLES)
    app.queue("narrow", concurrency=2, fair_by="tenant")
    app.queue("single", concurrency=1)

    @app.action(queue="narrow")
    def act(x: int, tenant: str = "") -> int:
        gate.through(x)
        return x

    @app.transaction(queue="single")
    def put(tx: Transaction, x: int) -> None:
        if x < 0:
            raise ValueError(x)
        tx.execute("insert into done (x) values (:x)", x=x)

    @app.workflow(queue="single")
    def wait(wf: Workflow, x: int) -> object:
        wf.publish("began", x)
        return wf.receive("go")

    @app.transaction
    def later(tx: Transaction, name: str, calls: list[dict], options: list[dict] | None = None) -> list[str]:
        options = options or [{} for _ in calls]
        at = {"at": datetime.now(UTC) + timedelta(seconds=3600)}
        found = []
        for call, how in zip(calls, options, strict=True):
            how = at if "at" in how else how
            found.append(tx.enqueue(app.functions[name].with_options(**how), **call))
        return found

    @app.query
    def done(tx: Transaction) -> list[int]:
        return tx.execute("select x from done order by x").scalars()

    return app


@pytest.fixture
def opened(app, engine_app):
    return engine_app(app)


@pytest.fixture
def stopped(opened):
    """The app, whose queue is not run yet."""
    opened._dispatcher.backlog.deactivate()
    return opened


def order(opened) -> list[dict]:
    """The arguments of the calls that ran from the queue, in the order of their records."""
    calls = opened.log.calls(limit=1000)
    shown = [opened.log.show(call=call["id"]) for call in reversed(calls)]
    return [call["input"] for call in shown if call["function"] in ("act", "put")]


def test_no_more_run_than_may(opened, gate):
    opened.call("later", "act", [{"x": x} for x in range(7)])
    for x in range(7):
        gate.wait(min(x + 2, 7))
        gate.let(1)
    opened.drain()
    assert (gate.most, sorted(gate.came)) == (2, list(range(7)))


def test_a_queue_without_room_holds_up_no_other(opened, gate):
    opened.call("later", "act", [{"x": x} for x in range(5)])
    gate.wait(2)
    opened.call("later", "put", [{"x": x} for x in range(40)])
    while len(opened.call("done")) < 40:
        time.sleep(0.002)
    assert len(gate.came) == 2
    gate.let(5)
    opened.drain()


def test_those_of_a_higher_priority_come_first(stopped):
    options = [{"priority": priority} for priority in (0, 5, -1, 5, 7, 0)]
    stopped.call("later", "put", [{"x": x} for x in range(6)], options)
    stopped._dispatcher.backlog.activate()
    stopped.drain()
    assert [call["x"] for call in order(stopped)] == [4, 1, 3, 0, 5, 2]


@pytest.mark.parametrize("window", [4, 1000])
def test_shares_take_turns_whatever_their_number_of_calls(stopped, gate, monkeypatch, window):
    monkeypatch.setattr(backlog, "WINDOW", window)
    calls = [{"x": x, "tenant": "large"} for x in range(30)]
    stopped.call("later", "act", [*calls, {"x": 100, "tenant": "small"}, {"x": 200, "tenant": "tiny"}])
    gate.let(100)
    stopped._dispatcher.backlog.activate()
    stopped.drain()
    assert {100, 200} <= set(gate.came[:5])
    assert len(gate.came) == 32


def test_a_share_that_comes_later_has_its_turn_at_once(opened, gate, monkeypatch):
    monkeypatch.setattr(backlog, "WINDOW", 4)
    opened.call("later", "act", [{"x": x, "tenant": "large"} for x in range(30)])
    gate.wait(2)
    opened.call("later", "act", [{"x": 100, "tenant": "small"}])
    gate.let(2)
    gate.wait(4)
    assert 100 in gate.came[:4]
    gate.let(100)
    opened.drain()


def test_a_call_begins_after_its_delay(opened):
    now = time.time()
    opened.call("later", "put", [{"x": 1}, {"x": 2}], [{"delay": 0.2}, {}])
    opened.drain()
    assert [call["x"] for call in order(opened)] == [2, 1]
    assert time.time() - now >= 0.2


def test_what_is_due_much_later_stays_in_the_table(opened):
    (later,) = opened.call("later", "put", [{"x": 1}], [{"at": True}])
    opened.drain()
    assert (opened.call("done"), opened._dispatcher.backlog._known) == ([], {})
    assert opened.engine.queued_call(apiary.runtime.ids.id_bytes(later)).due > (time.time() + 3500) * 1e6


def test_a_call_waits_once_under_its_name(opened, gate):
    first, second = opened.call("later", "act", [{"x": 1}, {"x": 2}], [{"unique": "a"}, {"unique": "b"}])
    assert first != second
    gate.wait(2)
    third, fourth, fifth, sixth = opened.call(
        "later",
        "act",
        [{"x": x} for x in (3, 4, 5, 6)],
        [{"unique": "a"}, {"unique": "a"}, {"unique": "b"}, {}],
    )
    assert third == fourth
    assert len({first, second, third, fifth, sixth}) == 5  # the first ones have begun: they knew less
    gate.let(10)
    opened.drain()
    assert sorted(gate.came) == [1, 2, 3, 5, 6]


def test_a_name_is_free_again_when_its_transaction_fails(opened):
    (first,) = opened.call("later", "put", [{"x": -1}], [{"unique": "a"}])
    opened.drain()
    (second,) = opened.call("later", "put", [{"x": 1}], [{"unique": "a"}])
    opened.drain()
    assert first != second
    assert opened.call("done") == [1]


@pytest.mark.parametrize("name", ["put", "act"])
def test_the_latest_arguments_win_after_a_quiet_time(opened, gate, name):
    gate.let(100)
    ids = set()
    for x in range(5):
        ids |= set(opened.call("later", name, [{"x": x}], [{"unique": "a", "debounce": 0.3}]))
    opened.drain()
    assert len(ids) == 1
    assert order(opened) == [{"x": 4}]


def test_what_was_changed_elsewhere_meanwhile_is_seen(app, engine_app):
    """The other process keeps the old time and the old arguments in memory."""
    first, second = engine_app(app), engine_app(app)
    second._dispatcher.backlog.deactivate()
    first.call("later", "put", [{"x": 1}], [{"unique": "a", "debounce": 0.2}])
    second.call("later", "put", [{"x": 2}], [{"unique": "a", "debounce": 0.5}])
    began = time.monotonic()
    first.drain()
    assert time.monotonic() - began > 0.3
    assert first.call("done") == [2]


def test_a_workflow_runs_from_its_beginning_to_its_end(opened):
    first, second = opened.start("wait", 1), opened.start("wait", 2)
    while first.show()["published"] != {"began": 1}:
        time.sleep(0.002)
    assert [shown["status"] for shown in workflows.workflows(opened._log)] == ["queued", "waiting"]
    opened.call("later", "put", [{"x": 1}])
    first.send("go", "on")
    assert first.result(LONG_SECONDS) == "on"
    second.send("go", "on")
    assert second.result(LONG_SECONDS) == "on"
    opened.drain()
    assert opened.call("done") == [1]


def test_a_workflow_that_has_begun_counts_beyond_the_end_of_its_process(app, engine_app):
    opened = engine_app(app)
    first, second = opened.start("wait", 1).id, opened.start("wait", 2).id
    while opened.workflow(first).show()["published"] != {"began": 1}:
        time.sleep(0.002)
    opened.close()
    again = engine_app(app)
    again.workflow(second).send("go", "second")  # also to one that has not begun
    again.call("later", "put", [{"x": 1}])
    assert again._dispatcher.backlog.take(10) == []
    again.workflow(first).send("go", "first")
    again.drain()
    assert again.workflow(second).result(LONG_SECONDS) == "second"
    assert again.call("done") == [1]


def test_a_workflow_that_waits_for_its_turn_is_begun_once_by_its_key(opened):
    first = opened.start("wait", 1)
    second = opened.start("wait", 2, idempotency_key="k")
    assert opened.start("wait", 2, idempotency_key="k").id == second.id
    for handle in (first, second):
        handle.send("go", handle.id)
    assert opened.start("wait", 2, idempotency_key="k").result(LONG_SECONDS) == second.id


def test_a_workflow_that_waits_for_its_turn_can_be_cancelled(opened):
    first, second = opened.start("wait", 1), opened.start("wait", 2)
    second.cancel()
    with pytest.raises(apiary.Cancelled):
        second.result(LONG_SECONDS)
    with pytest.raises(Conflict):
        second.send("go")
    first.send("go", "on")
    assert first.result(LONG_SECONDS) == "on"


def test_children_wait_for_their_turn_too(make_app, engine_app):
    app = make_app()
    app.queue("narrow", concurrency=2)
    running, most = set(), []

    @app.action
    def note(x: int, here: bool) -> None:
        (running.add if here else running.discard)(x)
        most.append(len(running))

    @app.workflow(queue="narrow")
    def child(wf: Workflow, x: int) -> int:
        wf.run(note, x, True)
        wf.sleep(0.01)
        wf.run(note, x, False)
        return x * x

    @app.workflow
    def parent(wf: Workflow) -> list[int]:
        return wf.gather([wf.start(child, x) for x in range(8)])

    opened = engine_app(app)
    assert opened.call("parent") == [x * x for x in range(8)]
    assert max(most) == 2


def test_calls_of_a_queue_that_is_gone_run_all_the_same(app, engine_app, make_app):
    opened = engine_app(app)
    opened._dispatcher.backlog.deactivate()
    opened.call("later", "put", [{"x": x} for x in range(5)])
    opened.close()
    app = App("core", migrations=app.migrations)

    @app.transaction
    def put(tx: Transaction, x: int) -> None:
        tx.execute("insert into done (x) values (:x)", x=x)

    @app.query
    def done(tx: Transaction) -> list[int]:
        return tx.execute("select x from done order by x").scalars()

    opened = engine_app(app)
    opened.drain()
    assert opened.call("done") == list(range(5))


class Rated:
    """An app with a queue whose rate is (3, 0.4), and when the database let calls of it begin, at the latest."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.began: list[tuple[float, float]] = []
        app.queue("slow", rate=(3, 0.4), concurrency=None)

        @app.action(queue="slow")
        def act() -> None: ...

        @app.transaction
        def later(tx: Transaction, number: int) -> None:
            for _ in range(number):
                tx.enqueue(act)

    def watch(self, opened: apiary.OpenApp) -> apiary.OpenApp:
        admit = opened.engine.admit

        def watched(*given):
            before = time.monotonic()
            admitted, wait = admit(*given)
            self.began += [(before, time.monotonic())] * admitted
            return admitted, wait

        opened.engine.admit = watched
        return opened

    def check(self, number: int) -> None:
        assert len(self.began) == number
        for (before, _), (_, after) in zip(self.began, self.began[3:], strict=False):
            assert after - before >= 0.4, self.began


@pytest.fixture
def rated(make_app):
    return Rated(make_app())


def test_no_more_begin_within_a_time_than_may_also_in_the_next_process(rated, engine_app):
    for _ in range(2):
        opened = rated.watch(engine_app(rated.app))
        opened.call("later", 5)
        opened.drain()
        opened.close()
    rated.check(10)


def test_only_what_begins_counts_for_the_rate(rated, engine_app):
    """Few calls at first, many later: the ones that were not there at first were not let begin then."""
    opened = rated.watch(engine_app(rated.app))
    opened.call("later", 1)
    opened.drain()
    rated.check(1)
    time.sleep(0.4)
    opened.call("later", 7)
    opened.drain()
    rated.check(8)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": "Mail"}, "cannot be the name of a queue"),
        ({"concurrency": 0}, "concurrency is a number from 1 on"),
        ({"concurrency": True}, "concurrency is a number from 1 on"),
        ({"rate": (0, 60)}, "rate is a number of calls and a number of seconds"),
        ({"rate": (1, 0)}, "rate is a number of calls and a number of seconds"),
        ({"rate": 5}, "rate is a number of calls and a number of seconds"),
        ({"fair_by": 5}, "fair_by is the name of an argument"),
    ],
)
def test_a_queue_is_declared_well(options, match):
    with pytest.raises(DeclarationError, match=match):
        App("app").queue(**{"name": "mail", **options})


def test_a_function_names_a_queue_that_is_there_and_fits(tmp_path):
    app = App("app")
    app.queue("mail", fair_by="tenant")

    @app.action(queue="post")
    def send(user: int) -> None: ...

    with pytest.raises(DeclarationError, match="send is for the queue 'post', which the app does not have"):
        apiary.open(app, f"sqlite:///{tmp_path}/a.db")
    app.queue("post", fair_by="tenant")
    with pytest.raises(DeclarationError, match="the queue post is fair by tenant, which is no argument of send"):
        apiary.open(app, f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(DeclarationError, match="declares the queue mail twice"):
        app.queue("mail")
    with pytest.raises(DeclarationError, match="queue is a queue of the app or its name"):
        app.action(queue=5)
    with pytest.raises(DeclarationError, match="a query has no option 'queue'"):
        app.query(queue="mail")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"delay": -1}, "delay is a number of seconds"),
        ({"delay": 1, "at": datetime.now(UTC)}, "of delay, at and debounce, a call has one"),
        ({"at": datetime.now()}, "at is a datetime with a time zone"),  # noqa: DTZ005 - that is the fault
        ({"priority": 1001}, "priority is a number from -1000 to 1000"),
        ({"unique": ""}, "unique is text"),
        ({"unique": "a\0"}, "unique is text"),
        ({"debounce": 1}, "debounce needs unique"),
    ],
)
def test_the_terms_of_a_call_make_sense(app, options, match):
    with pytest.raises(RuleBroken, match=match):
        app.functions["put"].with_options(**options)


def test_terms_are_those_of_one_call(app):
    put = app.functions["put"]
    assert put.with_options(priority=3).terms.priority == 3
    assert put.terms.priority == 0
    assert json.dumps(put.with_options(priority=3).name) == '"put"'


@pytest.mark.parametrize("queue", [None, "single"])
def test_a_workflow_is_debounced_too(make_app, engine_app, queue):
    app = make_app()
    app.queue("single", concurrency=1)

    @app.workflow(queue=queue)
    def echo(wf: Workflow, x: int) -> int:
        return x

    @app.transaction
    def later(tx: Transaction, x: int) -> str:
        return tx.enqueue(echo.with_options(unique="a", debounce=0.2), x)

    opened = engine_app(app)
    first, second = opened.call(later, 1), opened.call(later, 2)
    assert first == second
    assert opened.workflow(first).result(LONG_SECONDS) == 2
    third = opened.call(later, 3)
    assert third != first
    assert opened.workflow(third).result(LONG_SECONDS) == 3


def test_a_call_whose_process_may_have_died_counts_for_the_limits(stopped, gate):
    gate.let(100)
    stopped.call("later", "act", [{"x": x} for x in range(6)])
    queue = stopped._dispatcher.backlog
    ids = [queued.id for queued in stopped.engine.queued(100)]
    stopped._dispatcher._deaths.count([Death(identifier, "it was ended", False) for identifier in ids[:3]])
    queue.activate()
    stopped.drain()
    assert gate.most <= 2
    assert sorted(gate.came) == list(range(6))


def test_a_call_whose_process_may_have_died_begins_when_there_is_room(stopped, gate):
    stopped.call("later", "act", [{"x": x} for x in range(3)])
    first = stopped.engine.queued(100)[0].id
    stopped._dispatcher._deaths.count([Death(first, "it was ended", False)])
    stopped._dispatcher.backlog.activate()
    gate.wait(2)
    assert sorted(gate.came) == [1, 2]
    gate.let(1)
    gate.wait(3)
    gate.let(2)
    stopped.drain()


def test_a_workflow_that_has_begun_leaves_its_name_to_the_next(opened):
    (first,) = opened.call("later", "wait", [{"x": 1}], [{"unique": "a"}])
    while opened.workflow(first).show()["published"] != {"began": 1}:
        time.sleep(0.002)
    second, third = opened.call("later", "wait", [{"x": 2}, {"x": 3}], [{"unique": "a"}, {"unique": "a"}])
    assert second == third != first
    for workflow in (first, second):
        opened.workflow(workflow).send("go", workflow)
        assert opened.workflow(workflow).result(LONG_SECONDS) == workflow
