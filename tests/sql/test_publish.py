"""What happens to the functions of an app when another version of it begins to serve."""

import threading

import psycopg
import pytest
from psycopg import errors

FIRST = """
@app.transaction
def price(tx: Transaction, item: int) -> int:
    return 1


@app.transaction
def gone(tx: Transaction) -> int:
    return 1
"""
SAME = FIRST.replace("return 1", "return 2")
MORE = """
@app.transaction
def price(tx: Transaction, item: int, currency: str = "EUR") -> str:
    return f"3 {currency}"


@app.transaction
def _hidden(tx: Transaction) -> None: ...


@app.transaction(placement="host")
def elsewhere(tx: Transaction) -> None: ...


@app.action
def outside() -> None: ...
""".replace("_hidden", "hidden")
RENAMED = FIRST.replace("item: int", "article: int")
RETYPED = FIRST.replace("-> int", "-> str").replace("return 1", 'return "one"')

PROGRAMS = """
    select distinct substring(prosrc from 'apiary.call..([0-9a-f]{64})') from pg_proc
    where pronamespace = 'shop'::regnamespace
"""


def functions(database, schema="shop"):
    rows = database.ask(
        "select p.oid::regprocedure::text from pg_proc p where pronamespace = %s::regnamespace order by 1", schema
    )
    return [name for (name,) in rows]


def test_a_version_brings_its_functions(database):
    assert database.deploy(FIRST) == []
    assert functions(database) == ["shop.gone()", "shop.price(bigint)"]
    assert database.deploy(MORE) == []
    assert functions(database) == ["shop.hidden()", "shop.price(bigint,text)"]
    assert database.one("select shop.price(1)") == "3 EUR"
    database.deploy(FIRST)
    assert functions(database) == ["shop.gone()", "shop.price(bigint)"]
    assert database.one("select shop.price(1)") == 1


def test_what_did_not_change_is_not_touched(database):
    database.deploy(FIRST)
    before = database.ask("select oid, xmin::text from pg_proc where pronamespace = 'shop'::regnamespace order by 1")
    database.deploy(FIRST)
    assert before == database.ask(
        "select oid, xmin::text from pg_proc where pronamespace = 'shop'::regnamespace order by 1"
    )


def test_open_sessions_and_prepared_statements_follow(database, client):
    database.deploy(FIRST)
    web = client("web", "usage on schema shop", "execute on function shop.price(bigint)")
    web.ask("prepare price as select shop.price(1)")
    assert web.one("execute price") == 1
    database.deploy(SAME)
    assert web.one("execute price") == 2
    database.deploy(FIRST)
    assert web.one("execute price") == 1
    with web.transaction():
        assert web.one("select shop.price(1)") == 1
        database.deploy(SAME)
    assert web.one("select shop.price(1)") == 2


@pytest.mark.parametrize("source", [SAME, MORE, RENAMED, RETYPED], ids=["same", "more", "renamed", "retyped"])
def test_privileges_stay_with_the_name(database, client, source):
    database.deploy(FIRST)
    web = client("web", "usage on schema shop", "execute on function shop.price(bigint)")
    other = client("other", "usage on schema shop")
    database.ask(f"grant execute on function shop.price(bigint) to {other.name} with grant option")
    stranger = client("stranger", "usage on schema shop")
    assert database.deploy(source) == []
    assert web.one("select shop.price(1)") == other.one("select shop.price(1)") != 1 or source == RENAMED
    assert isinstance(stranger.refused("select shop.price(1)"), errors.InsufficientPrivilege)
    signature = functions(database)[-1]
    other.ask(f"grant execute on function {signature} to {stranger.name}")
    assert stranger.one("select shop.price(1)") == web.one("select shop.price(1)")
    database.ask(f"revoke execute on function {signature} from {other.name} cascade")
    database.deploy(FIRST + "\n# again\n")
    assert isinstance(other.refused("select shop.price(1)"), errors.InsufficientPrivilege)


def test_what_a_view_uses_is_kept(database):
    database.deploy(FIRST)
    database.ask("create view totals as select shop.price(1) as price, shop.gone() as gone")
    told = database.deploy(MORE)
    assert told == [
        "shop.gone() is kept, with the code of before, because something uses it",
        "shop.price(bigint) is kept, with the code of before, because something uses it",
    ]
    assert database.ask("select * from totals") == [(1, 1)]
    assert functions(database) == ["shop.gone()", "shop.hidden()", "shop.price(bigint)", "shop.price(bigint,text)"]
    assert database.one("select shop.price(1, 'USD')") == "3 USD"
    database.ask("drop view totals")
    assert database.deploy(MORE + "\n# again\n") == []
    assert functions(database) == ["shop.hidden()", "shop.price(bigint,text)"]


def test_a_function_that_a_view_uses_can_change_its_code_but_not_its_result(database):
    database.deploy(FIRST)
    database.ask("create view totals as select shop.price(1) as price")
    assert database.deploy(SAME) == []
    assert database.ask("select * from totals") == [(2,)]
    assert database.deploy(RETYPED) == ["shop.price(bigint) stays as it was before, because something uses it"]
    assert database.ask("select * from totals") == [(2,)]
    assert database.one("select shop.gone()") == "one"


def test_a_function_of_the_apps_own_is_left_alone(database):
    own = "create function price(item bigint) returns bigint language sql return 77;"
    assert database.deploy(FIRST, migrations=(own,)) == [
        "shop.price(bigint) is not made, because the app has a function of its own there"
    ]
    assert database.one("select shop.price(1)") == 77
    database.deploy(MORE, migrations=(own,))
    assert functions(database) == ["shop.hidden()", "shop.price(bigint)", "shop.price(bigint,text)"]


def test_too_many_parameters(database):
    many = ", ".join(f"p{number}: int = 0" for number in range(51))
    assert database.deploy(f"@app.transaction\ndef wide(tx: Transaction, {many}) -> None: ...\n") == [
        "wide is not made: it has more than 50 parameters"
    ]
    most = ", ".join(f"p{number}: int = {number}" for number in range(50))
    database.deploy(f"@app.transaction\ndef wide(tx: Transaction, {most}) -> int:\n    return p0 + p49\n")
    assert database.one("select shop.wide(p0 => 1)") == 50


def test_all_change_at_once(database):
    """Whoever looks, at any moment, sees the functions of one version."""
    many = "\n\n".join(
        f"@app.transaction\ndef f{number}(tx: Transaction) -> int:\n    return VERSION\n" for number in range(5)
    )
    database.deploy(f"VERSION = 0\n\n{many}")
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        with psycopg.connect(database.url, autocommit=True) as connection:
            while not done.is_set():
                seen.append(len(connection.execute(PROGRAMS).fetchall()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for version in range(1, 6):
            database.deploy(f"VERSION = {version}\n\n{many}")
    finally:
        done.set()
        thread.join()
    assert len(seen) > 5
    assert set(seen) == {1}


def test_names_that_need_quotes(database):
    body = 'Select(tx: Transaction, Order: int, table: str = "x") -> str:\n    return table * Order\n'
    assert database.deploy(f"@app.transaction\ndef {body}") == []
    assert database.one("""select shop."Select"("Order" => 2, "table" => 'ab')""") == "abab"


def test_without_python_in_the_database_there_are_none(database):
    database.deploy(FIRST)
    place = {"program": None}
    assert database.places.publish(place, {"app": "shop", "functions": {}}, recording=True) == []
    assert functions(database) == []


def test_a_connection_that_was_cut_is_made_again(database):
    database.deploy(FIRST)
    database.ask("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                 "and pid <> pg_backend_pid()")  # fmt: skip
    assert database.deploy(SAME) == []
    assert database.one("select shop.price(1)") == 2
