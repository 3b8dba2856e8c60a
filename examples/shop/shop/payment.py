"""What the shop does outside: it has cards charged, by a payment service or, without one, by a make-believe one."""

import hashlib
import json
import os
import urllib.error
import urllib.request
from typing import Any

from apiary import Rejected

from .declared import app

PAYMENTS_URL = "SHOP_PAYMENTS_URL"
"""Names the variable with the address of the payment service; `examples/shop/payments.py` is one."""
PATIENCE_SECONDS = 1.0


@app.action(retries=5, backoff=0.1)
def charge(card: str, cents: int, payment: str | None = None, *, idempotency_key: str) -> str:
    """Have the card charged, and return the receipt.

    `card` is a token from the payment provider, never a card number, because the log keeps the arguments of
    every call. `payment` names the payment, for who may want to take it back; otherwise the idempotency key
    does. The service charges a payment once, however often it is asked.
    """
    answer = _ask("charges", {"card": card, "cents": cents}, payment or idempotency_key)
    return str(answer["receipt"])


@app.action(retries=30, backoff=0.1, timeout=3600)
def take_back(payment: str) -> None:
    """Take a payment back, whether it was made or not; it cannot be made any more then."""
    _ask("voids", {"payment": payment}, payment)


def _ask(what: str, body: dict[str, Any], key: str) -> Any:
    url = os.environ.get(PAYMENTS_URL)
    if url is None:
        return _make_believe(body, key)
    request = urllib.request.Request(
        f"{url}/{what}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Idempotency-Key": key},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 402:
            raise _declined(body) from None
        raise


def _make_believe(body: dict[str, Any], key: str) -> dict[str, str]:
    """A provider without a server, which declines the token "declined"."""
    if body.get("card") == "declined":
        raise _declined(body)
    return {"receipt": "receipt-" + hashlib.sha256(key.encode()).hexdigest()[:16]}


def _declined(body: dict[str, Any]) -> Rejected:
    return Rejected("the payment was declined", code="payment_declined", cents=body.get("cents"))
