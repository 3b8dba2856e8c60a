"""The microservice as most people write it: FastAPI, SQLAlchemy's mapped classes, psycopg, PostgreSQL.

Functions are plain `def`, which FastAPI runs in its thread pool, with a session for each request: the way of both
documentations. Statements are written with the mapped classes, one for each of bench/apps, so that the database is
asked for the same.
"""

import time
from operator import attrgetter

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from bench.peers import sqlalchemy_hotel
from bench.peers.sqlalchemy_models import CartLine, Counter, Followee, Item, Order, OrderLine, Post
from bench.peers.sqlalchemy_session import transact

app = FastAPI()
app.include_router(sqlalchemy_hotel.router)


class FromRow(BaseModel):
    """What is read from a mapped object."""

    model_config = ConfigDict(from_attributes=True)


@app.get("/healthz")
def healthz() -> str:
    return "ok"


class Increment(BaseModel):
    key: int


@app.post("/apps/increment/increment")
def increment(request: Increment) -> int:
    def work(session: Session) -> int:
        value = (session.scalar(select(Counter.value).where(Counter.key == request.key)) or 0) + 1
        row = postgresql.insert(Counter).values(key=request.key, value=value)
        session.execute(row.on_conflict_do_update(index_elements=[Counter.key], set_={"value": row.excluded.value}))
        return value

    return transact(work)


@app.post("/apps/increment/add")
def add(request: Increment) -> int:
    row = postgresql.insert(Counter).values(key=request.key, value=1)
    upsert = row.on_conflict_do_update(index_elements=[Counter.key], set_={"value": Counter.value + 1})
    return transact(lambda session: session.scalar(upsert.returning(Counter.value)))


@app.post("/apps/increment/effects")
def increment_effects() -> int:
    return transact(lambda session: session.scalar(select(func.coalesce(func.sum(Counter.value), 0))))


class Browse(BaseModel):
    prefix: str
    top: int


class Offer(FromRow):
    item_id: int
    name: str
    cost: int


class UpdateCart(BaseModel):
    user: int
    item: int
    quantity: int


class Checkout(BaseModel):
    user: int


class Confirmed(BaseModel):
    order_id: int
    cost: int


@app.post("/apps/shop/browse")
def browse(request: Browse) -> list[Offer]:
    found = (
        select(Item.item_id, Item.name, Item.cost)
        .where(Item.name >= request.prefix, Item.name < request.prefix + "~", Item.cost <= request.top)
        .order_by(Item.name)
        .limit(8)
    )
    return transact(lambda session: [Offer.model_validate(row) for row in session.execute(found)])


@app.post("/apps/shop/update_cart")
def update_cart(request: UpdateCart) -> int:
    def work(session: Session) -> int:
        cost = session.scalar(select(Item.cost).where(Item.item_id == request.item))
        if cost is None:
            raise HTTPException(409, "no such item")
        line = {"user_id": request.user, "item_id": request.item, "quantity": request.quantity, "cost": cost}
        row = postgresql.insert(CartLine).values(line)
        new = {"quantity": row.excluded.quantity, "cost": row.excluded.cost}
        session.execute(row.on_conflict_do_update(index_elements=[CartLine.user_id, CartLine.item_id], set_=new))
        return cost * request.quantity

    return transact(work)


@app.post("/apps/shop/checkout")
def checkout(request: Checkout) -> Confirmed:
    def work(session: Session) -> Confirmed:
        cart = session.scalars(
            select(CartLine).where(CartLine.user_id == request.user).order_by(CartLine.item_id)
        ).all()
        if not cart:
            raise HTTPException(409, "the cart is empty")
        cost = sum(line.quantity * line.cost for line in cart)
        order = Order(user_id=request.user, cost=cost, status="confirmed")
        session.add(order)
        session.flush()
        for line in cart:
            order_line(session, order.order_id, line)
        return Confirmed(order_id=order.order_id, cost=cost)

    return transact(work)


def order_line(session: Session, order: int, line: CartLine) -> None:
    item = session.execute(select(Item.cost, Item.inventory).where(Item.item_id == line.item_id)).one()
    reserved = session.execute(
        update(Item)
        .where(Item.item_id == line.item_id, Item.inventory >= line.quantity)
        .values(inventory=Item.inventory - line.quantity)
        .execution_options(synchronize_session=False)
    )
    if reserved.rowcount != 1:
        raise HTTPException(409, "out of stock")
    new = {"order_id": order, "item_id": line.item_id, "quantity": line.quantity, "cost": item.cost}
    session.execute(insert(OrderLine).values(new))


@app.post("/apps/shop/effects")
def shop_effects() -> int:
    return transact(lambda session: session.scalar(select(func.count()).select_from(Order)))


class Timeline(BaseModel):
    user: int


class NewPost(BaseModel):
    user: int
    text: str


class Posted(FromRow):
    post_id: int
    user_id: int
    at: float
    text: str


@app.post("/apps/retwis/timeline")
def timeline(request: Timeline) -> list[Posted]:
    def work(session: Session) -> list[Posted]:
        posts: list[Post] = []
        followees = select(Followee.followee_id).where(Followee.user_id == request.user)
        for followee in session.scalars(followees).all():
            latest = select(Post).where(Post.user_id == followee).order_by(Post.at.desc()).limit(10)
            posts += session.scalars(latest).all()
        posts.sort(key=attrgetter("at"), reverse=True)
        return [Posted.model_validate(post) for post in posts]

    return transact(work)


@app.post("/apps/retwis/post")
def post(request: NewPost) -> int:
    def work(session: Session) -> int:
        new = Post(user_id=request.user, at=time.time(), text=request.text)
        session.add(new)
        session.flush()
        return new.post_id

    return transact(work)


@app.post("/apps/retwis/effects")
def retwis_effects() -> int:
    return transact(lambda session: session.scalar(select(func.count()).select_from(Post)))
