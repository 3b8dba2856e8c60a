"""Hotel: search what is near and free, recommend, reserve two nights and have a mail sent."""

from dataclasses import dataclass

from apiary import App, Rejected, Transaction

from . import statements

app = App("hotel")

NIGHTS = 2


@dataclass(frozen=True)
class Offer:
    """A hotel with rooms for the whole stay. Price in cents, rating in tenths, `free` of the worst night."""

    hotel_id: int
    name: str
    price: int
    rating: int
    free: int


@dataclass(frozen=True)
class Recommendation:
    """A hotel. Price in cents, rating in tenths."""

    hotel_id: int
    name: str
    price: int
    rating: int


@app.query
def search(tx: Transaction, lat: int, lon: int, night: int) -> list[Offer]:
    """The ten nearest hotels in a box around a place that have rooms for two nights."""
    if night + NIGHTS - 1 > tx.execute(statements.SEASON).scalar():
        raise Rejected("the season has ended then", code="out_of_season")
    offers = []
    for hotel in tx.execute(statements.NEAREST, lat=lat, lon=lon).scalars():
        known = tx.execute(statements.HOTEL, hotel=hotel).one()
        free = tx.execute(statements.FREE, hotel=hotel, night=night).scalar()
        if free > 0:
            offers.append(Offer(hotel, known.name, known.price, known.rating, free))
    return offers


@app.query
def recommend(tx: Transaction, lat: int, lon: int, by: str) -> Recommendation | None:
    """The best hotel in a box around a place, by price, rating or distance."""
    return tx.execute(statements.BEST[by], lat=lat, lon=lon).first(Recommendation)


@app.transaction
def reserve(tx: Transaction, user: int, hotel: int, night: int) -> int:
    """Take a room for two nights; the id of the reservation. A mail follows if, and only if, this commits."""
    for one in range(night, night + NIGHTS):
        free = tx.execute(statements.FREE_AT, hotel=hotel, night=one).scalar()
        if free is None or tx.execute(statements.TAKE, hotel=hotel, night=one).rowcount != 1:
            raise Rejected("no room is free", code="sold_out", night=one)
    reservation = tx.execute(statements.ADD_RESERVATION, hotel=hotel, user=user, night=night).scalar()
    tx.enqueue(mail, user, reservation)
    return reservation


@app.action
def mail(user: int, reservation: int) -> str:
    """Tell the user. The benchmark's mails go nowhere."""
    return f"To user {user}: your reservation {reservation} is confirmed."


@app.query
def violations(tx: Transaction) -> int:
    """Nights that are taken and not reserved, or reserved and not taken."""
    return tx.execute(statements.VIOLATIONS).scalar()


@app.transaction
def load_season(tx: Transaction, first: int, last: int) -> None:
    """Say which nights can be reserved."""
    tx.execute(statements.LOAD_SEASON)


@app.transaction
def load_hotels(tx: Transaction, first: int, last: int) -> None:
    """Make the hotels first..last and their rooms."""
    tx.execute(statements.LOAD_HOTELS, first=first, last=last)
    tx.execute(statements.LOAD_ROOMS, first=first, last=last)
