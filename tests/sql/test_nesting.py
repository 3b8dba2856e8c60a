"""Calls inside calls: a statement of a function calls a function, of its own app or of another one."""

import json

import psycopg
import pytest

from apiary import OpenApp, Rejected
from apiary.codec import convert_rows
from apiary.engine.places import open_engine

from .conftest import CALL, imported

SHOP = """
import time


@app.transaction
def buy(tx: Transaction, item: int) -> int:
    tx.execute("insert into bought (item) values (:item)", item=item)
    return item


@app.transaction
def audit(tx: Transaction, item: int) -> None:
    if item == 13:
        raise Rejected("unlucky")
    tx.execute("insert into audited (item, caller) values (:item, :caller)", item=item, caller=tx.caller)


@app.query
def looks(tx: Transaction, item: int) -> int:
    return tx.execute("select shop.count_of(:item)", item=item).scalar()


@app.query
def count_of(tx: Transaction, item: int) -> int:
    return tx.execute("select count(*) from bought where item = :item", item=item).scalar()


@app.query
def wants_to_buy(tx: Transaction) -> int:
    return tx.execute("select shop.buy(1)").scalar()


@app.query
def scribbles(tx: Transaction) -> None:
    tx.execute("select shop.scribble()")


@app.transaction
def looks_and_buys(tx: Transaction, item: int) -> int:
    scribbled = True
    try:
        tx.execute("select shop.scribbles()")
    except Exception:
        scribbled = False
    tx.execute("select shop.buy(:item)", item=item)
    return tx.execute("select shop.looks(:item)", item=item).scalar() + 10 * scribbled


@app.transaction
def careful(tx: Transaction) -> str:
    try:
        tx.execute("select shop.buy(13)")
    except Exception as error:
        tx.execute("select shop.buy(14)")
        return str(error)
    return "bought"


@app.transaction
def factorial(tx: Transaction, n: int) -> int:
    return n * tx.execute("select shop.factorial(:n)", n=n - 1).scalar() if n else 1


@app.transaction(timeout=0.3)
def outer_deadline(tx: Transaction) -> None:
    tx.execute("select shop.inner_loop()")


@app.transaction(timeout=20)
def inner_loop(tx: Transaction) -> None:
    while True:
        pass


@app.transaction(timeout=20)
def patient(tx: Transaction) -> str:
    try:
        tx.execute("select shop.outer_deadline()")
    except Exception as error:
        time.sleep(0.01)
        return str(error)
    return ""
"""
TABLES = """
create table bought (item bigint);
create table audited (item bigint, caller text);
create function scribble() returns void language sql as 'insert into shop.bought (item) values (0)';
create function tell() returns trigger language plpgsql as $$
begin
    perform shop.audit(new.item);
    return new;
end $$;
create trigger tells after insert on bought for each row execute function tell();
"""


@pytest.fixture
def shop(database):
    assert database.deploy(SHOP, migrations=(TABLES,)) == []
    return database


def test_a_trigger_calls_a_function_of_the_app(shop, client):
    web = client("web", *CALL)
    assert web.one("select shop.buy(5)") == 5
    assert shop.ask("select * from shop.audited") == [(5, web.caller)]
    assert shop.records() == [("audit", "ok", web.caller), ("buy", "ok", web.caller)]
    inner, outer = shop.ask("select id, parent from apiary_shop.calls order by seq")
    assert (inner[1], outer[1]) == (outer[0], None)
    assert "unlucky" in web.refused("select shop.buy(13)").diag.message_primary
    assert len(shop.records()) == 2


def test_a_failure_inside_can_be_caught(shop, client):
    web = client("web", *CALL)
    assert "unlucky" in web.one("select shop.careful()")
    assert shop.ask("select item from shop.bought") == [(14,)]
    assert [name for name, *_ in shop.records()] == ["audit", "buy", "careful"]


def test_a_function_calls_itself(shop, client):
    assert client("web", *CALL).one("select shop.factorial(5)") == 120
    assert len(shop.records()) == 6


def test_a_query_calls_queries_only(shop, client):
    web = client("web", *CALL)
    assert web.one("select shop.looks(5)") == 0
    assert "cannot call the transaction buy" in web.refused("select shop.wants_to_buy()").diag.message_primary
    assert [name for name, *_ in shop.records()] == ["count_of", "looks"]


def test_a_query_calls_no_function_of_the_database_that_writes(shop, client):
    web = client("web", *CALL)
    with web.transaction():
        assert web.one("select shop.buy(5)") == 5
        with pytest.raises(psycopg.Error) as caught, web.transaction():
            web.ask("select shop.scribbles()")
        assert "a query cannot write" in caught.value.diag.message_primary
        assert web.one("select shop.looks_and_buys(6)") == 1
        assert web.one("select shop.looks(6)") == 1
    assert shop.ask("select item from shop.bought order by item") == [(5,), (6,)]


def test_calls_of_the_platform_hand_on_their_caller(shop):
    with imported(shop.folder, "shop", None) as app:
        engine = open_engine(shop.place, convert_rows, recording=True)
        with OpenApp(app, engine, caller="somebody") as opened:
            assert opened.call("buy", item=5) == 5
            assert opened.call("looks", item=5) == 1
            with pytest.raises(Exception, match="internal error"):
                opened.call("wants_to_buy")
            with pytest.raises(Rejected, match="unlucky"):
                opened.call("buy", item=13)
            assert opened.call("buy", item=6) == 6
    assert shop.ask("select item, caller from shop.audited") == [(5, "somebody"), (6, "somebody")]
    found = shop.ask("select function, status, caller from apiary_shop.calls order by function, status")
    assert {caller for *_, caller in found} == {"somebody"}
    assert [(name, status) for name, status, _ in found] == [
        ("audit", "ok"),
        ("audit", "ok"),
        ("buy", "ok"),
        ("buy", "ok"),
        ("buy", "rejected"),
        ("count_of", "ok"),
        ("looks", "ok"),
        ("wants_to_buy", "failed"),
    ]


def test_a_call_ends_with_the_deadline_around_it(shop, client):
    web = client("web", *CALL)
    error = web.refused("select shop.outer_deadline()")
    assert (error.sqlstate, "outer_deadline ran longer" in error.diag.message_primary) == ("AP504", True)
    assert json.loads(error.diag.message_detail)["code"] == "deadline_exceeded"
    assert "outer_deadline ran longer than its timeout of 0.3 s" in web.one("select shop.patient()")
    assert web.one("select shop.buy(5)") == 5


BILLING = """
@app.transaction
def charge(tx: Transaction, cents: int) -> str:
    import prices

    return f"{cents} {prices.CURRENCY} for {tx.caller}"
"""
BUYS = """
@app.transaction
def checkout(tx: Transaction) -> list[str]:
    first = tx.execute("select billing.charge(5)").scalar()
    import prices

    return [first, prices.CURRENCY]
"""


def test_a_call_of_another_app_and_back(database, client, tmp_path):
    for currency in ("EUR", "USD"):
        (tmp_path / currency).mkdir()
        (tmp_path / currency / "prices.py").write_text(f"CURRENCY = {currency!r}\n")
    database.deploy(BILLING, "billing", packages=tmp_path / "EUR")
    database.deploy(BUYS, "shop", packages=tmp_path / "USD")
    owner = database.one("select nspowner::regrole::text from pg_namespace where nspname = 'shop'")
    web = client("web", *CALL)
    assert "permission denied" in web.refused("select shop.checkout()").diag.message_primary
    database.ask(f"grant usage on schema billing to {owner}")
    database.ask(f"grant execute on function billing.charge to {owner}")
    for _ in range(2):
        assert web.one("select shop.checkout()")[1] == "USD"
        assert web.one("select shop.checkout()")[0].startswith("5 EUR for postgresql:")
    assert [name for name, *_ in database.records("billing")] == ["charge"] * 4
