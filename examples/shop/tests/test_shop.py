"""The shop: carts, orders, stock, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import apiary

SHOP = Path(__file__).parents[1]
LOAFERS, SHAKERS, JAR, MUG = 4, 7, 8, 9
BEE, OTHER_BEE = 1, 2


@pytest.fixture
def shop(apiary_app: Callable[[Path], Any]) -> Any:
    """The shop with the real catalogue, 100 pieces of each item."""
    opened = apiary_app(SHOP)
    items = json.loads((SHOP / "shop" / "catalogue.json").read_text())
    assert opened.call("load_catalogue", items=items) == 9
    return opened


def stock(shop: Any, item: int) -> int:
    return int(shop.call("item", item=item).inventory)


def refusal(shop: Any, function: str, **arguments: Any) -> str:
    with pytest.raises(apiary.Rejected) as refused:
        shop.call(function, **arguments)
    return str(refused.value.code)


def test_browse_shows_a_page_of_items_by_name(shop: Any) -> None:
    names = [listing.name for listing in shop.call("browse")]
    assert len(names) == 8
    assert names == sorted(names)


def test_browse_by_prefix_whatever_its_case_and_by_price(shop: Any) -> None:
    assert [found.name for found in shop.call("browse", prefix="s")] == ["Salt & Pepper Shakers", "Sunglasses"]
    assert [found.name for found in shop.call("browse", prefix="S", top_cost=1900)] == ["Salt & Pepper Shakers"]
    assert shop.call("browse", prefix="%") == []


def test_an_item_has_its_tags(shop: Any) -> None:
    hairdryer = shop.call("item", item=5)
    assert hairdryer.sku == "2ZYFJ3GM2N"
    assert hairdryer.tags == ["hair", "beauty"]


def test_loading_the_catalogue_again_changes_prices_and_keeps_the_stock(shop: Any) -> None:
    mug = shop.call("item", item=MUG)
    shop.call("restock", item=MUG, quantity=5)
    shop.call("load_catalogue", items=[replace(mug, cost=999, inventory=0)])
    assert shop.call("item", item=MUG) == replace(mug, cost=999, inventory=105)


def test_the_cart_adds_up_and_can_be_emptied(shop: Any) -> None:
    assert shop.call("add_to_cart", user=BEE, item=MUG) == 1
    assert shop.call("add_to_cart", user=BEE, item=MUG, quantity=2) == 3
    assert [asdict(line) for line in shop.call("cart", user=BEE)] == [{"item_id": MUG, "quantity": 3, "cost": 899}]
    assert shop.call("cart", user=OTHER_BEE) == []
    assert shop.call("remove", user=BEE, item=MUG) == []


def test_offers_are_of_the_same_kind_and_cost_no_more(shop: Any) -> None:
    shop.call("add_to_cart", user=BEE, item=SHAKERS)
    shop.drain()
    assert [offer.item_id for offer in shop.call("offers", user=BEE)] == [JAR, MUG]


def test_a_refused_call_leaves_no_offers_behind(shop: Any) -> None:
    assert refusal(shop, "add_to_cart", user=BEE, item=404) == "unknown_item"
    shop.drain()
    assert shop.call("offers", user=BEE) == []


def test_an_order_takes_the_stock_and_empties_the_cart(shop: Any) -> None:
    shop.call("add_to_cart", user=BEE, item=MUG, quantity=3)
    shop.call("add_to_cart", user=BEE, item=LOAFERS)
    order = shop.call("place_order", user=BEE)
    assert order.cost == 3 * 899 + 8999
    assert order.status == "placed"
    assert [line.item_id for line in order.lines] == [LOAFERS, MUG]
    assert shop.call("order", order=order.order_id) == order
    assert [listed.order_id for listed in shop.call("orders", user=BEE)] == [order.order_id]
    assert shop.call("cart", user=BEE) == []
    assert (stock(shop, MUG), stock(shop, LOAFERS)) == (97, 99)
    assert asdict(shop.call("sales")) == {"orders": 1, "pieces": 4, "cost": order.cost}


def test_the_price_is_that_of_the_day_when_it_went_into_the_cart(shop: Any) -> None:
    shop.call("add_to_cart", user=BEE, item=MUG)
    shop.call("load_catalogue", items=[replace(shop.call("item", item=MUG), cost=5000)])
    assert shop.call("place_order", user=BEE).cost == 899


def test_ordering_again_with_the_same_key_orders_once(shop: Any) -> None:
    shop.call("add_to_cart", user=BEE, item=MUG)
    first = shop.call("place_order", user=BEE, idempotency_key="bee-1-monday")
    shop.call("add_to_cart", user=BEE, item=MUG)
    assert shop.call("place_order", user=BEE, idempotency_key="bee-1-monday") == first
    assert stock(shop, MUG) == 99
    assert shop.call("cart", user=BEE) != []


def test_out_of_stock_takes_nothing_at_all(shop: Any) -> None:
    shop.call("add_to_cart", user=BEE, item=LOAFERS)
    shop.call("add_to_cart", user=BEE, item=MUG, quantity=101)
    with pytest.raises(apiary.Rejected) as refused:
        shop.call("place_order", user=BEE)
    assert refused.value.code == "out_of_stock"
    assert refused.value.details == {"item": MUG, "left": 100}
    assert (stock(shop, LOAFERS), stock(shop, MUG)) == (100, 100)
    assert len(shop.call("cart", user=BEE)) == 2
    assert shop.call("orders", user=BEE) == []


def test_the_last_piece_is_sold_once(shop: Any) -> None:
    for bee in (BEE, OTHER_BEE):
        shop.call("add_to_cart", user=bee, item=MUG, quantity=100)
    shop.call("place_order", user=BEE)
    assert refusal(shop, "place_order", user=OTHER_BEE) == "out_of_stock"
    assert shop.call("restock", item=MUG, quantity=100) == 100
    shop.call("place_order", user=OTHER_BEE)
    assert stock(shop, MUG) == 0


def test_paying_by_card(shop: Any) -> None:
    shop.call("add_to_cart", user=BEE, item=MUG)
    order = shop.call("reserve", user=BEE)
    assert order.status == "reserved"
    receipt = shop.call("charge", card="visa", cents=order.cost, idempotency_key="charge-1")
    assert shop.call("charge", card="visa", cents=order.cost, idempotency_key="charge-1") == receipt
    assert shop.call("confirm", order=order.order_id, receipt=receipt).status == "paid"
    assert refusal(shop, "release", order=order.order_id) == "not_reserved"
    assert stock(shop, MUG) == 99


def test_a_declined_card_gives_the_stock_back(shop: Any) -> None:
    shop.call("add_to_cart", user=BEE, item=MUG, quantity=2)
    order = shop.call("reserve", user=BEE)
    assert stock(shop, MUG) == 98
    assert refusal(shop, "charge", card="declined", cents=order.cost) == "payment_declined"
    assert shop.call("release", order=order.order_id).status == "released"
    assert stock(shop, MUG) == 100
    assert asdict(shop.call("sales")) == {"orders": 0, "pieces": 0, "cost": 0}


@pytest.mark.parametrize(
    ("code", "function", "arguments"),
    [
        ("unknown_item", "item", {"item": 404}),
        ("unknown_item", "restock", {"item": 404, "quantity": 1}),
        ("unknown_order", "order", {"order": 404}),
        ("empty_cart", "place_order", {"user": BEE}),
        ("empty_cart", "reserve", {"user": BEE}),
        ("not_reserved", "confirm", {"order": 404, "receipt": "none"}),
    ],
)
def test_refusals(shop: Any, code: str, function: str, arguments: dict[str, Any]) -> None:
    assert refusal(shop, function, **arguments) == code


@pytest.mark.parametrize("quantity", [0, -1, 1001, "many"])
def test_a_quantity_is_a_positive_number(shop: Any, quantity: object) -> None:
    with pytest.raises(apiary.WrongArguments):
        shop.call("add_to_cart", user=BEE, item=MUG, quantity=quantity)
    assert shop.call("cart", user=BEE) == []


def test_checking_out_is_one_workflow(shop: Any) -> None:
    shop.call("add_to_cart", user=BEE, item=MUG, quantity=2)
    assert shop.call("checkout", user=BEE, card="visa").status == "paid"
    assert stock(shop, MUG) == 98
    shop.call("add_to_cart", user=BEE, item=MUG, quantity=3)
    assert refusal(shop, "checkout", user=BEE, card="declined") == "payment_declined"
    assert stock(shop, MUG) == 98
    assert sorted(order.status for order in shop.call("orders", user=BEE)) == ["paid", "released"]
