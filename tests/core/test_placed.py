"""Batches of an app that has functions inside the database and beside it: each call runs where it belongs."""

from dataclasses import replace

import pytest

from apiary import App
from apiary.codec import compile_program
from apiary.engine.postgres.placed import PlacedLane
from apiary.engine.protocol import Committed
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call, Outcome, Queued, Record

app = App("placed")


@app.transaction
def near(tx) -> None: ...


@app.transaction(placement="host")
def far(tx) -> None: ...


class Lane:
    """Answers each call with the name of its place; `more` is what else it tells of a batch."""

    def __init__(self, name):
        self.name = name
        self.batches = []
        self.more = {}

    def run(self, calls, records=()):
        self.batches.append((list(calls), list(records)))
        return Committed([Outcome(self.name.encode()) for _ in calls], durable=True, **self.more)


@pytest.fixture
def lanes():
    return Lane("inside"), Lane("beside")


@pytest.fixture
def placed(lanes):
    return PlacedLane(*lanes, compile_program(app, "local"))


def call(function):
    return Call(new_id(), function, b"{}", "tester", frozenset(), None)


def record():
    return Record(new_id(), "near", "transaction", "local", "tester", 1, 0, 0, "ok", b"{}", b"1", None, None, None)


def test_each_call_runs_where_it_belongs(placed, lanes):
    done = placed.run([call("far"), call("near"), call("far")])
    assert [outcome.output for outcome in done.outcomes] == [b"beside", b"inside", b"beside"]
    assert [len(lane.batches[0][0]) for lane in lanes] == [1, 2]


def test_a_place_without_calls_is_not_asked(placed, lanes):
    inside, beside = lanes
    placed.run([call("far")])
    assert (len(inside.batches), len(beside.batches)) == (0, 1)
    placed.run([call("near")])
    assert (len(inside.batches), len(beside.batches)) == (1, 1)
    placed.run([call("far")], [record()])
    assert (len(inside.batches[1][1]), len(beside.batches)) == (1, 2)


@pytest.mark.parametrize("number", [0, 1])
def test_what_either_place_tells_of_its_batch_is_told(placed, lanes, number):
    queued = Queued(new_id(), "near", b"{}", "tester", None, 0)
    lanes[number].more = {"doubt": True, "lost": [record()], "queued": [queued]}
    done = placed.run([call("far"), call("near")])
    assert (done.doubt, len(done.lost), done.queued) == (True, 1, [queued])
    lanes[number].more = {}
    assert replace(placed.run([call("far"), call("near")]), outcomes=()) == Committed((), [], [], durable=True)
