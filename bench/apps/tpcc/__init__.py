"""TPC-C's new order and payment, the two transactions that write most.

What a terminal would draw for each line of an order follows from the first item here, so that a request is a few
numbers: `order_lines`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from apiary import App, Rejected, Transaction

from . import statements

app = App("tpcc")

WAREHOUSES = 2
ITEMS = 10_000
PARTS = 10_000  # taxes and discounts are given in these parts of one


class Wanted(NamedTuple):
    """A line of an order that is to be made."""

    number: int
    item: int
    supplier: int
    quantity: int


@dataclass(frozen=True)
class Line:
    """A line of an order. Cents; `kind` is B where item and stock are both original, else G."""

    item: int
    name: str
    quantity: int
    stock: int
    kind: str
    price: int
    amount: int


@dataclass(frozen=True)
class Order:
    """An order that was made. Cents."""

    order_id: int
    last_name: str
    credit: str
    total: int
    lines: list[Line]


@dataclass(frozen=True)
class Payment:
    """A payment that was taken. Cents; `data` where the customer's credit is bad."""

    customer: int
    first_name: str
    last_name: str
    credit: str
    balance: int
    data: str | None


def order_lines(warehouse: int, item: int, count: int) -> list[Wanted]:
    """`count` different items, 1 to 10 of each, one line in a hundred from the other warehouse; by item.

    In this order, because transactions that take locks in the same order do not deadlock.
    """
    items = sorted((item - 1 + number * 613) % ITEMS + 1 for number in range(count))
    return [
        Wanted(
            number,
            one,
            warehouse % WAREHOUSES + 1 if (one * 31 + item) % 100 == 0 else warehouse,
            1 + (one + item) % 10,
        )
        for number, one in enumerate(items, 1)
    ]


@app.transaction(key="warehouse")
def new_order(tx: Transaction, warehouse: int, district: int, customer: int, item: int, count: int) -> Order:
    """Order `count` items, of which the first is given."""
    wanted = order_lines(warehouse, item, count)
    place = {"warehouse": warehouse, "district": district}
    warehouse_tax = tx.execute(statements.WAREHOUSE_TAX, warehouse=warehouse).scalar()
    order_id, district_tax = tx.execute(statements.NEXT_ORDER, **place).one()
    buyer = tx.execute(statements.BUYER, **place, customer=customer).one()
    local = int(all(line.supplier == warehouse for line in wanted))
    about = {"customer": customer, "at": tx.now.timestamp(), "lines": count, "local": local}
    tx.execute(statements.ADD_ORDER, **place, order_id=order_id, **about)
    tx.execute(statements.ADD_NEW_ORDER, **place, order_id=order_id)
    lines = [order_line(tx, warehouse, district, order_id, line) for line in wanted]
    amount = sum(line.amount for line in lines)
    total = amount * (PARTS - buyer.c_discount) * (PARTS + warehouse_tax + district_tax) // PARTS**2
    return Order(order_id, buyer.c_last, buyer.c_credit, total, lines)


def order_line(tx: Transaction, warehouse: int, district: int, order_id: int, line: Wanted) -> Line:
    """Take one line's items from the stock, and write the line."""
    number, item, supplier, quantity = line
    found = tx.execute(statements.ITEM, item=item).first()
    if found is None:
        raise Rejected("item number is not valid", code="unknown_item", item=item)
    price, name, data = found
    stock, stock_data, place = tx.execute(statements.STOCK[district], supplier=supplier, item=item).one()
    left = stock - quantity if stock >= quantity + 10 else stock - quantity + 91
    remote = int(supplier != warehouse)
    tx.execute(statements.TAKE_STOCK, left=left, quantity=quantity, remote=remote, supplier=supplier, item=item)
    amount = quantity * price
    whose = {"warehouse": warehouse, "district": district, "order_id": order_id, "number": number}
    what = {"item": item, "supplier": supplier, "quantity": quantity, "amount": amount, "place": place}
    tx.execute(statements.ADD_LINE, **whose, **what)
    kind = "B" if "ORIGINAL" in data and "ORIGINAL" in stock_data else "G"
    return Line(item, name, quantity, stock, kind, price, amount)


@app.transaction(key="warehouse")
def payment(
    tx: Transaction, warehouse: int, district: int, customer: int, amount: int, remote: int, by: int
) -> Payment:
    """Take a customer's payment: 15 % of the customers are the other warehouse's, 60 % are known by their last name.

    `remote` and `by` are drawn from 1 to 100.
    """
    theirs = {"warehouse": warehouse % WAREHOUSES + 1 if remote <= 15 else warehouse, "district": district}
    at = tx.execute(statements.PAY_WAREHOUSE, warehouse=warehouse, amount=amount).one()
    near = tx.execute(statements.PAY_DISTRICT, warehouse=warehouse, district=district, amount=amount).one()
    if by <= 60:
        namesakes = tx.execute(statements.NAMESAKES, **theirs, name=last_name(customer % 1000)).scalars()
        customer = namesakes[(len(namesakes) - 1) // 2]
    payer = tx.execute(statements.PAY, **theirs, customer=customer, amount=amount).one()
    data = None
    if payer.c_credit == "BC":
        note = f"{customer} {district} {theirs['warehouse']} {district} {warehouse} {amount} | "
        data = tx.execute(statements.NOTE_BAD_CREDIT, **theirs, customer=customer, note=note).scalar()
    tx.execute(
        statements.ADD_HISTORY,
        customer=customer,
        customer_district=district,
        customer_warehouse=theirs["warehouse"],
        district=district,
        warehouse=warehouse,
        at=tx.now.timestamp(),
        amount=amount,
        data=f"{at.w_name}    {near.d_name}",
    )
    return Payment(customer, payer.c_first, payer.c_last, payer.c_credit, payer.c_balance, data)


def last_name(number: int) -> str:
    """The name that clause 4.3.2.3 makes of a number below 1,000."""
    return "".join(statements.SYLLABLES[digit] for digit in (number // 100, number // 10 % 10, number % 10))


@app.query
def effects(tx: Transaction) -> int:
    """How many orders and payments have taken effect."""
    return tx.execute(statements.EFFECTS).scalar()


@app.query(timeout=60)
def violations(tx: Transaction) -> int:
    """How many rows break the consistency conditions of clause 3.3.2."""
    return sum(tx.execute(text).scalar() for text in statements.VIOLATIONS)


@app.transaction
def load_warehouses(tx: Transaction, first: int, last: int) -> None:
    """Make the warehouses first..last and their districts."""
    tx.execute(statements.LOAD_WAREHOUSES, first=first, last=last)
    tx.execute(statements.LOAD_DISTRICTS, first=first, last=last)


@app.transaction
def load_items(tx: Transaction, first: int, last: int) -> None:
    """Make the items first..last."""
    tx.execute(statements.LOAD_ITEMS, first=first, last=last)


@app.transaction
def load_stock(tx: Transaction, first: int, last: int) -> None:
    """Make the rows first..last of the stock, warehouse by warehouse."""
    tx.execute(statements.LOAD_STOCK, first=first, last=last)


@app.transaction
def load_customers(tx: Transaction, first: int, last: int) -> None:
    """Make the customers first..last, counted over all districts."""
    tx.execute(statements.LOAD_CUSTOMERS, first=first, last=last)
