"""Checkouts with a payment service that fails and answers too late: each is paid once, or not at all."""

import importlib.util
import threading
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

import apiary

SHOP = Path(__file__).parents[1]
MUG, PRICE = 9, 899


def load_payments() -> Any:
    spec = importlib.util.spec_from_file_location("payments", SHOP / "payments.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAYMENTS = load_payments()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function that starts the payment service with these faults, one after the other, the last for ever."""
    services: list[Any] = []
    threads: list[threading.Thread] = []

    def start(*faults: str) -> Any:
        given = chain(faults, repeat(faults[-1]))
        service = PAYMENTS.PaymentService(0, lambda: next(given), late_seconds=0.3)
        services.append(service)
        threads.append(threading.Thread(target=service.serve_forever, args=(0.01,)))
        threads[-1].start()
        monkeypatch.setenv("SHOP_PAYMENTS_URL", f"http://127.0.0.1:{service.server_port}")
        return service

    yield start
    for service, thread in zip(services, threads, strict=True):
        service.shutdown()
        thread.join()
        service.server_close()


@pytest.fixture
def shop(apiary_app: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    opened = apiary_app(SHOP)
    payment = next(f for f in opened.app.functions.values() if f.name == "charge").body.__globals__
    monkeypatch.setitem(payment, "PATIENCE_SECONDS", 0.1)
    opened.call("load_catalogue", items=[_mug()])
    opened.call("add_to_cart", user=1, item=MUG, quantity=2)
    return opened


def _mug() -> dict[str, Any]:
    return {"item_id": MUG, "sku": "m", "name": "Mug", "description": "", "cost": PRICE, "tags": ["kitchen"]}


def stock(shop: Any) -> int:
    return int(shop.call("item", item=MUG).inventory)


def statuses(shop: Any) -> list[str]:
    return [order.status for order in shop.call("orders", user=1)]


@pytest.mark.parametrize(
    "faults", [("fine",), ("fails", "fails", "fine"), ("late", "late", "fine"), ("late", "fails", "fine")]
)
def test_an_order_is_paid_once_however_often_the_service_is_asked(
    shop: Any, serve: Callable[..., Any], faults: tuple[str, ...]
) -> None:
    service = serve(*faults)
    assert shop.call("checkout", user=1, card="visa").status == "paid"
    assert (len(service.charges), service.cents, service.requests) == (1, 2 * PRICE, len(faults))
    assert (stock(shop), statuses(shop)) == (98, ["paid"])


def test_a_declined_card_is_not_asked_for_again(shop: Any, serve: Callable[..., Any]) -> None:
    service = serve("fine")
    with pytest.raises(apiary.Rejected) as refused:
        shop.call("checkout", user=1, card="declined")
    assert refused.value.code == "payment_declined"
    assert (service.requests, service.cents, stock(shop), statuses(shop)) == (1, 0, 100, ["released"])


@pytest.mark.parametrize("lost", ["fails", "late"])
def test_a_payment_of_which_nobody_knows_is_taken_back(shop: Any, serve: Callable[..., Any], lost: str) -> None:
    service = serve(*[lost] * 6, "fails", "fine")
    with pytest.raises(apiary.Rejected) as refused:
        shop.call("checkout", user=1, card="visa")
    assert refused.value.code == "no_payment"
    assert (service.cents, stock(shop), statuses(shop)) == (0, 100, ["released"])
    assert len(service.charges) == (1 if lost == "late" else 0)
    assert len(service.voided) == 1
