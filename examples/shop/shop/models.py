"""The values that go in and out of the shop. Every `cost` is in cents."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

Cents = Annotated[int, Field(gt=0, le=10_000_000)]
Quantity = Annotated[int, Field(gt=0, le=1_000)]
Status = Literal["placed", "reserved", "paid", "released"]


@dataclass(frozen=True)
class NewItem:
    """An item as the catalogue file has it. The first tag is its category."""

    item_id: int
    sku: str
    name: str
    description: str
    cost: Cents
    tags: Annotated[list[str], Field(min_length=1)]
    inventory: Annotated[int, Field(ge=0)] = 100


@dataclass(frozen=True)
class Item:
    """Everything about one item."""

    item_id: int
    sku: str
    name: str
    description: str
    cost: int
    tags: list[str]
    inventory: int


@dataclass(frozen=True)
class Listing:
    """One line of a page of items."""

    item_id: int
    name: str
    cost: int
    inventory: int


@dataclass(frozen=True)
class Line:
    """Some pieces of one item, in a cart or an order. `cost` is that of one piece."""

    item_id: int
    quantity: int
    cost: int


@dataclass(frozen=True)
class Order:
    """What a user bought, or is about to buy."""

    order_id: int
    user_id: int
    cost: int
    status: Status
    placed_at: datetime
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class OrderSummary:
    """An order without its lines."""

    order_id: int
    cost: int
    status: Status
    placed_at: datetime


@dataclass(frozen=True)
class Sales:
    """What the shop has sold so far; orders that were released again do not count."""

    orders: int
    pieces: int
    cost: int
