"""The cart of each user, and the offers that go with it."""

from apiary import Rejected, Transaction

from .declared import app
from .models import Line, Listing, Quantity

OFFERS = 4


@app.query
def cart(tx: Transaction, user: int) -> list[Line]:
    """What the user has picked so far."""
    return tx.execute("select item_id, quantity, cost from cart where user_id = :user order by item_id", user=user).all(
        Line
    )


@app.transaction
def add_to_cart(tx: Transaction, user: int, item: int, quantity: Quantity = 1) -> int:
    """Put some pieces of an item into the cart, at today's price.

    Returns how many pieces of it are in the cart now. New offers follow a moment later.
    """
    cost = tx.execute("select cost from items where item_id = :item", item=item).scalar()
    if cost is None:
        raise Rejected("no such item", code="unknown_item", item=item)
    line = tx.execute(
        "insert into cart (user_id, item_id, quantity, cost) values (:user, :item, :quantity, :cost) "
        "on conflict (user_id, item_id) do update "
        "set quantity = cart.quantity + excluded.quantity, cost = excluded.cost returning quantity",
        user=user,
        item=item,
        quantity=quantity,
        cost=cost,
    ).one()
    tx.enqueue(refresh_offers, user, item)  # runs if, and only if, this transaction commits
    return int(line.quantity)


@app.transaction
def remove(tx: Transaction, user: int, item: int) -> list[Line]:
    """Take an item out of the cart, and return what is left in it."""
    tx.execute("delete from cart where user_id = :user and item_id = :item", user=user, item=item)
    return cart(tx, user)


@app.transaction
def refresh_offers(tx: Transaction, user: int, item: int) -> None:
    """Choose the offers for a user who has just picked `item`.

    They are of the same category, cost no more, are in stock, and are not in the cart. Nobody waits for
    them, so this is a call of its own, put into the queue by `add_to_cart`.
    """
    tx.execute("delete from offers where user_id = :user", user=user)
    tx.execute(
        "insert into offers (user_id, item_id) "
        "select :user, other.item_id from items picked "
        "join items other on other.category = picked.category and other.cost <= picked.cost "
        "where picked.item_id = :item and other.inventory > 0 "
        "and other.item_id not in (select item_id from cart where user_id = :user) "
        "order by other.cost desc limit :offers",
        user=user,
        item=item,
        offers=OFFERS,
    )


@app.query
def offers(tx: Transaction, user: int) -> list[Listing]:
    """What else the user may like, the cheapest first."""
    return tx.execute(
        "select item_id, name, cost, inventory from offers join items using (item_id) "
        "where user_id = :user order by cost, item_id",
        user=user,
    ).all(Listing)
