"""A payment service: a real HTTP server, as unreliable as those of others are. It fails, and it answers too late.

    python examples/shop/payments.py --port 9000 --failing 0.2 --late 0.1

`POST /charges` with `card` and `cents` (JSON) and an `Idempotency-Key` charges a card: 201 with a `receipt`, the same
one for the same key, or 402 where the card is declined. `POST /voids` with a `payment`, which is such a key, takes the
charge back whether it has arrived or not: after that it never will.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LATE_SECONDS = 3.0
FINE, FAILS, LATE = "fine", "fails", "late"


class PaymentService(ThreadingHTTPServer):
    """`fault` says, for each request, whether it goes well, fails before anything was done, or is answered too late."""

    daemon_threads = True

    def __init__(self, port: int, fault: Callable[[], str] = lambda: FINE, late_seconds: float = LATE_SECONDS) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.charges: dict[str, dict[str, Any]] = {}
        self.voided: set[str] = set()
        self.requests = 0
        self.late_seconds = late_seconds
        self._fault = fault
        self._lock = threading.Lock()

    @property
    def cents(self) -> int:
        """What all cards were charged with."""
        with self._lock:
            return sum(charge["cents"] for key, charge in self.charges.items() if key not in self.voided)

    def answer(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any], bool]:
        """The status and the body of an answer, and whether it comes late."""
        with self._lock:
            self.requests += 1
            fault = self._fault()
            if fault == FAILS:
                return 503, {"detail": "out of order"}, False
            status, answer = self._void(body["payment"]) if path == "/voids" else self._charge(key, body)
            return status, answer, fault == LATE

    def _charge(self, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["card"] == "declined":
            return 402, {"detail": "the card was declined"}
        if key in self.voided:
            return 410, {"detail": "the payment was taken back"}
        receipt = "receipt-" + hashlib.sha256(key.encode()).hexdigest()[:16]
        return 201, self.charges.setdefault(key, {"cents": body["cents"], "receipt": receipt})

    def _void(self, payment: str) -> tuple[int, dict[str, Any]]:
        self.voided.add(payment)
        return 200, {"payment": payment}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: PaymentService

    def do_POST(self) -> None:
        """Answer it, now or late."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer, late = self.server.answer(self.path, self.headers.get("Idempotency-Key", ""), body)
        if late:
            time.sleep(self.server.late_seconds)
        content = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # who asked has gone away
            pass

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def chance(failing: float, late: float) -> Callable[[], str]:
    """A fault that comes with these probabilities."""
    return lambda: random.choices((FAILS, LATE, FINE), (failing, late, 1 - failing - late))[0]


def main() -> None:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--failing", type=float, default=0.0, help="of 1, how many requests fail")
    parser.add_argument("--late", type=float, default=0.0, help="of 1, how many are answered too late")
    options = parser.parse_args()
    with PaymentService(options.port, chance(options.failing, options.late)) as service:
        print(f"payments at http://127.0.0.1:{service.server_port}")
        try:
            service.serve_forever()
        except KeyboardInterrupt:
            print(f"{len(service.charges)} payments, {service.cents / 100:.2f}")


if __name__ == "__main__":
    main()
