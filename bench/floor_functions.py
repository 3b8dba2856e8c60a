"""The functions of each app on a cursor of APSW, by hand: what `floor.py` runs."""

import time
from collections.abc import Callable
from operator import itemgetter
from types import ModuleType
from typing import Any

import apsw

from bench.workloads import flow
from bench.workloads.tpcc import Wanted, last_name, order_lines, other

Function = Callable[..., Any]


def increment_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def increment(key: int) -> int:
        rows: list[Any] = cursor.execute(sql.READ, {"key": key}).fetchall()
        value: int = (rows[0][0] if rows else 0) + 1
        cursor.execute(sql.WRITE, {"key": key, "value": value})
        return value

    def add(key: int) -> int:
        value: int = _one(cursor, sql.ADD, {"key": key})[0]
        return value

    return {"increment": increment, "add": add}


def shop_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def browse(prefix: str, top: int) -> list[Any]:
        return cursor.execute(sql.BROWSE, {"prefix": prefix, "top": top}).fetchall()

    def update_cart(user: int, item: int, quantity: int) -> int:
        cost = _one(cursor, sql.ITEM_COST, {"item": item})[0]
        cursor.execute(sql.SET_LINE, {"user": user, "item": item, "quantity": quantity, "cost": cost})
        total: int = cost * quantity
        return total

    def checkout(user: int) -> tuple[int, int]:
        cart: list[Any] = cursor.execute(sql.CART, {"user": user}).fetchall()
        total = sum(quantity * cost for _, quantity, cost in cart)
        order = _one(cursor, sql.ADD_ORDER, {"user": user, "cost": total})[0]
        for item, quantity, _ in cart:
            cost = _one(cursor, sql.ITEM, {"item": item})[0]
            cursor.execute(sql.RESERVE, {"item": item, "quantity": quantity})
            assert cursor.connection.changes() == 1
            cursor.execute(sql.ADD_LINE, {"order": order, "item": item, "quantity": quantity, "cost": cost})
        return order, total

    return {"browse": browse, "update_cart": update_cart, "checkout": checkout}


def _one(cursor: apsw.Cursor, text: str, values: dict[str, Any]) -> Any:
    """The only row; read to its end, because a statement that is under way keeps a transaction from its commit."""
    return cursor.execute(text, values).fetchall()[0]


def retwis_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def timeline(user: int) -> list[Any]:
        posts: list[Any] = []
        for (followee,) in cursor.execute(sql.FOLLOWEES, {"user": user}).fetchall():
            posts += cursor.execute(sql.LATEST, {"user": followee}).fetchall()
        posts.sort(key=itemgetter(2), reverse=True)
        return posts

    def post(user: int, text: str) -> Any:
        return _one(cursor, sql.ADD_POST, {"user": user, "at": time.time(), "text": text})

    return {"timeline": timeline, "post": post}


def hotel_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def search(lat: int, lon: int, night: int) -> list[Any]:
        offers = []
        assert night < _one(cursor, sql.SEASON, {})[0]
        for (hotel,) in cursor.execute(sql.NEAREST, {"lat": lat, "lon": lon}).fetchall():
            known = _one(cursor, sql.HOTEL, {"hotel": hotel})
            offers.append((hotel, *known, _one(cursor, sql.FREE, {"hotel": hotel, "night": night})[0]))
        return offers

    def recommend(lat: int, lon: int, by: str) -> Any:
        return _one(cursor, sql.BEST[by], {"lat": lat, "lon": lon})

    def reserve(user: int, hotel: int, night: int) -> Any:
        for one in (night, night + 1):
            _one(cursor, sql.FREE_AT, {"hotel": hotel, "night": one})
            cursor.execute(sql.TAKE, {"hotel": hotel, "night": one})
            assert cursor.connection.changes() == 1
        return _one(cursor, sql.ADD_RESERVATION, {"hotel": hotel, "user": user, "night": night})[0]

    return {"search": search, "recommend": recommend, "reserve": reserve}


def tpcc_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def new_order(warehouse: int, district: int, customer: int, item: int, count: int) -> Any:
        wanted = order_lines(warehouse, item, count)
        tax = _one(cursor, sql.WAREHOUSE_TAX, {"warehouse": warehouse})[0]
        place = {"warehouse": warehouse, "district": district}
        order_id, district_tax = _one(cursor, sql.NEXT_ORDER, place)
        discount, _, _ = _one(cursor, sql.BUYER, {**place, "customer": customer})
        place["order_id"] = order_id
        local = int(all(line.supplier == warehouse for line in wanted))
        about = {"customer": customer, "at": time.time(), "lines": count, "local": local}
        cursor.execute(sql.ADD_ORDER, {**place, **about})
        cursor.execute(sql.ADD_NEW_ORDER, place)
        amount = sum(order_line(place, line) for line in wanted)
        return order_id, amount * (10_000 - discount) * (10_000 + tax + district_tax) // 10_000**2

    def order_line(place: dict[str, int], line: Wanted) -> int:
        supply = {"supplier": line.supplier, "item": line.item}
        price: int = _one(cursor, sql.ITEM, {"item": line.item})[0]
        stock, _, info = _one(cursor, sql.STOCK[place["district"]], supply)
        left = stock - line.quantity + (0 if stock >= line.quantity + 10 else 91)
        taken = {"left": left, "quantity": line.quantity, "remote": int(line.supplier != place["warehouse"])}
        cursor.execute(sql.TAKE_STOCK, {**supply, **taken})
        amount = line.quantity * price
        cursor.execute(sql.ADD_LINE, {**place, **line._asdict(), "amount": amount, "place": info})
        return amount

    def payment(warehouse: int, district: int, customer: int, amount: int, remote: int, by: int) -> Any:
        theirs = {"warehouse": other(warehouse) if remote <= 15 else warehouse, "district": district}
        at = _one(cursor, sql.PAY_WAREHOUSE, {"warehouse": warehouse, "amount": amount})
        near = _one(cursor, sql.PAY_DISTRICT, {"warehouse": warehouse, "district": district, "amount": amount})
        if by <= 60:
            namesakes = cursor.execute(sql.NAMESAKES, {**theirs, "name": last_name(customer % 1000)}).fetchall()
            customer = namesakes[(len(namesakes) - 1) // 2][0]
        payer = _one(cursor, sql.PAY, {**theirs, "customer": customer, "amount": amount})
        if payer[10] == "BC":
            note = f"{customer} {district} {theirs['warehouse']} {district} {warehouse} {amount} | "
            _one(cursor, sql.NOTE_BAD_CREDIT, {**theirs, "customer": customer, "note": note})
        whose = {"customer": customer, "customer_district": district, "customer_warehouse": theirs["warehouse"]}
        where = {"district": district, "warehouse": warehouse, "at": time.time(), "amount": amount}
        cursor.execute(sql.ADD_HISTORY, {**whose, **where, "data": f"{at[0]}    {near[0]}"})
        return customer, payer[-1]

    return {"new_order": new_order, "payment": payment}


def flow_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def step(item: int, account: int, number: int, steps: int) -> int:
        cost: int = _one(cursor, sql.COST, {"item": item})[0]
        cursor.execute(sql.SPEND, {"account": account, "cost": cost})
        entry = {"account": account, "item": item, "cost": cost, "number": number, "steps": steps}
        cursor.execute(sql.ADD_ENTRY, entry)
        return cost

    def run(item: int, account: int, steps: int) -> int:
        numbers = range(1, steps + 1)
        return sum(step(flow.nth(item, number), flow.nth(account, number), number, steps) for number in numbers)

    return {"one": lambda item, account: run(item, account, 1), "five": lambda item, account: run(item, account, 5)}


FUNCTIONS: dict[str, Callable[[apsw.Cursor, ModuleType], dict[str, Function]]] = {
    "increment": increment_functions,
    "shop": shop_functions,
    "retwis": retwis_functions,
    "hotel": hotel_functions,
    "tpcc": tpcc_functions,
    "flow": flow_functions,
}
