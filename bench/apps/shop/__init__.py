"""Shop: browse a catalogue, fill a cart, check out in one transaction."""

from dataclasses import dataclass

from apiary import App, Rejected, Transaction

from . import statements

app = App("shop")


@dataclass(frozen=True)
class Offer:
    """An item as a customer sees it in a list. Cents."""

    item_id: int
    name: str
    cost: int


@dataclass(frozen=True)
class Order:
    """A confirmed order. Cents."""

    order_id: int
    cost: int


@app.query
def browse(tx: Transaction, prefix: str, top: int) -> list[Offer]:
    """The first 8 items whose name begins with the prefix and that cost at most `top`."""
    return tx.execute(statements.BROWSE, prefix=prefix, top=top).all(Offer)


@app.transaction
def update_cart(tx: Transaction, user: int, item: int, quantity: int) -> int:
    """Set the quantity of an item in the user's cart; the cost of the line, in cents."""
    cost = tx.execute(statements.ITEM_COST, item=item).scalar()
    if cost is None:
        raise Rejected("no such item", code="unknown_item", item=item)
    tx.execute(statements.SET_LINE, user=user, item=item, quantity=quantity, cost=cost)
    return cost * quantity


@app.transaction(key="user")
def checkout(tx: Transaction, user: int) -> Order:
    """Order what is in the user's cart. The cart stays as it is, so that the benchmark can repeat the call."""
    cart = tx.execute(statements.CART, user=user).all()
    if not cart:
        raise Rejected("the cart is empty", code="empty_cart")
    cost = sum(line.quantity * line.cost for line in cart)
    order = tx.execute(statements.ADD_ORDER, user=user, cost=cost).scalar()
    for line in cart:
        item = tx.execute(statements.ITEM, item=line.item_id).one()
        reserved = tx.execute(statements.RESERVE, item=line.item_id, quantity=line.quantity)
        if reserved.rowcount != 1:
            raise Rejected("out of stock", code="out_of_stock", item=line.item_id)
        tx.execute(statements.ADD_LINE, order=order, item=line.item_id, quantity=line.quantity, cost=item.cost)
    return Order(order, cost)


@app.query
def effects(tx: Transaction) -> int:
    """How many checkouts have taken effect."""
    return tx.execute(statements.EFFECTS).scalar()


@app.transaction
def load_items(tx: Transaction, first: int, last: int) -> None:
    """Make the items first..last."""
    tx.execute(statements.LOAD_ITEMS, first=first, last=last)


@app.transaction
def load_carts(tx: Transaction, first: int, last: int) -> None:
    """Put five lines into the cart of each of the users first..last."""
    tx.execute(statements.LOAD_CARTS, first=first, last=last)
