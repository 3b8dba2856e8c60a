"""From the cart to an order.

`place_order` does it in one transaction, for customers who pay on delivery. Whoever pays by card takes
`checkout`, a workflow: `reserve`, `charge` and then `confirm`, or `give_up` where there was no payment.
"""

from operator import attrgetter
from typing import Annotated

from pydantic import Field

from apiary import Rejected, Transaction, Workflow

from .declared import app
from .models import Line, Order, OrderSummary, Sales, Status
from .payment import charge, take_back


@app.transaction
def place_order(tx: Transaction, user: int) -> Order:
    """Order everything in the cart: all of it, or nothing when something is out of stock."""
    return _order_cart(tx, user, "placed")


@app.transaction
def reserve(tx: Transaction, user: int) -> Order:
    """Take the stock for everything in the cart, until the order is confirmed or released."""
    return _order_cart(tx, user, "reserved")


@app.transaction
def confirm(tx: Transaction, order: int, receipt: str) -> OrderSummary:
    """Finish a reserved order that has been paid."""
    return _settle(tx, order, "paid", receipt)


@app.transaction
def release(tx: Transaction, order: int) -> OrderSummary:
    """Give a reserved order up, and its stock back."""
    summary = _settle(tx, order, "released", None)
    tx.execute(
        "update items set inventory = items.inventory + line.quantity from order_lines line "
        "where line.order_id = :order and line.item_id = items.item_id",
        order=order,
    )
    return summary


@app.transaction
def give_up(tx: Transaction, order: Order) -> None:
    """Undo `reserve`."""
    release(tx, order.order_id)


@app.workflow
def checkout(wf: Workflow, user: int, card: str) -> OrderSummary:
    """Order everything in the cart and have the card charged; whatever crashes on the way, both or neither.

    A payment that was declined was not made. Of one that failed in any other way nobody knows, so it is taken back.
    """
    order = wf.run(reserve, user, undo=give_up)
    try:
        receipt = wf.run(charge, card, order.cost, wf.id)
    except Rejected:
        raise
    except Exception as error:
        wf.run(take_back, wf.id)
        raise Rejected("the payment service is out of order", code="no_payment") from error
    return wf.run(confirm, order.order_id, receipt)


@app.query
def order(tx: Transaction, order: int) -> Order:
    """One order with its lines."""
    head = tx.execute(
        "select order_id, user_id, cost, status, placed_at from orders where order_id = :order", order=order
    ).first()
    if head is None:
        raise Rejected("no such order", code="unknown_order", order=order)
    lines = tx.execute(
        "select item_id, quantity, cost from order_lines where order_id = :order order by item_id", order=order
    ).all(Line)
    return Order(head.order_id, head.user_id, head.cost, head.status, head.placed_at, lines)


@app.query
def orders(tx: Transaction, user: int, limit: Annotated[int, Field(gt=0, le=100)] = 20) -> list[OrderSummary]:
    """The latest orders of a user."""
    return tx.execute(
        "select order_id, cost, status, placed_at from orders where user_id = :user "
        "order by order_id desc limit :limit",
        user=user,
        limit=limit,
    ).all(OrderSummary)


@app.query
def sales(tx: Transaction) -> Sales:
    """What the shop has sold so far."""
    return tx.execute(
        "select count(distinct order_id) as orders, coalesce(sum(quantity), 0) as pieces, "
        "coalesce(sum(quantity * line.cost), 0) as cost "
        "from orders join order_lines line using (order_id) where status <> 'released'"
    ).one(Sales)


def _order_cart(tx: Transaction, user: int, status: Status) -> Order:
    """Turn the cart into an order. Lines go in the order of their items, so that no two calls deadlock."""
    taken = tx.execute("delete from cart where user_id = :user returning item_id, quantity, cost", user=user).all(Line)
    if not taken:
        raise Rejected("the cart is empty", code="empty_cart", user=user)
    lines = sorted(taken, key=attrgetter("item_id"))
    for line in lines:
        _take_stock(tx, line)
    cost = sum(line.quantity * line.cost for line in lines)
    order = tx.execute(
        "insert into orders (user_id, cost, status, placed_at) values (:user, :cost, :status, :now) returning order_id",
        user=user,
        cost=cost,
        status=status,
        now=tx.now,
    ).one()
    for line in lines:
        tx.execute(
            "insert into order_lines (order_id, item_id, quantity, cost) values (:order, :item, :quantity, :cost)",
            order=order.order_id,
            item=line.item_id,
            quantity=line.quantity,
            cost=line.cost,
        )
    return Order(order.order_id, user, cost, status, tx.now, lines)


def _take_stock(tx: Transaction, line: Line) -> None:
    stock = tx.execute("select name, inventory from items where item_id = :item", item=line.item_id).one()
    if stock.inventory < line.quantity:
        raise Rejected(
            f"{stock.name}: {line.quantity} wanted, {stock.inventory} left",
            code="out_of_stock",
            item=line.item_id,
            left=stock.inventory,
        )
    tx.execute(
        "update items set inventory = inventory - :quantity where item_id = :item",
        item=line.item_id,
        quantity=line.quantity,
    )


def _settle(tx: Transaction, order: int, status: Status, receipt: str | None) -> OrderSummary:
    """Move a reserved order on to its last status."""
    settled = tx.execute(
        "update orders set status = :status, receipt = :receipt where order_id = :order and status = 'reserved' "
        "returning order_id, cost, status, placed_at",
        order=order,
        status=status,
        receipt=receipt,
    ).first(OrderSummary)
    if settled is None:
        raise Rejected("no reserved order of this number", code="not_reserved", order=order)
    return settled
