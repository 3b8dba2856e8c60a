"""Functions of an app, called from SQL by a client that is neither a superuser nor the app."""

import json

import pytest
from psycopg import errors

from .conftest import CALL

SHOP = '''
from pydantic import SecretStr


@app.transaction
def add_to_cart(tx: Transaction, user: int, item: int, quantity: int = 1) -> int:
    """Put an item into a cart."""
    tx.log("adding", item=item)
    tx.execute("insert into cart (user_id, item, quantity) values (:user, :item, :quantity)",
               user=user, item=item, quantity=quantity)
    if item == 13:
        raise Rejected("no such item", code="unknown_item", item=item, hint="take another one")
    return tx.execute("select sum(quantity)::bigint from cart where user_id = :user", user=user).scalar()


@app.query
def cart(tx: Transaction, user: int) -> list[dict[str, int]]:
    rows = tx.execute("select item, quantity from cart where user_id = :user order by item", user=user)
    return [dict(row) for row in rows]


@app.query
def sneaks(tx: Transaction) -> None:
    tx.execute("delete from cart")


@app.transaction
def broken(tx: Transaction) -> float:
    add_to_cart(tx, 1, 1)
    return 1 / 0


@app.transaction
def clears(tx: Transaction) -> None:
    tx.execute("delete from cart")


@app.transaction
def secret(tx: Transaction, password: SecretStr) -> int:
    return len(password.get_secret_value())


@app.transaction
def finds_out(tx: Transaction) -> dict[str, str]:
    names = ["current_user", "current_schema", "current_setting('TimeZone')"]
    return {name: tx.execute(f"select {name}").scalar() for name in names}
'''
CART = "create table cart (user_id bigint, item bigint, quantity bigint)"


@pytest.fixture
def shop(database):
    assert database.deploy(SHOP, migrations=(CART,)) == []
    return database


@pytest.fixture
def web(shop, client):
    return client("web", *CALL)


def test_a_call_runs_as_the_app_and_is_recorded(shop, web):
    assert web.one("select shop.add_to_cart(7, 12)") == 1
    assert web.one('select shop.add_to_cart(quantity => 2, "user" => 7, item => 13 + 1)') == 3
    assert web.ask("select * from shop.cart(7)") == [([{"item": 12, "quantity": 1}, {"item": 14, "quantity": 2}],)]
    assert shop.records() == [
        ("add_to_cart", "ok", web.caller),
        ("add_to_cart", "ok", web.caller),
        ("cart", "ok", web.caller),
    ]
    record = shop.ask(
        "select kind, input::json, output::json, lines::json, attempt, key from apiary_shop.calls limit 1"
    )
    kind, given, output, lines, attempt, key = record[0]
    assert (kind, given, output, attempt, key) == ("transaction", {"user": 7, "item": 12, "quantity": 1}, 1, 1, None)
    assert lines[0]["message"] == "adding"
    assert web.refused("select * from shop.cart").sqlstate == errors.InsufficientPrivilege.sqlstate
    assert web.refused("select * from apiary_shop.calls").sqlstate == errors.InsufficientPrivilege.sqlstate


def test_nobody_may_call_without_having_been_told_so(shop, client):
    stranger = client("stranger", "usage on schema shop")
    assert isinstance(stranger.refused("select shop.add_to_cart(7, 12)"), errors.InsufficientPrivilege)
    assert isinstance(stranger.refused("select apiary.call('a', 'b', 'c', 'd')"), errors.InsufficientPrivilege)
    assert shop.records() == []


def test_a_refusal_says_all_that_the_function_says(shop, web):
    error = web.refused("select shop.add_to_cart(7, 13)")
    said = error.diag
    assert (error.sqlstate, said.message_primary, said.message_hint) == ("AP422", "no such item", "take another one")
    problem = json.loads(said.message_detail)
    assert (problem["code"], problem["item"], problem["status"]) == ("unknown_item", 13, 422)
    assert said.context.splitlines() == ["PL/pgSQL function add_to_cart(bigint,bigint,bigint) line 9 at RAISE"]
    assert shop.records() == []
    assert web.one("select shop.add_to_cart(7, 12)") == 1


def test_wrong_arguments_are_named(shop, web):
    error = web.refused("select shop.add_to_cart(7, null)")
    assert error.sqlstate == "AP400"
    assert error.diag.message_primary == "add_to_cart: item: input should be a valid integer"
    assert "add_to_cart(user: int, item: int, quantity: int = 1)" in error.diag.message_hint
    assert isinstance(web.refused("select shop.add_to_cart(7)"), errors.UndefinedFunction)


def test_an_internal_error_shows_where_it_came_from(shop, web):
    error = web.refused("select shop.broken()")
    assert error.sqlstate == "AP500"
    assert error.diag.message_primary == "broken failed with an internal error: ZeroDivisionError: division by zero"
    assert 'shop.py", line' in error.diag.message_detail
    assert "return 1 / 0" in error.diag.message_detail
    assert "apiary/runtime" not in error.diag.message_detail
    assert "record is not kept" in error.diag.message_hint
    assert shop.ask("select * from shop.cart") == []


def test_a_query_cannot_write(shop, web):
    web.one("select shop.add_to_cart(7, 12)")
    error = web.refused("select shop.sneaks()")
    assert (error.sqlstate, "a query cannot write" in error.diag.message_primary) == ("AP500", True)
    assert len(shop.ask("select * from shop.cart")) == 1


def test_the_callers_transaction_decides(shop, web):
    with web.transaction(force_rollback=True):
        assert web.one("select shop.add_to_cart(7, 12)") == 1
        assert web.one("select shop.add_to_cart(7, 14)") == 2
    assert shop.ask("select * from shop.cart") == shop.records() == []
    with web.transaction():
        web.one("select shop.add_to_cart(7, 12)")
        web.ask("savepoint before")
        web.one("select shop.add_to_cart(7, 14)")
        assert web.refused("select shop.add_to_cart(7, 13)").sqlstate == "AP422"
        web.ask("rollback to before")
        with web.transaction(force_rollback=True):
            web.one("select shop.clears()")
        assert web.one("select shop.add_to_cart(7, 15)") == 2
    assert [function for function, *_ in shop.records()] == ["add_to_cart", "add_to_cart"]
    assert shop.ask("select item from shop.cart order by item") == [(12,), (15,)]


def test_an_error_ends_the_transaction_as_any_error_does(shop, web):
    web.ask("begin")
    web.one("select shop.add_to_cart(7, 12)")
    assert web.refused("select shop.add_to_cart(7, 13)").sqlstate == "AP422"
    assert isinstance(web.refused("select shop.add_to_cart(7, 12)"), errors.InFailedSqlTransaction)
    web.ask("commit")
    assert shop.ask("select * from shop.cart") == []


def test_many_calls_in_one_statement(shop, web):
    assert web.ask("select shop.add_to_cart(g, g + 20) from generate_series(1, 3) g") == [(1,), (1,), (1,)]
    assert len(shop.records()) == 3
    assert web.one("select sum(shop.add_to_cart(9, 1))::int from generate_series(1, 3)") == 6


def test_a_function_without_a_result_returns_nothing(web):
    assert web.ask("select shop.clears()") == [("",)]


def test_secrets_do_not_reach_the_log(shop, web):
    assert web.one("select shop.secret('hunter2')") == 7
    assert "hunter2" not in shop.one("select input from apiary_shop.calls")


def test_code_runs_with_the_apps_own_settings(shop, web):
    web.ask("set datestyle = 'German, DMY'")
    web.ask("set timezone = 'Asia/Tokyo'")
    web.ask("create temporary table cart (user_id bigint, item bigint, quantity bigint)")
    web.ask("set search_path = pg_temp, public")
    web.one("select shop.add_to_cart(7, 12)")
    assert shop.ask("select item from shop.cart") == [(12,)]
    role = shop.one("select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner where nspname = 'shop'")
    assert web.one("select shop.finds_out()") == {
        "current_user": role,
        "current_schema": "shop",
        "current_setting('TimeZone')": "UTC",
    }
    assert web.one("show timezone") == "Asia/Tokyo"


def test_a_transaction_that_only_reads_holds_no_record(shop, web):
    web.one("select shop.add_to_cart(7, 12)")
    web.ask("begin read only")
    assert web.one("select shop.cart(7)") == [{"item": 12, "quantity": 1}]
    web.ask("commit")
    web.ask("begin read only")
    assert "cannot write" in web.refused("select shop.clears()").diag.message_primary
    web.ask("rollback")
    assert [function for function, *_ in shop.records()] == ["add_to_cart"]


def test_any_isolation_level_will_do(shop, web):
    for level in ("read committed", "repeatable read", "serializable"):
        web.ask(f"begin isolation level {level}")
        web.one("select shop.add_to_cart(7, 12)")
        web.ask("commit")
    assert shop.one("select count(*) from shop.cart") == 3


def test_conflicts_keep_their_sqlstate(shop, web, client):
    web.one("select shop.add_to_cart(7, 12)")
    other = client("other", *CALL)
    for one in (web, other):
        one.ask("begin isolation level repeatable read")
        one.one("select shop.cart(7)")
    web.one("select shop.clears()")
    web.ask("commit")
    error = other.refused("select shop.clears()")
    assert error.sqlstate == errors.SerializationFailure.sqlstate
    other.ask("rollback")


def test_functions_are_described(shop):
    assert shop.one("select obj_description('shop.add_to_cart'::regproc)") == "Put an item into a cart."
    assert shop.one("select prosecdef from pg_proc where oid = 'shop.add_to_cart'::regproc")
    assert shop.one("select pg_get_function_arguments('shop.add_to_cart'::regproc)") == (
        "\"user\" bigint, item bigint, quantity bigint DEFAULT '1'::bigint"
    )
