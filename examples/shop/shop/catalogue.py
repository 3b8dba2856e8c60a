"""The catalogue: what the shop sells, at what price, and how much of it is left."""

from typing import Annotated

from pydantic import Field

from apiary import Rejected, Transaction

from .declared import app
from .models import Item, Listing, NewItem, Quantity

PAGE = 8
AFTER_EVERY_LETTER = "\U0010ffff"


@app.query
def browse(
    tx: Transaction,
    prefix: Annotated[str, Field(max_length=100)] = "",
    top_cost: Annotated[int, Field(ge=0)] = 10_000_000,
) -> list[Listing]:
    """The first items whose name begins with `prefix` and that cost at most `top_cost`, by name."""
    first = prefix.lower()
    return tx.execute(
        "select item_id, name, cost, inventory from items "
        "where lower(name) >= :first and lower(name) < :last and cost <= :top_cost "
        "order by lower(name) limit :page",
        first=first,
        last=first + AFTER_EVERY_LETTER,
        top_cost=top_cost,
        page=PAGE,
    ).all(Listing)


@app.query
def item(tx: Transaction, item: int) -> Item:
    """Everything about one item."""
    found = tx.execute(
        "select item_id, sku, name, description, cost, tags, inventory from items where item_id = :item",
        item=item,
    ).first(Item)
    if found is None:
        raise Rejected("no such item", code="unknown_item", item=item)
    return found


@app.transaction
def load_catalogue(tx: Transaction, items: list[NewItem]) -> int:
    """Add items, and return how many were given.

    An item that is there already gets the new text and price; its stock stays as it is.
    """
    tx.execute_many(
        "insert into items (item_id, sku, name, description, category, tags, cost, inventory) "
        "values (:item_id, :sku, :name, :description, :category, :tags, :cost, :inventory) "
        "on conflict (item_id) do update set sku = excluded.sku, name = excluded.name, "
        "description = excluded.description, category = excluded.category, tags = excluded.tags, "
        "cost = excluded.cost",
        [
            {
                "item_id": new.item_id,
                "sku": new.sku,
                "name": new.name,
                "description": new.description,
                "category": new.tags[0],
                "tags": new.tags,
                "cost": new.cost,
                "inventory": new.inventory,
            }
            for new in items
        ],
    )
    return len(items)


@app.transaction
def restock(tx: Transaction, item: int, quantity: Quantity) -> int:
    """Put more pieces of an item on the shelf, and return how many there are now."""
    stock = tx.execute(
        "update items set inventory = inventory + :quantity where item_id = :item returning inventory",
        item=item,
        quantity=quantity,
    ).first()
    if stock is None:
        raise Rejected("no such item", code="unknown_item", item=item)
    return int(stock.inventory)
