"""A function that runs too long is stopped; the session that called it goes on."""

import pytest
from psycopg import errors

from .conftest import CALL

SHOP = """
import time


@app.transaction(timeout=0.3)
def loops(tx: Transaction) -> None:
    while True:
        pass


@app.transaction(timeout=0.3)
def waits(tx: Transaction) -> None:
    time.sleep(60)


@app.transaction(timeout=0.3)
def asks(tx: Transaction) -> None:
    tx.execute("select pg_sleep(60)")


@app.transaction(timeout=0.3)
def stubborn(tx: Transaction) -> str:
    try:
        while True:
            pass
    except BaseException:
        return "done"


@app.transaction
def fine(tx: Transaction) -> int:
    return tx.execute("select count(*) from generate_series(1, 10)").scalar()


@app.transaction(timeout=60)
def long_statement(tx: Transaction) -> None:
    tx.execute("select pg_sleep(60)")
"""


@pytest.fixture
def web(database, client):
    database.deploy(SHOP)
    return client("web", *CALL)


@pytest.mark.parametrize("function", ["loops", "waits", "asks", "stubborn"])
def test_a_function_is_stopped_at_its_deadline(web, function):
    for _ in range(2):
        error = web.refused(f"select shop.{function}()")
        assert error.sqlstate == "AP504"
        assert f"{function} ran longer than its timeout of 0.3 s" in error.diag.message_primary
        assert web.one("select shop.fine()") == 10
        assert web.one("select 1") == 1


def test_the_callers_own_limits_hold(web):
    web.ask("set statement_timeout = '200ms'")
    assert isinstance(web.refused("select shop.long_statement()"), errors.QueryCanceled)
    web.ask("reset statement_timeout")
    assert web.one("select shop.fine()") == 10
