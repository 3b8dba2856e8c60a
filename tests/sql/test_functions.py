"""Functions of an app as functions of SQL, called by other clients of the database."""

import json

import psycopg
import pytest

SHOP = '''
@app.transaction
def add_to_cart(tx: Transaction, user: int, item: int, quantity: int = 1) -> int:
    """Put an item into a cart."""
    if item == 13:
        raise Rejected("no such item", code="unknown_item", item=item, hint="take another one")
    tx.execute("insert into cart (user_id, item, quantity) values (:user, :item, :quantity)",
               user=user, item=item, quantity=quantity)
    return tx.execute("select sum(quantity)::bigint from cart where user_id = :user", user=user).scalar()


@app.query
def cart(tx: Transaction, user: int) -> list[dict[str, int]]:
    rows = tx.execute("select item, quantity from cart where user_id = :user order by item", user=user)
    return [dict(row) for row in rows]


@app.transaction
def broken(tx: Transaction) -> None:
    add_to_cart(tx, 1, 1)
    return 1 / 0
'''
CART = "create table cart (user_id bigint, item bigint, quantity bigint)"
CALL = "usage on schema shop", "execute on all functions in schema shop"


@pytest.fixture
def shop(database):
    assert database.deploy(SHOP, migrations=[CART]) == []
    return database


def one(connection, statement, *values):
    return connection.execute(statement, values).fetchone()[0]


def test_a_call_runs_as_the_app_and_is_recorded(shop, connect):
    web = connect("web", *CALL)
    assert one(web, "select shop.add_to_cart(7, 12)") == 1
    assert one(web, 'select shop.add_to_cart(quantity => 2, "user" => 7, item => 13 + 1)') == 3
    assert web.execute("select * from shop.cart(7)").fetchall() == [
        ([{"item": 12, "quantity": 1}, {"item": 14, "quantity": 2}],)
    ]
    caller = f"postgresql:{web.info.user}"
    assert shop.records() == [
        ("add_to_cart", "transaction", "ok", caller),
        ("add_to_cart", "transaction", "ok", caller),
        ("cart", "query", "ok", caller),
    ]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        web.execute("select * from shop.cart")


def test_nobody_may_call_without_being_told_so(shop, connect):
    web = connect("web", "usage on schema shop")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        web.execute("select shop.add_to_cart(7, 12)")
    assert shop.records() == []


def test_a_refusal_is_an_error_with_all_that_the_function_says(shop, connect):
    web = connect("web", *CALL)
    with pytest.raises(psycopg.Error) as caught:
        web.execute("select shop.add_to_cart(7, 13)")
    said = caught.value.diag
    assert (caught.value.sqlstate, said.message_primary) == ("AP422", "no such item")
    assert said.message_hint == "take another one"
    assert json.loads(said.message_detail)["code"] == "unknown_item"
    assert shop.records() == []
