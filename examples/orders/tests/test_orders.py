"""The saga: orders that are complete, and orders that leave nothing behind."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import apiary

ORDERS = Path(__file__).parents[1]
PICKS = [{"warehouse": "north", "item": "lamp", "count": 2}, {"warehouse": "south", "item": "cable", "count": 3}]
UNTOUCHED = (5, 5, 10_000, [])


@pytest.fixture
def orders(apiary_app: Callable[[Path], Any]) -> Any:
    opened = apiary_app(ORDERS)
    opened.call("stock_up", warehouse="north", item="lamp", count=5)
    opened.call("stock_up", warehouse="south", item="cable", count=5)
    opened.call("pay_in", account="ada", cents=10_000)
    return opened


def state(orders: Any) -> tuple[int, int, int, list[str]]:
    lamps = orders.call("left", warehouse="north", item="lamp")
    cables = orders.call("left", warehouse="south", item="cable")
    return lamps, cables, orders.call("balance", account="ada"), orders.call("finished")


def begin(orders: Any, cents: int = 2_500, address: str = "1 Hive Lane", picks: list[Any] | None = None) -> Any:
    return orders.start("order", account="ada", picks=picks or PICKS, cents=cents, address=address)


def packing(order: Any) -> None:
    """Wait until an order waits to be packed."""
    end = time.monotonic() + 20
    while order.published("state") is None:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_order_is_complete_when_it_was_packed(orders: Any) -> None:
    order = begin(orders)
    packing(order)
    assert state(orders) == (3, 2, 7_500, [])
    order.send("packed", True)
    assert order.result() == order.id
    assert state(orders) == (3, 2, 7_500, [order.id])


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("no_money", {"cents": 10_001}),
        ("out_of_stock", {"picks": [*PICKS, {"warehouse": "north", "item": "sofa", "count": 1}]}),
    ],
)
def test_what_was_taken_is_put_back_where_a_step_is_refused(orders: Any, code: str, changed: dict[str, Any]) -> None:
    with pytest.raises(apiary.Rejected) as refused:
        begin(orders, **changed).result()
    assert refused.value.code == code
    assert state(orders) == UNTOUCHED


def test_an_order_that_no_courier_takes_is_undone_the_last_step_first(orders: Any) -> None:
    order = begin(orders, address="nowhere")
    packing(order)
    order.send("packed", True)
    with pytest.raises(apiary.Rejected) as refused:
        order.result()
    assert refused.value.code == "nowhere"
    assert state(orders) == UNTOUCHED
    undone = [step["function"] for step in order.show()["steps"] if step["undo"]]
    assert undone == ["credit", "put_back", "put_back"]


def test_an_order_is_cancelled_while_it_waits(orders: Any) -> None:
    order = begin(orders)
    packing(order)
    order.cancel()
    with pytest.raises(apiary.Cancelled):
        order.result()
    assert state(orders) == UNTOUCHED
