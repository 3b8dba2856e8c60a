"""The contract of sessions: what a call leaves in its session of PostgreSQL, the next one does not find."""

import json

import pytest

LEAVES = {
    "search_path": "perform set_config('search_path', 'pg_catalog', false)",
    "isolation": "perform set_config('default_transaction_isolation', 'read committed', false)",
    "read_only": "perform set_config('default_transaction_read_only', 'on', false)",
    "durability": "perform set_config('synchronous_commit', 'off', false)",
    "time_zone": "perform set_config('timezone', 'Asia/Tokyo', false)",
    "patience": "perform set_config('statement_timeout', '1s', false), set_config('lock_timeout', '1s', false)",
    "temporary": "create temp table counters as select 'a'::text as name, 7 as value",
    "lock": "perform pg_advisory_lock(7)",
}
OUTLIVING = [
    "select set_config('search_path', 'pg_catalog', false)",
    "select pg_catalog.set_config('app.user', 'somebody', true)",
    "select SET_CONFIG ('app.user', 'somebody', true)",
    "select \"set_config\"('app.user', 'somebody', true)",
    "select pg_advisory_lock(7)",
    "select pg_try_advisory_lock_shared(7)",
    "select pg_advisory_unlock_all()",
    "set search_path to public",
    "discard all",
    "prepare p as select 1",
]


@pytest.fixture
def leaving(postgres_contract):
    """The app, with a function of the database that leaves something; and what a session without that is like."""

    def leave(what):
        postgres_contract.look(
            f"create or replace function leave() returns void language plpgsql as $$ begin {LEAVES[what]}; end $$"
        )

    postgres_contract.leave = leave
    return postgres_contract


def session(tx, app):
    names = ("search_path", "default_transaction_isolation", "transaction_isolation", "transaction_read_only",
             "synchronous_commit", "timezone", "statement_timeout", "lock_timeout")  # fmt: skip
    settings = [tx.execute("select current_setting(:name)", name=name).scalar() for name in names]
    return settings, app.add(tx, "a"), tx.execute("select to_regclass('pg_temp.counters')::text").scalar()


@pytest.mark.parametrize("what", LEAVES)
def test_what_a_function_of_the_database_leaves_is_gone(leaving, what):
    def leaves(tx, app):
        tx.execute("select leave()")

    leaving.leave(what)
    settings, added, temporary = leaving.run(session)
    assert (added, temporary) == (1, None)
    assert settings[1:4] == ["serializable", "serializable", "off"]
    leaving.run(leaves)
    assert leaving.run(session) == (settings, 2, None)
    assert leaving.counters()["a"] == 2
    assert leaving.look("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]


@pytest.mark.parametrize("what", [what for what in LEAVES if what != "lock"])
def test_calls_of_one_batch_do_not_find_what_others_leave(leaving, what):
    def leaves(tx, app):
        tx.execute("select leave()")

    leaving.leave(what)
    settings, _, _ = leaving.run(session)
    leaving.run(session)
    leaving.look("begin; update counters set value = 10 where name = 'b'")
    pending = [leaving.submit("add", name="b")]  # it waits, and what comes meanwhile is one batch
    pending += [leaving.submit("evaluate", **leaving.sent(body)) for body in (leaves, session, leaves, session)]
    leaving.look("commit")
    outcomes = [one.outcome() for one in pending]
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert [eval(json.loads(outcomes[place].output)) for place in (2, 4)] == [(settings, 3, None), (settings, 4, None)]


def test_a_lock_of_a_call_that_failed_is_gone(leaving):
    def fails(tx, app):
        tx.execute("select leave()")
        raise ValueError

    leaving.leave("lock")
    assert leaving.code("evaluate", **leaving.sent(fails)) == "internal_error"
    assert leaving.look("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]


@pytest.mark.parametrize("statement", OUTLIVING)
def test_a_function_may_not_change_its_session(postgres_contract, statement):
    def tries(tx, app, statement):
        return app.attempt(lambda: tx.execute(statement))

    assert postgres_contract.run(tries, statement=statement) == "RuleBroken"


def test_a_lock_of_the_transaction_is_allowed(postgres_contract):
    def locks(tx, app):
        tx.execute("select pg_advisory_xact_lock(7)")
        return tx.execute("select 'set_config(1)' as set_config, 2 as pg_advisory_lock").one().set_config

    assert postgres_contract.run(locks) == "set_config(1)"
