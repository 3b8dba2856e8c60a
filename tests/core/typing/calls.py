"""Static types survive the decorators. Checked by mypy, not run: an unused `type: ignore` is an error there."""

from dataclasses import dataclass
from typing import Any, assert_type

import apiary
from apiary import App, Client, Function, Result, Transaction, Workflow, WorkflowHandle

app = App("typed")


@dataclass
class Line:
    item: int


@app.query
def cart(tx: Transaction, user: int) -> list[Line]:
    found = tx.execute("select item from cart where user_id = :user", user=user)
    assert_type(found, Result)
    assert_type(found.all(Line), list[Line])
    assert_type(found.first(Line), Line | None)
    assert_type(found.one(Line), Line)
    assert_type(found.all(int), list[int])
    assert_type(found.all(), list[Any])
    assert_type(found.rowcount, int)
    return found.all(Line)


@app.transaction(roles=["clerk"], timeout=3, key="user")
def add(tx: Transaction, user: int, item: int, quantity: int = 1) -> str:
    assert_type(cart(tx, user), list[Line])
    assert_type(tx.enqueue(add, user, item, quantity=2), str)
    assert_type(tx.enqueue(mail, "x", urgent=True), str)
    assert_type(tx.enqueue(checkout, user, "card"), str)
    tx.send("01a2", "paid", {"cents": 5})
    tx.enqueue(checkout, user)  # type: ignore[call-overload]
    tx.enqueue(add, user)  # type: ignore[call-overload]
    tx.enqueue(add, user, "x")  # type: ignore[call-overload]
    tx.enqueue(mail)  # type: ignore[call-overload]
    tx.enqueue(mail, 7)  # type: ignore[call-overload]
    cart(tx, "x")  # type: ignore[arg-type]
    cart(user)  # type: ignore[call-arg, arg-type]
    return ""


@app.action(retries=3, backoff=0.1)
def mail(to: str, urgent: bool = False) -> int:
    return 1


@app.action
async def fetch(url: str) -> bytes:
    return b""


@app.workflow
def checkout(wf: Workflow, user: int, card: str) -> list[Line]:
    assert_type(wf.run(add, user, 7), str)
    assert_type(wf.start(cart, user).result(), list[Line])
    assert_type(wf.run(checkout, user, card), list[Line])
    return wf.run(cart, user)


assert_type(mail("x"), int)
assert_type(app.functions, dict[str, Function[..., Any]])

with apiary.open(app, "sqlite:///x.db") as shop:
    assert_type(shop.call(cart, 7), list[Line])
    assert_type(shop.call(add, 7, item=1), str)
    assert_type(shop.call("cart", user=7), Any)
    assert_type(shop.call(checkout, 7, "card"), list[Line])
    assert_type(shop.start(checkout, 7, card="card"), WorkflowHandle[list[Line]])
    assert_type(shop.start(checkout, 7, "card", idempotency_key="k").result(5), list[Line])
    assert_type(shop.start("checkout", user=7), WorkflowHandle[Any])
    assert_type(shop.workflow("01a2").status(), str)
    shop.start(checkout, 7)  # type: ignore[call-overload]
    shop.start(cart, 7)  # type: ignore[call-overload]
    shop.call(cart, "x")  # type: ignore[call-overload]
    shop.call(add, 7)  # type: ignore[call-overload]


@app.query(retries=3)  # type: ignore[call-overload, untyped-decorator]
def no_such_option(tx: Transaction) -> None: ...


@app.action(key="x")  # type: ignore[call-overload, untyped-decorator]
def no_key_for_actions(x: int) -> None: ...


client = Client("http://localhost:8000")
assert_type(client.call("cart", user=7), Any)
assert_type(client.call(checkout, 7, "card"), list[Line])
assert_type(client.start(checkout, 7, "card"), WorkflowHandle[list[Line]])
assert_type(client.start("shop.checkout", user=7), WorkflowHandle[Any])
client.start(checkout, "x", "card")  # type: ignore[call-overload]
