"""The microservice that `peers/fastapi.py` serves: FastAPI, asyncpg, PostgreSQL; the statements of bench/apps."""

import time
from operator import attrgetter

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from bench.peers import fastapi_hotel, fastapi_tpcc
from bench.peers.fastapi_pool import lifespan, read, transact

app = FastAPI(lifespan=lifespan)
app.include_router(fastapi_hotel.router)
app.include_router(fastapi_tpcc.router)


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


class Increment(BaseModel):
    key: int


@app.post("/apps/increment/increment")
async def increment(request: Increment) -> int:
    async def work(connection: asyncpg.Connection) -> int:
        value = await connection.fetchval("select value from counters where key = $1", request.key)
        value = (value or 0) + 1
        await connection.execute(
            "insert into counters (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value",
            request.key,
            value,
        )
        return value

    return await transact(work)


@app.post("/apps/increment/add")
async def add(request: Increment) -> int:
    return await transact(
        lambda connection: connection.fetchval(
            "insert into counters (key, value) values ($1, 1) "
            "on conflict (key) do update set value = counters.value + 1 returning value",
            request.key,
        )
    )


@app.post("/apps/increment/effects")
async def increment_effects() -> int:
    return await read(lambda pool: pool.fetchval("select coalesce(sum(value), 0) from counters"))


class Browse(BaseModel):
    prefix: str
    top: int


class Offer(BaseModel):
    item_id: int
    name: str
    cost: int


class UpdateCart(BaseModel):
    user: int
    item: int
    quantity: int


class Checkout(BaseModel):
    user: int


class Order(BaseModel):
    order_id: int
    cost: int


@app.post("/apps/shop/browse")
async def browse(request: Browse) -> list[Offer]:
    rows = await read(
        lambda pool: pool.fetch(
            "select item_id, name, cost from items "
            "where name >= $1 and name < $1 || '~' and cost <= $2 order by name limit 8",
            request.prefix,
            request.top,
        )
    )
    return [Offer(**row) for row in rows]


@app.post("/apps/shop/update_cart")
async def update_cart(request: UpdateCart) -> int:
    async def work(connection: asyncpg.Connection) -> int:
        cost = await connection.fetchval("select cost from items where item_id = $1", request.item)
        if cost is None:
            raise HTTPException(409, "no such item")
        await connection.execute(
            "insert into cart (user_id, item_id, quantity, cost) values ($1, $2, $3, $4) "
            "on conflict (user_id, item_id) do update set quantity = excluded.quantity, cost = excluded.cost",
            request.user,
            request.item,
            request.quantity,
            cost,
        )
        return cost * request.quantity

    return await transact(work)


@app.post("/apps/shop/checkout")
async def checkout(request: Checkout) -> Order:
    async def work(connection: asyncpg.Connection) -> Order:
        cart = await connection.fetch(
            "select item_id, quantity, cost from cart where user_id = $1 order by item_id", request.user
        )
        if not cart:
            raise HTTPException(409, "the cart is empty")
        cost = sum(line["quantity"] * line["cost"] for line in cart)
        order = await connection.fetchval(
            "insert into orders (user_id, cost, status) values ($1, $2, 'confirmed') returning order_id",
            request.user,
            cost,
        )
        for line in cart:
            await order_line(connection, order, line["item_id"], line["quantity"])
        return Order(order_id=order, cost=cost)

    return await transact(work)


async def order_line(connection: asyncpg.Connection, order: int, item_id: int, quantity: int) -> None:
    item = await connection.fetchrow("select cost, inventory from items where item_id = $1", item_id)
    reserved = await connection.execute(
        "update items set inventory = inventory - $2 where item_id = $1 and inventory >= $2", item_id, quantity
    )
    if reserved != "UPDATE 1":
        raise HTTPException(409, "out of stock")
    await connection.execute(
        "insert into order_lines (order_id, item_id, quantity, cost) values ($1, $2, $3, $4)",
        order,
        item_id,
        quantity,
        item["cost"],
    )


@app.post("/apps/shop/effects")
async def shop_effects() -> int:
    return await read(lambda pool: pool.fetchval("select count(*) from orders"))


class Timeline(BaseModel):
    user: int


class NewPost(BaseModel):
    user: int
    text: str


class Post(BaseModel):
    post_id: int
    user_id: int
    at: float
    text: str


@app.post("/apps/retwis/timeline")
async def timeline(request: Timeline) -> list[Post]:
    async def work(connection: asyncpg.Connection) -> list[Post]:
        posts: list[Post] = []
        for followee in await connection.fetch("select followee_id from followees where user_id = $1", request.user):
            rows = await connection.fetch(
                "select post_id, user_id, at, text from posts where user_id = $1 order by at desc limit 10",
                followee["followee_id"],
            )
            posts += [Post(**row) for row in rows]
        posts.sort(key=attrgetter("at"), reverse=True)
        return posts

    return await transact(work, readonly=True)


@app.post("/apps/retwis/post")
async def post(request: NewPost) -> int:
    return await transact(
        lambda connection: connection.fetchval(
            "insert into posts (user_id, at, text) values ($1, $2, $3) returning post_id",
            request.user,
            time.time(),
            request.text,
        )
    )


@app.post("/apps/retwis/effects")
async def retwis_effects() -> int:
    return await read(lambda pool: pool.fetchval("select count(*) from posts"))
