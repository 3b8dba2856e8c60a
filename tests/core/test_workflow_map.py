"""`wf.map`: a function for each of many items, some at a time, however often the body is run again."""

import threading
from collections.abc import Iterator

import pytest

import apiary
from apiary import Rejected, Transaction, Workflow


class Seen:
    """How many are open, and how many items were taken."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open = self.most = self.taken = 0

    def change(self, by: int) -> None:
        with self.lock:
            self.open += by
            self.most = max(self.most, self.open)

    def items(self) -> Iterator[int]:
        for x in range(10_000):
            self.taken = max(self.taken, x + 1)
            yield x


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def app(make_app, seen):
    app = make_app("create table done (x integer primary key)")
    app.queue("narrow", concurrency=2)

    @app.action
    def square(x: int) -> int:
        if x < 0:
            raise Rejected("no root", code="negative", x=x)
        seen.change(1)
        seen.change(-1)
        return x * x

    @app.transaction
    def put(tx: Transaction, x: int) -> int:
        tx.execute("insert into done (x) values (:x)", x=x)
        return x * x

    @app.workflow(queue="narrow")
    def child(wf: Workflow, x: int) -> int:
        return wf.run(square, x)

    @app.workflow
    def every(wf: Workflow, name: str, items: list[int], at_most: int = 50) -> list[int]:
        return list(wf.map(app.functions[name], items, at_most=at_most))

    @app.workflow
    def first(wf: Workflow, number: int) -> list[int]:
        results = wf.map(square, seen.items(), at_most=4)
        return [next(results) for _ in range(number)]

    @app.workflow
    def refused(wf: Workflow) -> list[object]:
        found = []
        results = wf.map(square, [1, -2, 3], at_most=2)
        try:
            for result in results:
                found.append(result)
        except Rejected as error:
            found.append(error.code)
        return found

    return app


@pytest.fixture
def opened(app, flow_app):
    return flow_app(app)


@pytest.mark.parametrize("name", ["square", "put", "child"])
def test_results_come_in_the_order_of_the_items(opened, name):
    assert opened.call("every", name, list(range(20)), 3) == [x * x for x in range(20)]


def test_no_more_are_open_than_may_be(opened, seen):
    opened.call("every", "square", list(range(12)), 2)
    assert 1 <= seen.most <= 2


def test_items_are_taken_as_they_are_needed(opened, seen):
    assert opened.call("first", 3) == [0, 1, 4]
    assert seen.taken <= 3 + 4


def test_what_one_raises_is_raised_in_its_place(opened):
    assert opened.call("refused") == [1, "negative"]


@pytest.mark.parametrize("at_most", [0, -1])
def test_at_least_one_is_open(opened, at_most):
    with pytest.raises(apiary.InternalError) as raised:
        opened.call("every", "square", [1], at_most)
    assert "at_most is a number from 1 on" in str(raised.value.__cause__)
