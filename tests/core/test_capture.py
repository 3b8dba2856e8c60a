"""What the log knows of the rows that calls wrote: all of them, whatever the statement, and nothing that was undone."""

import json
import random
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import apiary
from apiary import App, OpenApp, Rejected, Transaction
from apiary.engine.places import Table
from apiary.engine.sqlite import capture
from apiary.engine.sqlite.expansion import file_beside
from apiary.runtime.errors import ConstraintViolated, DeadlineExceeded, Error, RuleBroken, WrongArguments
from apiary.testing import replay

TABLES = """
create table items (id integer primary key, name text unique, amount real check (amount < 100), data blob);
create table pairs (a text, b integer, c text default 'none', primary key (b, a)) without rowid;
create table heap (x, y);
create table parts (id text primary key, item integer references items on delete cascade on update cascade,
                    twice integer as (length(id) * 2) stored);
create table audit (what text, item integer);
create trigger gone after delete on items begin insert into audit (what, item) values ('gone', old.id); end;
create trigger grew after update of amount on items when new.amount > 50 begin
    insert into audit (what, item) values ('large', new.id);
    update heap set y = new.amount where x = new.id;
end;
insert into items values (1, 'one', 1.5, x'00ff'), (2, 'two', null, null);
insert into audit select 'there', id from items;
alter table audit add column note text default 'plain';
create table renamed_soon (z integer); insert into renamed_soon values (7);
alter table renamed_soon rename to renamed;
create table copied as select name, amount from items;
"""
NAMES = ("items", "pairs", "heap", "parts", "audit", "renamed", "copied")
STATEMENTS = [
    "insert into items (id, name, amount) values (:n, :t, :n)",
    "insert or replace into items (id, name, amount) values (:n, :t, 2)",
    "insert or ignore into items (name) values (:t), ('two'), ('three')",
    "insert or fail into items (name) values ('kept' || :n), ('one')",
    "insert into items (id, name) values (:n, :t) on conflict (id) do update set amount = coalesce(amount, 0) + 30",
    "insert into items (name) values ('first' || :n), ('one')",
    "update items set id = id + 10 where id = :n",
    "update items set amount = amount * 10 where amount > :n",
    "update items set data = zeroblob(:n + 2), amount = 9e999 * (:n > 4)",
    "delete from items",
    "delete from items where id = :n returning name",
    "insert into pairs (a, b) values (:t, :n)",
    "insert into pairs select name, id, :t from items where true on conflict do update set c = excluded.c || 'x'",
    "update pairs set b = b + 1, c = null where b >= :n",
    "replace into pairs values (:t, :n, 'replaced')",
    "insert into heap values (:n, :t), (:n, null)",
    "update heap set rowid = rowid + 100, y = :t where x = :n",
    "delete from heap where x < :n",
    "with recursive some (i) as (select 1 union all select i + 1 from some where i < :n) "
    "insert into heap select i, i * 0.5 from some",
    "insert into parts (id, item) values (:t || :n, :n)",
    "update parts set item = 1 where item = :n",
    "insert into items (data) values (:t)",
    "select * from items",
    "create table if not exists later (id integer primary key, made text)",
    "insert into later (made) values (:t)",
    "alter table later add column more integer default 3",
    "drop table later",
]
MANY = "insert into items (id, name) values (:n, :t)"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[OpenApp]:
    with opened(tmp_path) as app:
        yield app


def opened(folder: Path) -> OpenApp:  # noqa: C901 - many small functions
    migrations = folder / "migrations"
    migrations.mkdir()
    (migrations / "001.sql").write_text(TABLES)
    app = App("shop", migrations=migrations)

    def given_to(tx: Transaction, number: int, n: int, t: str) -> Any:
        names = {"n": n, "t": t}
        statement = STATEMENTS[number]
        result = tx.execute(statement, **{name: value for name, value in names.items() if f":{name}" in statement})
        return [result.rowcount, *map(repr, result)]

    @app.transaction
    def part(tx: Transaction, steps: list[tuple[int, int, str]], refuse: bool) -> list[Any]:
        seen = [given_to(tx, *step) for step in steps]
        if refuse:
            raise Rejected("no", code="no")
        return seen

    @app.transaction
    def program(tx: Transaction, parts: list[tuple[list[tuple[int, int, str]], str]], refuse: bool) -> list[Any]:
        seen: list[Any] = [random.random()]
        for steps, how in parts:
            if how == "many":
                try:
                    seen.append(tx.execute_many(MANY, [{"n": n, "t": t} for _, n, t in steps]))
                except Error as error:
                    seen.append(str(error))
            elif how == "alone":
                for step in steps:
                    try:
                        seen.append(given_to(tx, *step))
                    except Error as error:
                        seen.append(str(error))
            else:
                try:
                    seen.append(part(tx, steps, how == "refused"))
                except Error as error:
                    seen.append(str(error))
        if refuse:
            raise Rejected(f"no to {len(seen)} {random.random()}", code="no")
        return seen

    @app.transaction
    def run(tx: Transaction, statement: str) -> list[Any]:
        return [list(row) for row in tx.execute(statement)]

    return apiary.open(app, f"sqlite:///{folder}/shop.db")


def asked(app: OpenApp, statement: str) -> list[tuple[Any, ...]]:
    table: Table = app.log.sql(statement, 10_000, 10.0)
    assert not table.more
    return list(table.rows)


def value(kept: Any) -> Any:
    if isinstance(kept, dict):
        ((kind, text),) = kept.items()
        return b64decode(text) if kind == "apiary:blob" else float(text)
    return kept


def values(kept: str) -> dict[str, Any]:
    return {name: value(each) for name, each in json.loads(kept).items()}


def replayed(app: OpenApp) -> apsw.Connection:
    """An empty database, to which is done what the log says was done."""
    made = apsw.Connection(":memory:")
    for table, key, operation, after in asked(
        app, "select table_name, key, operation, after from writes order by effect, number"
    ):
        if operation == "schema":
            made.execute(json.loads(after)["statement"])
            continue
        where = " and ".join(f'"{name}" is :key_{name}' for name in values(key))
        named = {f"key_{name}": each for name, each in values(key).items()}
        if operation == "delete":
            made.execute(f'delete from "{table}" where {where}', named)
        elif operation == "update":
            new = values(after)
            made.execute(
                f'update "{table}" set {", ".join(f"{n} = :{n}" for n in new if n != "twice")} where {where}',
                named | new,
            )
        else:
            new = {**values(after), **({"rowid": values(key)["rowid"]} if "rowid" in values(key) else {})}
            new.pop("twice", None)
            made.execute(f'insert into "{table}" ({", ".join(new)}) values ({", ".join(f":{n}" for n in new)})', new)
    return made


def contents(connection: apsw.Connection) -> dict[str, list[Any]]:
    names = [row[0] for row in connection.execute("select name from sqlite_schema where type = 'table'")]
    return {
        name: sorted(connection.execute(f'select * from "{name}"').fetchall(), key=repr)
        for name in names
        if not name.startswith(("apiary_", "sqlite_"))
    }


step = st.tuples(
    st.integers(0, len(STATEMENTS) - 1), st.integers(-1, 7), st.sampled_from(["one", "ä", "", "three", "x\0y"])
)
hows = st.sampled_from(["many", "alone", "nested", "refused"])
programs = st.lists(
    st.tuples(st.lists(st.tuples(st.lists(step, max_size=6), hows), max_size=4), st.booleans()), max_size=5
)


@settings(deadline=None, max_examples=60)
@given(programs)
def test_what_was_written_can_be_written_again(calls):
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as app:
        for parts, refuse in calls:
            try:
                app.call("program", parts=parts, refuse=refuse)
            except Error:
                pass
        with apsw.Connection(f"{folder}/shop.db") as connection:
            assert contents(replayed(app)) == contents(connection)
        for call in app.log.calls():
            again = replay(app.app, app.log.recording(call["id"]))
            assert (again.difference, again.recorded) == ("", call["status"])


def test_a_row_is_told_with_its_values_before_and_after(shop):
    shop.call("run", statement="update items set amount = 2 where id = 1")
    shop.call("run", statement="delete from items where id = 1")
    found = asked(
        shop,
        "select function, kind, caller, table_name, key, operation, before, after from writes "
        "where kind <> 'migration' and table_name = 'items' order by effect, number",
    )
    before = '{"id":1,"name":"one","amount":1.5,"data":{"apiary:blob":"AP8="}}'
    after = '{"id":1,"name":"one","amount":2.0,"data":{"apiary:blob":"AP8="}}'
    call = ("run", "transaction", "local", "items", '{"id":1}')
    assert found == [(*call, "update", before, after), (*call, "delete", after, None)]


def test_writes_name_the_call_that_made_them(shop):
    shop.call("run", statement="insert into heap values (1, 2)")
    assert asked(
        shop, "select calls.function, calls.status from writes join calls using (call) where table_name = 'heap'"
    ) == [("run", "ok")]


def test_a_call_that_failed_wrote_nothing(shop):
    with pytest.raises(Error):
        shop.call("program", parts=[([(9, 1, "")], "alone")], refuse=True)
    assert asked(shop, "select * from writes where kind <> 'migration'") == []
    assert asked(shop, "select status from calls") == [("rejected",)]


def test_a_change_that_a_trigger_refuses_is_a_conflict(tmp_path):
    (tmp_path / "001.sql").write_text("""create table t (x integer);
        create trigger no before insert on t when new.x < 0 begin select raise(abort, 'below zero'); end;""")
    app = App("triggers", migrations=tmp_path)

    @app.transaction
    def put(tx: Transaction, x: int) -> None:
        tx.execute("insert into t values (:x)", x=x)

    with (
        apiary.open(app, f"sqlite:///{tmp_path}/t.db") as opened,
        pytest.raises(ConstraintViolated, match=r"^the change breaks a trigger constraint: below zero") as raised,
    ):
        opened.call("put", x=-1)
    assert raised.value.details["constraint"] == "trigger"


def test_text_that_is_none_can_be_written(shop):
    shop.call("run", statement="insert into heap values (cast(x'ff' as text), 1)")
    assert asked(shop, "select operation, key, after from writes where table_name = 'heap'") == [("insert", None, None)]


def test_rows_with_virtual_columns_are_told_without_their_values(shop):
    shop.call("run", statement="create table virtual (id integer primary key, double integer as (id * 2) virtual)")
    shop.call("run", statement="insert into virtual (id) values (4)")
    shop.call("run", statement="update virtual set id = 5")
    assert shop.call("run", statement="select * from virtual") == [[5, 10]]
    found = asked(shop, "select operation, before, after from writes where table_name = 'virtual'")
    assert found == [("insert", None, None), ("update", None, None)]


def test_rows_beyond_the_limit_are_counted(shop, monkeypatch):
    monkeypatch.setattr(capture, "MAX_WRITES", 10)
    shop.call("run", statement="insert into heap select value, value from json_each('[1,2,3,4,5,6,7,8,9,10,11,12]')")
    assert len(asked(shop, "select * from writes where table_name = 'heap'")) == 10
    assert asked(shop, "select left_out from calls") == [(2,)]


def test_the_log_is_made_again(shop, tmp_path):
    shop.call("run", statement="insert into heap values (1, 2)")
    written = asked(shop, "select * from writes")
    beside = file_beside(tmp_path / "shop.db")
    shop._log.close()
    shop._log._expanded = shop._log._connection = None
    for end in ("", "-wal", "-shm"):
        beside.with_name(beside.name + end).unlink(missing_ok=True)
    assert asked(shop, "select * from writes") == written


def test_a_log_of_another_file_is_made_again(shop, tmp_path):
    shop.call("run", statement="insert into heap values (1, 2)")
    assert asked(shop, "select key from writes where table_name = 'heap'") == [('{"rowid":1}',)]
    connection = apsw.Connection(str(tmp_path / "shop.db"))
    connection.execute("delete from apiary_effects where number = (select max(number) from apiary_effects)")
    connection.close()
    assert asked(shop, "select key from writes where table_name = 'heap'") == []
    shop.call("run", statement="insert into heap values (3, 4)")
    assert asked(shop, "select key from writes where table_name = 'heap'") == [('{"rowid":2}',)]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("drop table main.writes", RuleBroken),
        ("pragma user_version", RuleBroken),
        ("attach ':memory:' as other", RuleBroken),
        ("select 1; select 2", WrongArguments),
        ("", WrongArguments),
        ("select nothing from writes", WrongArguments),
        ("with recursive n (i) as (select 1 union all select i + 1 from n) select max(i) from n", DeadlineExceeded),
    ],
)
def test_the_log_is_only_read(shop, statement, error):
    with pytest.raises(error):
        shop.log.sql(statement, 10, 0.2)
    assert asked(shop, "select 1") == [(1,)]


def test_a_long_answer_is_cut(shop):
    table = shop.log.sql("values (1), (2), (3)", 2, 1.0)
    assert table.rows == [(1,), (2,)]
    assert table.more
