"""A hotel that is booked over several nights: a workflow with something to undo, a message to wait for, and a mail.

`book` reserves every night of a stay in one transaction. A long stay waits, for days if need be, until somebody at the
hotel approves it. Then the guest is written to. Whatever fails on the way, the nights are given back.
"""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated

from pydantic import Field

from apiary import App, Rejected, Transaction, Workflow

app = App("hotel", description="A hotel that is booked over several nights.")

LONG_STAY_NIGHTS = 7
APPROVAL_SECONDS = 2 * 24 * 3600.0
MAIL_URL = "HOTEL_MAIL_URL"
"""Names the variable with the address of the mail service, which takes a JSON object with `to` and `text`."""

Nights = Annotated[int, Field(gt=0, le=60)]


@dataclass
class Reservation:
    """What a guest has booked."""

    reservation_id: str
    hotel_id: int
    guest: str
    first_night: date
    nights: int
    cents: int
    status: str


@app.transaction
def open_hotel(tx: Transaction, hotel: int, name: str, cents: int, rooms: int, first_night: date, nights: int) -> None:
    """Open a hotel with so many rooms, each night from the first on; `cents` is the price of a room and a night."""
    tx.execute(
        "insert into hotels (hotel_id, name, cents) values (:hotel, :name, :cents)", hotel=hotel, name=name, cents=cents
    )
    tx.execute_many(
        "insert into rooms (hotel_id, night, free) values (:hotel, :night, :free)",
        [{"hotel": hotel, "night": first_night + timedelta(days=day), "free": rooms} for day in range(nights)],
    )


@app.query
def free_rooms(tx: Transaction, hotel: int, night: date) -> int:
    """How many rooms are free in a night."""
    found = tx.execute("select free from rooms where hotel_id = :hotel and night = :night", hotel=hotel, night=night)
    return int(found.scalar() or 0)


@app.transaction(key="hotel")
def reserve(
    tx: Transaction, reservation: str, hotel: int, guest: str, first_night: date, nights: Nights
) -> Reservation:
    """Take a room in every night of the stay, or in none."""
    price = tx.execute("select cents from hotels where hotel_id = :hotel", hotel=hotel).scalar()
    if price is None:
        raise Rejected("there is no such hotel", code="unknown_hotel", hotel=hotel)
    for night in _nights(first_night, nights):
        taken = tx.execute(
            "update rooms set free = free - 1 where hotel_id = :hotel and night = :night and free > 0",
            hotel=hotel,
            night=night,
        )
        if taken.rowcount == 0:
            raise Rejected("no room is free", code="full", night=night.isoformat())
    tx.execute(
        "insert into reservations (reservation_id, hotel_id, guest, first_night, nights, cents, status) "
        "values (:id, :hotel, :guest, :first_night, :nights, :cents, 'reserved')",
        id=reservation,
        hotel=hotel,
        guest=guest,
        first_night=first_night,
        nights=nights,
        cents=price * nights,
    )
    return Reservation(reservation, hotel, guest, first_night, nights, price * nights, "reserved")


@app.transaction
def give_back(tx: Transaction, reservation: Reservation) -> None:
    """Undo a reservation: its nights are free again."""
    changed = tx.execute(
        "update reservations set status = 'given back' where reservation_id = :id and status <> 'given back'",
        id=reservation.reservation_id,
    )
    if changed.rowcount:
        for night in _nights(reservation.first_night, reservation.nights):
            tx.execute(
                "update rooms set free = free + 1 where hotel_id = :hotel and night = :night",
                hotel=reservation.hotel_id,
                night=night,
            )


@app.transaction
def confirm(tx: Transaction, reservation: str) -> str:
    """The stay is booked."""
    tx.execute("update reservations set status = 'booked' where reservation_id = :id", id=reservation)
    return "booked"


@app.query
def status(tx: Transaction, reservation: str) -> str:
    """Where a reservation is: reserved, booked, given back."""
    found = tx.execute("select status from reservations where reservation_id = :id", id=reservation).scalar()
    if found is None:
        raise Rejected("there is no such reservation", code="unknown_reservation")
    return str(found)


@app.action(retries=4, backoff=0.05)
def send_mail(to: str, text: str, *, idempotency_key: str) -> None:
    """Have a mail sent. The service drops what it has sent already under the same key."""
    url = os.environ.get(MAIL_URL)
    if url is None:
        return
    request = urllib.request.Request(
        url,
        json.dumps({"to": to, "text": text}).encode(),
        {"Content-Type": "application/json", "Idempotency-Key": idempotency_key},
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 422:
            raise Rejected(f"{to} takes no mail", code="no_mail") from None
        raise


@app.workflow
def book(wf: Workflow, hotel: int, guest: str, first_night: date, nights: Nights) -> str:
    """Book a stay, and write to the guest. A long one waits for the message `approval`: true, or false and why not."""
    reservation = wf.run(reserve, wf.id, hotel, guest, first_night, nights, undo=give_back)
    if nights > LONG_STAY_NIGHTS:
        wf.publish("waits for", "approval")
        answer = wf.receive("approval", timeout=APPROVAL_SECONDS)
        if answer is None or not answer.get("approved"):
            raise Rejected("the stay was not approved", code="not_approved", reason=(answer or {}).get("reason"))
    wf.run(send_mail, guest, f"{nights} nights from {first_night}, {reservation.cents / 100:.2f} in all")
    return wf.run(confirm, reservation.reservation_id)


def _nights(first: date, count: int) -> list[date]:
    return [first + timedelta(days=day) for day in range(count)]
