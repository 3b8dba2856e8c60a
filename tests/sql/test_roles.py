"""Who calls, and what they may: roles of PostgreSQL are roles of the platform."""

import json

import psycopg
import pytest

from .conftest import CALL

SHOP = """
@app.transaction(roles=[{role!r}])
def restricted(tx: Transaction) -> str:
    return tx.caller


@app.transaction
def open_to_all(tx: Transaction) -> str:
    return tx.caller


@app.transaction
def around(tx: Transaction) -> str:
    return restricted(tx)
"""


@pytest.fixture
def shop(database, client):
    """An app with a function for one role, which exists; `role` is its name."""
    database.role = client("clerk").name
    database.deploy(SHOP.format(role=database.role))
    return database


def test_members_of_a_role_may_call(shop, client):
    clerk = client("one_of_them", *CALL, shop.role)
    other = client("other", *CALL)
    assert clerk.one("select shop.restricted()") == clerk.caller
    assert clerk.one("select shop.around()") == clerk.caller
    for function in ("restricted", "around"):
        error = other.refused(f"select shop.{function}()")
        assert error.sqlstate == "AP403"
        assert json.loads(error.diag.message_detail)["roles"] == [shop.role]
    assert other.one("select shop.open_to_all()") == other.caller


def test_a_role_that_is_set_counts(shop, client):
    """As PostgREST does it: it logs in as one role that may become any of its users."""
    clerk = client("one_of_them", *CALL, shop.role)
    other = client("other", *CALL)
    login = client("authenticator", clerk.name, other.name)
    login.ask(f"set role {clerk.name}")
    assert login.one("select shop.restricted()") == f"{login.caller}/{clerk.name}"
    login.ask(f"set role {other.name}")
    assert login.refused("select shop.restricted()").sqlstate == "AP403"
    assert login.one("select shop.open_to_all()") == f"{login.caller}/{other.name}"
    assert shop.records() == [
        ("restricted", "ok", f"{login.caller}/{clerk.name}"),
        ("open_to_all", "ok", f"{login.caller}/{other.name}"),
    ]


def test_superusers_may_everything_and_a_role_named_admin_may_not(shop, client, database):
    assert database.one("select shop.restricted()").startswith("postgresql:")
    taken = database.ask("select rolname from pg_roles where rolname = 'admin'")
    if not taken:
        database.ask("create role admin")
    try:
        assert client("boss", *CALL, "admin").refused("select shop.restricted()").sqlstate == "AP403"
    finally:
        if not taken:
            database.ask("drop owned by admin")
            database.ask("drop role admin")


def test_who_may_call_does_not_read_the_code(shop, client):
    other = client("other", *CALL)
    assert other.one("select shop.open_to_all()") == other.caller
    assert other.one("select count(*) from apiary.archives") == 0 < shop.one("select count(*) from apiary.archives")
    program = shop.one("select hash from apiary.programs")
    assert other.ask(f"select * from apiary.program('{program}')") == []
    assert other.refused(f"select apiary.run('{program}', '')").sqlstate == "42501"


LATE = """
create function look_around() returns trigger language plpgsql as $$
begin
    insert into shop.seen (who) values (current_user);
    return null;
end $$;
create constraint trigger late after insert on notes deferrable initially deferred
    for each row execute function look_around();
"""
HOLD = """
create function seen_by() returns text language plpgsql volatile as $$
begin
    insert into shop.seen (who) values (current_user);
    return current_user;
end $$;
create function hold() returns void language plpgsql as $$
begin
    execute 'declare kept cursor with hold for select shop.seen_by()';
end $$;
"""


@pytest.mark.parametrize(
    ("migration", "statement"),
    [(LATE, "select 1"), (HOLD, "select hold()")],
    ids=["a deferred trigger", "a cursor that is held"],
)
def test_nothing_of_an_app_runs_with_the_rights_of_its_caller(database, migration, statement):
    database.deploy(
        f"""
@app.transaction
def leave(tx: Transaction) -> None:
    tx.execute("insert into notes (id) values (1)")
    tx.execute({statement!r})
""",
        migrations=("create table notes (id integer); create table seen (who text);", migration),
    )
    with pytest.raises(psycopg.Error, match="run with your rights") as refused:
        database.admin.execute("select shop.leave()")
    assert refused.value.sqlstate == "AP403"
    assert database.ask("select id from shop.notes union all select 0 from shop.seen") == []
