"""TPC-C's new order and payment in `functions_app.py`: the functions and statements of bench/apps/tpcc."""

import time
from collections.abc import Callable
from typing import Any

from bench.data_set import statements
from bench.peers.functions_database import Row, Transaction
from bench.workloads.tpcc import Wanted, last_name, order_lines, other

PARTS = 10_000

sql = statements("tpcc")


def new_order(tx: Transaction, warehouse: int, district: int, customer: int, item: int, count: int) -> Row:
    wanted = order_lines(warehouse, item, count)
    place = {"warehouse": warehouse, "district": district}
    warehouse_tax = tx.value(sql.WAREHOUSE_TAX, warehouse=warehouse)
    order_id, district_tax = tx.one(sql.NEXT_ORDER, **place).values()
    buyer = tx.one(sql.BUYER, **place, customer=customer)
    local = int(all(line.supplier == warehouse for line in wanted))
    about = {"customer": customer, "at": time.time(), "lines": count, "local": local}
    tx.run(sql.ADD_ORDER, **place, order_id=order_id, **about)
    tx.run(sql.ADD_NEW_ORDER, **place, order_id=order_id)
    lines = [order_line(tx, place, order_id, line) for line in wanted]
    amount = sum(line["amount"] for line in lines)
    total = amount * (PARTS - buyer["c_discount"]) * (PARTS + warehouse_tax + district_tax) // PARTS**2
    known = {"last_name": buyer["c_last"], "credit": buyer["c_credit"]}
    return {"order_id": order_id, **known, "total": total, "lines": lines}


def order_line(tx: Transaction, place: dict[str, int], order_id: int, line: Wanted) -> Row:
    number, item, supplier, quantity = line
    price, name, data = tx.one(sql.ITEM, item=item).values()
    stock, stock_data, district = tx.one(sql.STOCK[place["district"]], supplier=supplier, item=item).values()
    left = stock - quantity if stock >= quantity + 10 else stock - quantity + 91
    remote = int(supplier != place["warehouse"])
    tx.run(sql.TAKE_STOCK, left=left, quantity=quantity, remote=remote, supplier=supplier, item=item)
    amount = quantity * price
    what = {"item": item, "supplier": supplier, "quantity": quantity, "amount": amount, "place": district}
    tx.run(sql.ADD_LINE, **place, order_id=order_id, number=number, **what)
    kind = "B" if "ORIGINAL" in data and "ORIGINAL" in stock_data else "G"
    told = {"item": item, "name": name, "quantity": quantity, "stock": stock}
    return {**told, "kind": kind, "price": price, "amount": amount}


def payment(tx: Transaction, warehouse: int, district: int, customer: int, amount: int, remote: int, by: int) -> Row:
    theirs = {"warehouse": other(warehouse) if remote <= 15 else warehouse, "district": district}
    at = tx.one(sql.PAY_WAREHOUSE, warehouse=warehouse, amount=amount)
    near = tx.one(sql.PAY_DISTRICT, warehouse=warehouse, district=district, amount=amount)
    if by <= 60:
        namesakes = tx.rows(sql.NAMESAKES, **theirs, name=last_name(customer % 1000))
        customer = namesakes[(len(namesakes) - 1) // 2]["c_id"]
    payer = tx.one(sql.PAY, **theirs, customer=customer, amount=amount)
    data = None
    if payer["c_credit"] == "BC":
        note = f"{customer} {district} {theirs['warehouse']} {district} {warehouse} {amount} | "
        data = tx.value(sql.NOTE_BAD_CREDIT, **theirs, customer=customer, note=note)
    whose = {"customer": customer, "customer_district": district, "customer_warehouse": theirs["warehouse"]}
    where = {"district": district, "warehouse": warehouse, "at": time.time(), "amount": amount}
    tx.run(sql.ADD_HISTORY, **whose, **where, data=f"{at['w_name']}    {near['d_name']}")
    known = {"first_name": payer["c_first"], "last_name": payer["c_last"], "credit": payer["c_credit"]}
    return {"customer": customer, **known, "balance": payer["c_balance"], "data": data}


def effects(tx: Transaction) -> int:
    return int(tx.value(sql.EFFECTS))


def violations(tx: Transaction) -> int:
    return sum(int(tx.value(text)) for text in sql.VIOLATIONS)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "tpcc/new_order": new_order,
    "tpcc/payment": payment,
    "tpcc/effects": effects,
    "tpcc/violations": violations,
}
