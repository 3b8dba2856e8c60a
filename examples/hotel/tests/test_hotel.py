"""The hotel: stays that are booked, refused, approved, and undone, with a mail service that fails."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import apiary

HOTEL = Path(__file__).parents[1]
FIRST = date(2030, 5, 1)


class MailService(ThreadingHTTPServer):
    """A mail service that answers the next requests with `failures`, and drops what comes twice."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MailHandler)
        self.failures: list[int] = []
        self.keys: list[str] = []
        self.sent: dict[str, dict[str, str]] = {}


class MailHandler(BaseHTTPRequestHandler):
    server: MailService

    def do_POST(self) -> None:
        mail = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        self.server.keys.append(key)
        status = self.server.failures.pop(0) if self.server.failures else 200
        if status == 200:
            self.server.sent.setdefault(key, mail)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailService]:
    service = MailService()
    thread = threading.Thread(target=service.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HOTEL_MAIL_URL", f"http://127.0.0.1:{service.server_port}/")
    yield service
    service.shutdown()
    thread.join()
    service.server_close()


@pytest.fixture
def hotel(apiary_app: Callable[[Path], Any], mails: MailService) -> Any:
    opened = apiary_app(HOTEL)
    opened.call("open_hotel", hotel=1, name="Hive", cents=9000, rooms=2, first_night=FIRST, nights=30)
    return opened


def book(hotel: Any, nights: int, guest: str = "ann@example.org") -> Any:
    return hotel.call("book", hotel=1, guest=guest, first_night=FIRST, nights=nights)


def free(hotel: Any) -> list[int]:
    return [hotel.call("free_rooms", hotel=1, night=date(2030, 5, day)) for day in (1, 3, 4)]


def test_a_stay_is_booked_and_the_guest_written_to(hotel: Any, mails: MailService) -> None:
    assert book(hotel, 3) == "booked"
    assert free(hotel) == [1, 1, 2]
    assert [mail["to"] for mail in mails.sent.values()] == ["ann@example.org"]


def test_a_mail_service_that_fails_is_asked_again_with_the_same_key(hotel: Any, mails: MailService) -> None:
    mails.failures = [500, 503]
    assert book(hotel, 1) == "booked"
    assert len(mails.keys) == 3
    assert len(set(mails.keys)) == len(mails.sent) == 1


def test_no_night_is_taken_where_one_is_full(hotel: Any) -> None:
    for _ in range(2):
        book(hotel, 1)
    with pytest.raises(apiary.Rejected) as refused:
        book(hotel, 3)
    assert refused.value.code == "full"
    assert free(hotel) == [0, 2, 2]


def test_the_nights_are_given_back_where_the_guest_cannot_be_written_to(hotel: Any, mails: MailService) -> None:
    mails.failures = [422]
    with pytest.raises(apiary.Rejected) as refused:
        book(hotel, 3)
    assert refused.value.code == "no_mail"
    assert free(hotel) == [2, 2, 2]
    assert not mails.sent


@pytest.mark.parametrize("approved", [True, False])
def test_a_long_stay_waits_for_approval(hotel: Any, approved: bool) -> None:
    stay = hotel.start("book", hotel=1, guest="bob@example.org", first_night=FIRST, nights=10)
    end = time.monotonic() + 20
    while stay.published("waits for") != "approval":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert free(hotel) == [1, 1, 1]
    stay.send("approval", {"approved": approved, "reason": "it is short notice"})
    if approved:
        assert stay.result() == "booked"
    else:
        with pytest.raises(apiary.Rejected) as refused:
            stay.result()
        assert refused.value.details == {"reason": "it is short notice"}
        assert free(hotel) == [2, 2, 2]
