"""The hotel of `sqlalchemy_app.py`: the functions and statements of bench/apps/hotel.

The mail is a background task of the service, run after the answer: what FastAPI recommends. A crash loses it.
"""

from fastapi import APIRouter, BackgroundTasks, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from bench.peers.sqlalchemy_models import Hotel, Reservation, Room, Season
from bench.peers.sqlalchemy_session import transact

router = APIRouter(prefix="/apps/hotel")

NIGHTS = 2
BOX = 500
NEAR = 10


class Place(BaseModel):
    lat: int
    lon: int


class Search(Place):
    night: int


class Recommend(Place):
    by: str


class Recommendation(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    hotel_id: int
    name: str
    price: int
    rating: int


class Offer(Recommendation):
    free: int


def in_box(place: Place) -> list[ColumnElement[bool]]:
    return [Hotel.lat.between(place.lat - BOX, place.lat + BOX), Hotel.lon.between(place.lon - BOX, place.lon + BOX)]


def distance(place: Place) -> ColumnElement[int]:
    return (Hotel.lat - place.lat) * (Hotel.lat - place.lat) + (Hotel.lon - place.lon) * (Hotel.lon - place.lon)


@router.post("/search")
def search(request: Search) -> list[Offer]:
    def work(session: Session) -> list[Offer]:
        last_night = session.scalars(select(Season.last_night).where(Season.year == 1)).one()
        if request.night + NIGHTS - 1 > last_night:
            raise HTTPException(409, "the season has ended then")
        nearest = select(Hotel.hotel_id).where(*in_box(request)).order_by(distance(request), Hotel.hotel_id).limit(NEAR)
        return [
            offer for hotel in session.scalars(nearest).all() if (offer := offer_of(session, hotel, request.night)).free
        ]

    return transact(work)


def offer_of(session: Session, hotel: int, night: int) -> Offer:
    known = session.execute(select(Hotel.name, Hotel.price, Hotel.rating).where(Hotel.hotel_id == hotel)).one()
    stay = select(func.min(Room.free)).where(Room.hotel_id == hotel, Room.night.in_([night, night + 1]))
    free = session.scalars(stay).one()
    return Offer(hotel_id=hotel, name=known.name, price=known.price, rating=known.rating, free=free)


@router.post("/recommend")
def recommend(request: Recommend) -> Recommendation | None:
    first = {"price": Hotel.price, "rating": Hotel.rating.desc(), "distance": distance(request)}[request.by]
    found = select(Hotel.hotel_id, Hotel.name, Hotel.price, Hotel.rating).where(*in_box(request))

    def work(session: Session) -> Recommendation | None:
        row = session.execute(found.order_by(first, Hotel.hotel_id).limit(1)).first()
        return None if row is None else Recommendation.model_validate(row)

    return transact(work)


class Reserve(BaseModel):
    user: int
    hotel: int
    night: int


@router.post("/reserve")
def reserve(request: Reserve, background: BackgroundTasks) -> int:
    def work(session: Session) -> int:
        for night in range(request.night, request.night + NIGHTS):
            room = (Room.hotel_id == request.hotel, Room.night == night)
            free = session.scalar(select(Room.free).where(*room))
            taken = session.execute(
                update(Room)
                .where(*room, Room.free > 0)
                .values(free=Room.free - 1)
                .execution_options(synchronize_session=False)
            )
            if free is None or taken.rowcount != 1:
                raise HTTPException(409, "no room is free")
        new = Reservation(hotel_id=request.hotel, user_id=request.user, first_night=request.night, nights=NIGHTS)
        session.add(new)
        session.flush()
        return new.reservation_id

    reservation = transact(work)
    background.add_task(mail, request.user, reservation)
    return reservation


def mail(user: int, reservation: int) -> str:
    """Tell the user. The benchmark's mails go nowhere."""
    return f"To user {user}: your reservation {reservation} is confirmed."


@router.post("/violations")
def violations() -> int:
    taken = select(func.sum(1_000_000 - Room.free)).scalar_subquery()
    reserved = select(func.coalesce(func.sum(Reservation.nights), 0)).scalar_subquery()
    return transact(lambda session: session.scalar(select(func.abs(taken - reserved))))
