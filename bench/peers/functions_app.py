"""The function that `peers/functions.py` serves: the functions and statements of bench/apps, on psycopg.

A request's path names the operation, as in a small service that is deployed as one function. Runs in the environment of
functions-framework.
"""

import json
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import flask

from bench.data_set import statements
from bench.peers import functions_tpcc
from bench.peers.functions_database import Row, Transaction, Unavailable, transact

NIGHTS = 2

counters, shop, social, hotels = (statements(app) for app in ("increment", "shop", "retwis", "hotel"))


class Refused(Exception):
    """The application says no."""


def increment(tx: Transaction, key: int) -> int:
    value = (tx.value(counters.READ, key=key) or 0) + 1
    tx.run(counters.WRITE, key=key, value=value)
    return value


def add(tx: Transaction, key: int) -> int:
    added: int = tx.value(counters.ADD, key=key)
    return added


def browse(tx: Transaction, prefix: str, top: int) -> list[Row]:
    return tx.rows(shop.BROWSE, prefix=prefix, top=top)


def update_cart(tx: Transaction, user: int, item: int, quantity: int) -> int:
    cost: int | None = tx.value(shop.ITEM_COST, item=item)
    if cost is None:
        raise Refused("no such item")
    tx.run(shop.SET_LINE, user=user, item=item, quantity=quantity, cost=cost)
    return cost * quantity


def checkout(tx: Transaction, user: int) -> Row:
    cart = tx.rows(shop.CART, user=user)
    if not cart:
        raise Refused("the cart is empty")
    cost = sum(line["quantity"] * line["cost"] for line in cart)
    order = tx.value(shop.ADD_ORDER, user=user, cost=cost)
    for line in cart:
        item = tx.one(shop.ITEM, item=line["item_id"])
        if tx.run(shop.RESERVE, item=line["item_id"], quantity=line["quantity"]).rowcount != 1:
            raise Refused("out of stock")
        tx.run(shop.ADD_LINE, order=order, item=line["item_id"], quantity=line["quantity"], cost=item["cost"])
    return {"order_id": order, "cost": cost}


def timeline(tx: Transaction, user: int) -> list[Row]:
    posts: list[Row] = []
    for followee in tx.rows(social.FOLLOWEES, user=user):
        posts += tx.rows(social.LATEST, user=followee["followee_id"])
    posts.sort(key=itemgetter("at"), reverse=True)
    return posts


def post(tx: Transaction, user: int, text: str) -> int:
    added: int = tx.value(social.ADD_POST, user=user, at=time.time(), text=text)
    return added


def search(tx: Transaction, lat: int, lon: int, night: int) -> list[Row]:
    if night + NIGHTS - 1 > tx.value(hotels.SEASON):
        raise Refused("the season has ended then")
    offers = []
    for near in tx.rows(hotels.NEAREST, lat=lat, lon=lon):
        known = tx.one(hotels.HOTEL, hotel=near["hotel_id"])
        free = tx.value(hotels.FREE, hotel=near["hotel_id"], night=night)
        if free > 0:
            offers.append({**near, **known, "free": free})
    return offers


def recommend(tx: Transaction, lat: int, lon: int, by: str) -> Row | None:
    return tx.row(hotels.BEST[by], lat=lat, lon=lon)


def reserve(tx: Transaction, user: int, hotel: int, night: int) -> int:
    for one in range(night, night + NIGHTS):
        free = tx.value(hotels.FREE_AT, hotel=hotel, night=one)
        if free is None or tx.run(hotels.TAKE, hotel=hotel, night=one).rowcount != 1:
            raise Refused("no room is free")
    added: int = tx.value(hotels.ADD_RESERVATION, hotel=hotel, user=user, night=night)
    return added


def mail(user: int, reservation: int) -> str:
    """Tell the user, before the answer: a function has no time after it. The benchmark's mails go nowhere."""
    return f"To user {user}: your reservation {reservation} is confirmed."


def asks(text: str) -> Callable[[Transaction], Any]:
    """A function without arguments that asks for one number."""
    return lambda tx: int(tx.value(text))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "increment/increment": increment,
    "increment/add": add,
    "increment/effects": asks(counters.EFFECTS),
    "shop/browse": browse,
    "shop/update_cart": update_cart,
    "shop/checkout": checkout,
    "shop/effects": asks(shop.EFFECTS),
    "retwis/timeline": timeline,
    "retwis/post": post,
    "retwis/effects": asks(social.EFFECTS),
    "hotel/search": search,
    "hotel/recommend": recommend,
    "hotel/reserve": reserve,
    "hotel/violations": asks(hotels.VIOLATIONS),
    **functions_tpcc.OPERATIONS,
}


def handle(request: flask.Request) -> flask.Response:
    """One request."""
    if request.path == "/healthz":
        return answer("ok")
    name = request.path.removeprefix("/apps/")
    arguments = request.get_json()
    try:
        result = transact(OPERATIONS[name], arguments)
    except Refused as refusal:
        return answer({"detail": str(refusal)}, 409)
    except Unavailable:
        return answer({"detail": "too many conflicts"}, 503)
    if name == "hotel/reserve":
        mail(arguments["user"], result)
    return answer(result)


def answer(what: Any, status: int = 200) -> flask.Response:
    return flask.Response(json.dumps(what), status, content_type="application/json")
