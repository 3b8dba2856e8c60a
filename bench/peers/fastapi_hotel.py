"""The hotel of `fastapi_app.py`: the functions and statements of bench/apps/hotel.

The mail is a background task of the service, run after the answer: what FastAPI recommends. A crash loses it.
"""

import asyncpg
from fastapi import APIRouter, BackgroundTasks, HTTPException
from pydantic import BaseModel

from bench.peers.fastapi_pool import read, transact

router = APIRouter(prefix="/apps/hotel")

NIGHTS = 2
IN_BOX = "lat between $1 - 500 and $1 + 500 and lon between $2 - 500 and $2 + 500"
NEAREST_FIRST = "(lat - $1) * (lat - $1) + (lon - $2) * (lon - $2), hotel_id"
ORDERS = {"price": "price, hotel_id", "rating": "rating desc, hotel_id", "distance": NEAREST_FIRST}
BEST = {
    by: f"select hotel_id, name, price, rating from hotels where {IN_BOX} order by {order} limit 1"
    for by, order in ORDERS.items()
}


class Search(BaseModel):
    lat: int
    lon: int
    night: int


class Offer(BaseModel):
    hotel_id: int
    name: str
    price: int
    rating: int
    free: int


@router.post("/search")
async def search(request: Search) -> list[Offer]:
    async def work(connection: asyncpg.Connection) -> list[Offer]:
        if request.night + NIGHTS - 1 > await connection.fetchval("select last_night from season where year = 1"):
            raise HTTPException(409, "the season has ended then")
        nearest = await connection.fetch(
            f"select hotel_id from hotels where {IN_BOX} order by {NEAREST_FIRST} limit 10", request.lat, request.lon
        )
        offers = []
        for (hotel,) in nearest:
            known = await connection.fetchrow("select name, price, rating from hotels where hotel_id = $1", hotel)
            free = await connection.fetchval(
                "select min(free) from rooms where hotel_id = $1 and night in ($2, $2 + 1)", hotel, request.night
            )
            if free > 0:
                offers.append(Offer(hotel_id=hotel, free=free, **known))
        return offers

    return await transact(work, readonly=True)


class Recommend(BaseModel):
    lat: int
    lon: int
    by: str


class Recommendation(BaseModel):
    hotel_id: int
    name: str
    price: int
    rating: int


@router.post("/recommend")
async def recommend(request: Recommend) -> Recommendation | None:
    row = await read(lambda pool: pool.fetchrow(BEST[request.by], request.lat, request.lon))
    return None if row is None else Recommendation(**row)


class Reserve(BaseModel):
    user: int
    hotel: int
    night: int


@router.post("/reserve")
async def reserve(request: Reserve, background: BackgroundTasks) -> int:
    async def work(connection: asyncpg.Connection) -> int:
        for night in range(request.night, request.night + NIGHTS):
            free = await connection.fetchval(
                "select free from rooms where hotel_id = $1 and night = $2", request.hotel, night
            )
            taken = await connection.execute(
                "update rooms set free = free - 1 where hotel_id = $1 and night = $2 and free > 0", request.hotel, night
            )
            if free is None or taken != "UPDATE 1":
                raise HTTPException(409, "no room is free")
        return await connection.fetchval(
            "insert into reservations (hotel_id, user_id, first_night, nights) values ($1, $2, $3, 2) "
            "returning reservation_id",
            request.hotel,
            request.user,
            request.night,
        )

    reservation = await transact(work)
    background.add_task(mail, request.user, reservation)
    return reservation


async def mail(user: int, reservation: int) -> str:
    """Tell the user. The benchmark's mails go nowhere."""
    return f"To user {user}: your reservation {reservation} is confirmed."


@router.post("/violations")
async def violations() -> int:
    return await read(
        lambda pool: pool.fetchval(
            "select abs((select sum(1000000 - free) from rooms) - (select coalesce(sum(nights), 0) from reservations))"
        )
    )
