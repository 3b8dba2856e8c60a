"""The engine contract: what a function may ask of the database, and what it gets."""

import dataclasses

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from apiary import DatabaseError, InternalError, Result, Row, RuleBroken, Transaction

TABLES = """
create table items (id integer primary key, name text not null, cost integer);
insert into items (id, name, cost) values (1, 'one', 10), (2, 'two', 20), (3, 'three', null);
"""


@dataclasses.dataclass
class Item:
    id: int
    name: str
    cost: int | None = None


class ItemModel(BaseModel):
    id: int
    name: str
    cost: int | None


class ItemDict(TypedDict):
    id: int
    name: str
    cost: int | None


@pytest.fixture
def inside(make_app, engine_app):
    """Run a Python function inside a transaction (or a query) and get what it returns or raises."""
    return running(make_app(TABLES), engine_app)


@pytest.fixture
def inside_sqlite(make_app, sqlite_app):
    """The same on SQLite, for what only SQLite says and does."""
    return running(make_app(TABLES), sqlite_app)


def running(app, open_app):
    body = None
    result = None

    @app.transaction
    def transaction(tx: Transaction) -> None:
        nonlocal result
        result = body(tx)

    @app.query
    def query(tx: Transaction) -> None:
        nonlocal result
        result = body(tx)

    opened = open_app(app)

    def run(function, kind="transaction"):
        nonlocal body
        body = function
        try:
            opened.call(kind)
        except InternalError as error:
            raise error.__cause__ or error from None
        return result

    return run


# Rows and results


def test_a_row_reads_by_attribute_by_name_and_by_position(inside):
    row = inside(lambda tx: tx.execute("select id, name, cost from items where id = 1").one())
    assert isinstance(row, Row)
    assert (row.id, row["name"], row[2], row[-1]) == (1, "one", 10, 10)
    assert dict(row) == {"id": 1, "name": "one", "cost": 10}
    assert tuple(row) == (1, "one", 10) == row
    assert len(row) == 3
    assert repr(row) == "Row(id=1, name='one', cost=10)"
    with pytest.raises(AttributeError, match="no column 'price'; it has id, name, cost"):
        row.price  # noqa: B018
    with pytest.raises(KeyError):
        row["price"]
    with pytest.raises(IndexError):
        row[3]


def test_columns_with_awkward_names_can_be_read(inside):
    row = inside(
        lambda tx: tx.execute('select 1 as "keys", 2 as "a b", 3 as "class", 4 as x, 5 as x, 6 as _values').one()
    )
    assert (row["keys"], row["a b"], row["class"], row["x"], row["_values"]) == (1, 2, 3, 4, 6)
    assert callable(row.keys)


def test_a_result_gives_its_rows(inside):
    def body(tx):
        found = tx.execute("select id, name, cost from items order by id")
        assert isinstance(found, Result)
        assert (len(found), found.rowcount, found.columns) == (3, 3, ("id", "name", "cost"))
        assert [row.id for row in found] == [1, 2, 3] == [row.id for row in found]
        assert found.scalars() == [1, 2, 3]
        assert found.scalar() == 1
        assert found.first().name == "one"
        assert found.all()[2].cost is None
        with pytest.raises(InternalError, match="3 rows"):
            found.one()
        nothing = tx.execute("select id from items where id = 99")
        assert (nothing.first(), nothing.first(int), nothing.scalar(), nothing.scalars(), nothing.all()) == (
            (None, None, None, [], [])
        )

    inside(body)
    inside(body, "query")


@pytest.mark.parametrize("kind", [Item, ItemModel, ItemDict])
def test_rows_become_records(inside, kind):
    def body(tx):
        found = tx.execute("select id, name, cost from items order by id")
        return found.all(kind), found.first(kind), tx.execute("select cost, id, name from items where id = 2").one(kind)

    everything, first, swapped = inside(body)
    assert everything == [
        kind(id=1, name="one", cost=10),
        kind(id=2, name="two", cost=20),
        kind(id=3, name="three", cost=None),
    ]
    assert first == everything[0]
    assert swapped == everything[1]


def test_rows_of_one_column_become_values(inside):
    assert inside(lambda tx: tx.execute("select id from items order by id").all(int)) == [1, 2, 3]
    assert inside(lambda tx: tx.execute("select cost from items order by id").all(int | None)) == [10, 20, None]
    with pytest.raises(InternalError, match="a row of 2 columns"):
        inside(lambda tx: tx.execute("select id, name from items").all(int))


def test_rowcount_is_the_number_of_changed_rows(inside):
    def body(tx):
        return [
            tx.execute(statement).rowcount
            for statement in (
                "update items set cost = 5 where id < 3",
                "update items set cost = 5 where id > 10",
                "insert into items (id, name) values (4, 'four'), (5, 'five')",
                "insert into items (id, name) values (4, 'four') on conflict (id) do nothing",
                "insert into items (id, name) values (4, 'four') on conflict (id) do update set name = excluded.name",
                "delete from items where id >= 4 returning id",
                "create table more (x integer)",
            )
        ]

    assert inside(body) == [2, 0, 2, 0, 1, 2, 0]


def test_execute_many_runs_once_for_each_row(inside):
    def body(tx):
        rows = ({"id": id, "name": str(id)} for id in range(10, 20))
        assert tx.execute_many("insert into items (id, name) values (:id, :name)", rows) == 10
        assert tx.execute_many("insert into items (id, name) values (:id, :name)", []) == 0
        assert tx.execute_many("update items set cost = :cost", [{"cost": 1}, {"cost": 2}]) == 26
        return tx.execute("select sum(cost) from items").scalar()

    assert inside(body) == 26


def test_execute_many_takes_rows_of_a_result(inside):
    def body(tx):
        tx.execute("create table copies (id integer, name text)")
        found = tx.execute("select id, name from items")
        return tx.execute_many("insert into copies (id, name) values (:id, :name)", found)

    assert inside(body) == 3


def test_execute_many_counts_what_the_statement_changed_and_not_what_triggers_did(inside_sqlite):
    def body(tx):
        tx.execute("create table audit (id integer)")
        tx.execute("create trigger audited after insert on items begin insert into audit values (new.id); end")
        one = tx.execute("insert into items (id, name) values (20, 'x')").rowcount
        many = tx.execute_many("insert into items (id, name) values (:id, 'x')", [{"id": 21}, {"id": 22}])
        return one, many

    assert inside_sqlite(body) == (1, 2)


def test_upserts_and_common_table_expressions(inside):
    def body(tx):
        upsert = "insert into items (id, name, cost) values (:id, :name, 1) on conflict (id) do update set name = :name"
        tx.execute(upsert, id=1, name="uno")
        tx.execute(
            "with cheap as (select id from items where cost < :limit) "
            "delete from items where id in (select id from cheap)",
            limit=15,
        )
        returned = tx.execute("insert into items (id, name) values (7, 'seven') returning id, name").one()
        return returned.id, tx.execute("select id from items order by id").scalars()

    assert inside(body) == (7, [2, 3, 7])


# Parameters and statements


@pytest.mark.parametrize(
    ("statement", "parameters", "message"),
    [
        ("select :a + :b", {"a": 1}, "no value for :b"),
        ("select :a", {"a": 1, "b": 2}, "the statement has no :b"),
        ("select 1", {"b": 2}, "the statement has no :b"),
        ("select ?", {}, ":name"),
        ("select ?1", {}, ":name"),
        ("select :a, ?", {"a": 1}, ":name"),
        ("", {}, "empty"),
        ("   ", {}, "empty"),
        (";", {}, "empty"),
        ("-- nothing but a comment", {}, "empty"),
        ("select 1; select 2", {}, "more than one statement"),
        ("select 1; -- more\n delete from items", {}, "more than one statement"),
        ("selekt 1", {}, "syntax error"),
        ("select price from items", {}, "no such column"),
        ("select * from missing", {}, "no such table"),
    ],
)
@pytest.mark.parametrize("kind", ["transaction", "query"])
def test_a_statement_that_is_wrong_is_refused(inside_sqlite, statement, parameters, message, kind):
    for _ in range(2):
        with pytest.raises(DatabaseError, match=message):
            inside_sqlite(lambda tx: tx.execute(statement, **parameters), kind)


def test_positional_parameters_are_no_part_of_the_face(inside):
    with pytest.raises(TypeError):
        inside(lambda tx: tx.execute("select :a", {"a": 1}))


@pytest.mark.parametrize(
    ("statement", "parameters", "expected"),
    [
        ("select :a;", {"a": 1}, 1),
        ("select :a ; -- and a comment", {"a": 2}, 2),
        ("-- a comment\nselect :a", {"a": 3}, 3),
        ("/* :not_me */ select :a + :a", {"a": 2}, 4),
        ("select ':not_me' || :a", {"a": "x"}, ":not_mex"),
        ("select :self || :sql", {"self": "x", "sql": "y"}, "xy"),
        ("select :größe", {"größe": 1}, 1),
        ("select '😀' || :a", {"a": "é"}, "😀é"),
        ("values (:a)", {"a": 5}, 5),
    ],
)
def test_statements_that_are_right(inside_sqlite, statement, parameters, expected):
    assert inside_sqlite(lambda tx: tx.execute(statement, **parameters).scalar()) == expected
    assert inside_sqlite(lambda tx: tx.execute(statement, **parameters).scalar(), "query") == expected


# What a function may not do

PLATFORM_STATEMENTS = [
    "delete from apiary_queue where id = :id",
    "insert into apiary_schema (number, name) values (9, 'x')",
    "update apiary_calls set output = null",
    "delete from APIARY_CALLS",
    'insert into "apiary_queue" (id) values (1)',
    "with x as (select 1) delete from apiary_calls",
    "drop table apiary_calls",
    "drop index apiary_calls_key",
    "alter table apiary_calls add column more text",
    "alter table apiary_calls rename to mine",
    "create index mine on apiary_calls (status)",
    "create table apiary_more (x integer)",
    "create trigger mine after insert on apiary_calls begin delete from items; end",
    "create trigger apiary_mine after insert on items begin delete from items; end",
    "create view apiary_view as select 1",
]


@pytest.mark.parametrize("statement", PLATFORM_STATEMENTS)
def test_the_tables_of_the_platform_are_not_for_writing(inside_sqlite, statement):
    names = {"id": b"x"} if ":id" in statement else {}
    for _ in range(2):
        with pytest.raises(RuleBroken, match="belong"):
            inside_sqlite(lambda tx: tx.execute(statement, **names))
    assert inside_sqlite(lambda tx: tx.execute("select count(*) from apiary_calls").scalar()) >= 2


def test_a_trigger_is_no_way_around(inside_sqlite):
    inside_sqlite(
        lambda tx: tx.execute("create trigger mine after insert on items begin delete from apiary_calls; end")
    )
    with pytest.raises(RuleBroken):
        inside_sqlite(lambda tx: tx.execute("insert into items (id, name) values (9, 'nine')"))
    assert inside_sqlite(lambda tx: tx.execute("select count(*) from apiary_calls").scalar()) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "begin",
        "begin immediate",
        "commit",
        "COMMIT;",
        "end",
        "rollback",
        "savepoint apiary_call",
        "release apiary_call",
        "rollback to apiary_call",
        "explain commit",
        "attach 'other.db' as other",
        "detach main",
        "pragma journal_mode = delete",
        "pragma synchronous = off",
        "pragma foreign_keys = off",
        "pragma query_only = off",
        "pragma writable_schema = on",
        "pragma user_version = 7",
        "create temp table passing (x integer)",
        "create temporary view passing as select 1",
    ],
)
def test_what_would_break_the_transaction_is_refused(inside_sqlite, statement):
    for kind in ("transaction", "transaction", "query"):
        with pytest.raises(RuleBroken):
            inside_sqlite(lambda tx: tx.execute(statement), kind)
    assert inside_sqlite(lambda tx: tx.execute("select count(*) from items").scalar()) == 3


@pytest.mark.parametrize("statement", ["vacuum", "vacuum into 'other.db'"])
def test_what_the_database_itself_refuses(inside_sqlite, statement):
    with pytest.raises(DatabaseError):
        inside_sqlite(lambda tx: tx.execute(statement))


def test_the_schema_can_be_read(inside_sqlite):
    assert inside_sqlite(lambda tx: [row.name for row in tx.execute("pragma table_info(items)")]) == [
        "id",
        "name",
        "cost",
    ]
    assert inside_sqlite(lambda tx: len(tx.execute("select * from pragma_table_info('items')"))) == 3
    assert "items" in inside_sqlite(lambda tx: tx.execute("select name from sqlite_master").scalars())


def test_a_statement_of_the_platform_does_not_become_allowed_by_its_being_known(make_app, sqlite_app):
    """The same text that the platform has prepared and cached itself must be refused to a function."""
    from apiary.engine.sqlite.session import SQL

    app = make_app()

    @app.transaction
    def sly(tx: Transaction, statement: str) -> None:
        tx.execute(statement)

    @app.transaction
    def enqueue(tx: Transaction) -> None:
        tx.enqueue(enqueue_nothing)

    @app.transaction
    def enqueue_nothing(tx: Transaction) -> None: ...

    opened = sqlite_app(app)
    opened.call(enqueue)
    opened.drain()
    for name in ("insert_call", "enqueue", "dequeue", "commit", "rollback", "savepoint_call", "undo_call"):
        with pytest.raises(InternalError) as raised:
            opened.call(sly, SQL[name])
        assert isinstance(raised.value.__cause__, RuleBroken | DatabaseError)


def test_a_transaction_that_was_ended_by_a_statement_keeps_nothing(make_app, sqlite_app, platform):
    """`or rollback` ends the transaction of everyone in the batch; they must not suffer."""
    app = make_app("create table t (x integer primary key)")

    @app.transaction
    def put(tx: Transaction, x: int) -> None:
        tx.execute("insert into t (x) values (:x)", x=x)

    @app.transaction
    def end(tx: Transaction, x: int) -> None:
        tx.execute("insert into t (x) values (:x)", x=x)
        try:
            tx.execute("insert or rollback into t (x) values (:x)", x=x)
        except InternalError:
            pass

    @app.transaction
    def end_and_go_on(tx: Transaction, x: int) -> None:
        tx.execute("insert into t (x) values (:x)", x=x)
        for _ in range(3):
            try:
                tx.execute("insert or rollback into t (x) values (:x)", x=x)
            except Exception:  # noqa: BLE001 - the point
                pass
        try:
            put(tx, x + 1000)
        except Exception:  # noqa: BLE001 - the point
            pass

    @app.query
    def content(tx: Transaction) -> list[int]:
        return tx.execute("select x from t order by x").scalars()

    opened = sqlite_app(app)
    calls = platform(opened)
    names = ["put", "end", "end_and_go_on", "put"]
    pending = [calls.submit(names[number % 4], f'{{"x": {number}}}') for number in range(20)]
    codes = [(one.outcome().error or {"code": "ok"})["code"] for one in pending]
    assert codes == ["ok" if number % 4 in (0, 3) else "constraint_violated" for number in range(20)]
    assert opened.call(content) == [number for number in range(20) if number % 4 in (0, 3)]


# Changes of the schema inside functions


def test_a_table_made_in_a_function_is_undone_with_it(inside):
    def body(tx):
        tx.execute("create table more (x integer)")
        tx.execute("insert into more (x) values (1)")
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011
            inside(body)
        with pytest.raises(DatabaseError, match="more"):
            inside(lambda tx: tx.execute("select * from more"))


def test_columns_are_right_after_the_schema_changed_in_the_same_function(inside):
    def body(tx):
        assert tx.execute("select * from items where id = 1").columns == ("id", "name", "cost")
        tx.execute("alter table items add column size integer")
        row = tx.execute("select * from items where id = 1").one()
        tx.execute("alter table items drop column cost")
        return dict(row), dict(tx.execute("select * from items where id = 1").one())

    after_add, after_drop = inside(body)
    assert after_add == {"id": 1, "name": "one", "cost": 10, "size": None}
    assert after_drop == {"id": 1, "name": "one", "size": None}


def test_columns_are_right_after_a_change_of_the_schema_was_undone(inside):
    def change(tx):
        tx.execute("alter table items add column size integer")
        assert len(tx.execute("select * from items").columns) == 4
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011
            inside(change)
        for kind in ("transaction", "query"):
            assert dict(inside(lambda tx: tx.execute("select * from items").first(), kind)) == {
                "id": 1,
                "name": "one",
                "cost": 10,
            }


def test_columns_are_right_after_a_nested_change_of_the_schema_was_undone(make_app, engine_app):
    app = make_app(TABLES)

    @app.transaction
    def change(tx: Transaction) -> None:
        tx.execute("alter table items add column size integer")
        assert len(tx.execute("select * from items").columns) == 4
        raise ValueError

    @app.transaction
    def outer(tx: Transaction) -> dict[str, int | str]:
        try:
            change(tx)
        except ValueError:
            pass
        return dict(tx.execute("select * from items").first())

    assert engine_app(app).call(outer) == {"id": 1, "name": "one", "cost": 10}
