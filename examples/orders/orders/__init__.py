"""Orders from several warehouses: a saga, in which every step says how it is undone.

`order` takes the pieces from each warehouse, then the money, waits until all is packed, and calls a courier. Where one
of them fails, or the customer cancels, those before it are undone, the last first, whatever crashes meanwhile.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from apiary import App, Rejected, Transaction, Workflow

app = App("orders", description="Orders that are made of steps, and undone where one of them fails.")

PACKING_SECONDS = 3600.0
Count = Annotated[int, Field(gt=0, le=1_000)]
Cents = Annotated[int, Field(gt=0, le=10_000_000)]


@dataclass
class Pick:
    """Pieces of one item, from one warehouse."""

    warehouse: str
    item: str
    count: Count


@app.transaction
def stock_up(tx: Transaction, warehouse: str, item: str, count: Count) -> int:
    """Put pieces into a warehouse; returns how many it has then."""
    return _change_stock(tx, warehouse, item, count)


@app.transaction
def pay_in(tx: Transaction, account: str, cents: Cents) -> int:
    """Put money into an account; returns what it has then."""
    return _change_balance(tx, account, cents)


@app.query
def left(tx: Transaction, warehouse: str, item: str) -> int:
    """How many pieces of an item a warehouse has."""
    return int(
        tx.execute(
            "select count from stock where warehouse = :warehouse and item = :item", warehouse=warehouse, item=item
        ).scalar()
        or 0
    )


@app.query
def balance(tx: Transaction, account: str) -> int:
    """What an account has, in cents."""
    return int(tx.execute("select cents from accounts where account = :account", account=account).scalar() or 0)


@app.query
def finished(tx: Transaction) -> list[str]:
    """The orders that are complete."""
    return tx.execute("select order_id from orders order by order_id").scalars()


@app.transaction
def take(tx: Transaction, warehouse: str, item: str, count: int) -> int:
    """Take pieces from a warehouse; returns how many it has left."""
    if left(tx, warehouse, item) < count:
        raise Rejected(f"{warehouse} has less than {count} of {item}", code="out_of_stock", item=item)
    return _change_stock(tx, warehouse, item, -count)


@app.transaction
def put_back(tx: Transaction, warehouse: str, item: str, count: int) -> int:
    """Undo `take`."""
    return _change_stock(tx, warehouse, item, count)


@app.transaction
def debit(tx: Transaction, account: str, cents: int) -> int:
    """Take money from an account; returns what it has left."""
    if balance(tx, account) < cents:
        raise Rejected(f"{account} has less than {cents / 100:.2f}", code="no_money")
    return _change_balance(tx, account, -cents)


@app.transaction
def credit(tx: Transaction, account: str, cents: int) -> int:
    """Undo `debit`."""
    return _change_balance(tx, account, cents)


@app.action(retries=4, backoff=0.1)
def call_courier(order: str, address: str) -> str:
    """Call a courier to an address. A real one would be called here; he knows an order that he has heard of already."""
    if "lane" not in address.lower():
        raise Rejected("no courier goes there", code="nowhere", address=address)
    return f"courier for {order}"


@app.action(retries=20, backoff=0.5)
def call_off(order: str) -> None:
    """Undo `call_courier`."""


@app.transaction
def finish(tx: Transaction, order: str, account: str, cents: int) -> str:
    """The order is complete."""
    tx.execute(
        "insert into orders (order_id, account, cents, finished) values (:order, :account, :cents, :now)",
        order=order,
        account=account,
        cents=cents,
        now=tx.now,
    )
    return order


@app.workflow
def order(
    wf: Workflow, account: str, picks: Annotated[list[Pick], Field(min_length=1)], cents: Cents, address: str
) -> str:
    """Order pieces; returns the number of the order. Nothing is taken, paid or sent where it fails or is cancelled."""
    for pick in picks:
        given = (pick.warehouse, pick.item, pick.count)
        wf.run(take, *given, undo=(put_back, *given))
    wf.run(debit, account, cents, undo=(credit, account, cents))
    wf.publish("state", "waits to be packed")
    if wf.receive("packed", timeout=PACKING_SECONDS) is None:
        raise Rejected("nobody packed it in time", code="not_packed")
    wf.run(call_courier, wf.id, address, undo=(call_off, wf.id))
    return wf.run(finish, wf.id, account, cents)


def _change_stock(tx: Transaction, warehouse: str, item: str, change: int) -> int:
    return int(
        tx.execute(
            "insert into stock (warehouse, item, count) values (:warehouse, :item, :change) "
            "on conflict (warehouse, item) do update set count = stock.count + excluded.count returning count",
            warehouse=warehouse,
            item=item,
            change=change,
        ).scalar()
    )


def _change_balance(tx: Transaction, account: str, change: int) -> int:
    return int(
        tx.execute(
            "insert into accounts (account, cents) values (:account, :change) "
            "on conflict (account) do update set cents = accounts.cents + excluded.cents returning cents",
            account=account,
            change=change,
        ).scalar()
    )
