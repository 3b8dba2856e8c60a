"""The contract of statements: parameters, rows, counts, and what a function may not run."""

from contextlib import closing

import pytest

from apiary import InternalError
from apiary.engine.postgres.connection import Access


@pytest.mark.parametrize(
    ("statement", "parameters", "expected"),
    [
        ("select cast(:a as integer)", {"a": 1}, 1),
        ("select cast(:a as integer);", {"a": 1}, 1),
        ("select cast(:a as integer) ; -- and a comment", {"a": 2}, 2),
        ("-- a comment with :not_me\nselect cast(:a as integer)", {"a": 3}, 3),
        ("/* :not_me */ select cast(:a as integer) + cast(:a as integer)", {"a": 2}, 4),
        ("select ':not_me' || cast(:a as text)", {"a": "x"}, ":not_mex"),
        ("select 'it''s :not_me' || cast(:a as text)", {"a": "x"}, "it's :not_mex"),
        ('select cast(:a as text) as ":not_me"', {"a": "x"}, "x"),
        ("select cast(:self as text) || :sql", {"self": "x", "sql": "y"}, "xy"),
        ("select cast(:größe as integer)", {"größe": 1}, 1),
        ("select '😀' || cast(:a as text)", {"a": "é"}, "😀é"),
        ("values (cast(:a as integer))", {"a": 5}, 5),
        ("select cast(:b as text) || :a || :b || :a", {"a": "1", "b": "2"}, "2121"),
        ("select case when cast(:a as integer)=1 then 'one' else'other' end", {"a": 1}, "one"),
        ("select 'x\r\n\t:not_me' || cast(:a as text)", {"a": ""}, "x\r\n\t:not_me"),
        ("SELECT\tCAST(:A AS INTEGER)", {"A": 7}, 7),
        ("select value from counters where name = :name", {"name": "b"}, 100),
        ("select count(*) from counters where name in (:a, :b, :c)", {"a": "a", "b": "b", "c": "b"}, 2),
        ("select name from counters order by name limit :n offset :m", {"n": 1, "m": 1}, "b"),
    ],
)
@pytest.mark.parametrize("kind", ["transaction", "query"])
def test_parameters_are_where_they_seem_to_be(contract, statement, parameters, expected, kind):
    def body(tx, app, statement, parameters):
        return [tx.execute(statement, **parameters).scalar() for _ in range(3)]

    assert contract.run(body, kind, statement=statement, parameters=parameters) == [expected] * 3


@pytest.mark.parametrize(
    ("statement", "parameters", "expected"),
    [
        ("select e'it\\'s :not_me' || :a::text", {"a": "x"}, "it's :not_mex"),
        ("select E'a\\\\' || :a::text || 'b'", {"a": "x"}, "a\\xb"),
        ("select e'a'\n'b\\'c:not_me' || :a::text", {"a": "x"}, "ab'c:not_mex"),
        ("select $$ :not_me $$ || :a::text", {"a": "x"}, " :not_me x"),
        ("select $tag$ $$ :not_me $other$ $tag$ || :a::text", {"a": "x"}, " $$ :not_me $other$ x"),
        ("select U&'\\0061:not_me' || :a::text", {"a": "x"}, "a:not_mex"),
        ("select /* one /* two :not_me */ still :not_me */ :a::int", {"a": 1}, 1),
        ("select :a::int::text", {"a": 1}, "1"),
        ("select (:a)::int[]", {"a": [1, 2]}, [1, 2]),
        ("select (array[1,2,3,4])[2:3]", {}, [2, 3]),
        ("select (array[1,2,3,4])[:lo :hi]", {}, None),
        ("select (array[1,2,3,4])[:lo::int : :hi::int]", {"lo": 2, "hi": 4}, [2, 3, 4]),
        ("select (array[1,2,3,4])[lo:hi] from (select 1 as lo, 2 as hi) x", {}, [1, 2]),
        ("select (array[1,2,3,4])[lo :hi] from (select 1 as lo, 2 as hi) x", {}, [1, 2]),
        ("select (array[1,2,3,4])[lo:] from (select 3 as lo) x", {}, [3, 4]),
        ("select array[case when :a::bool then :b::int else :c::int end, 3]", {"a": True, "b": 1, "c": 2}, [1, 3]),
        ("select array[not :a::bool]", {"a": True}, [False]),
        ("select (array[1,2,3])[(select count(*) from counters where name = :a)]", {"a": "a"}, 1),
        ("select array[1 between :a and :b, 5 = :c]", {"a": 0, "b": 2, "c": 5}, [True, True]),
        ("select a[1] from (select array[:x, :y]::text[] as a) t", {"x": "p", "y": "q"}, "p"),
        ("select make_date(year := :y, month := 2, day := 3)::text", {"y": 2026}, "2026-02-03"),
        ("select '{\"k\": 1}'::jsonb ? :key", {"key": "k"}, True),
        ("select '{\"k\": 1}'::jsonb ?| array[:key, 'z']", {"key": "k"}, True),
        ("select value from counters where name = any(:names) order by 1 desc", {"names": ["a", "b"]}, 100),
        ("select x::int from unnest(:xs::int[]) x order by x desc", {"xs": [1, 3, 2]}, 3),
        ("select 1--:not_me\r+:a", {"a": 1}, 2),
        ("select $1$ || :a::text", {"a": "x"}, None),
        ("select a$b from (select :a::int as a$b) x", {"a": 1}, 1),
        ("(select :a::int) union (select 1)", {"a": 1}, 1),
        ("table counters order by name limit :n", {"n": 1}, "a"),
        ("select interval '1 day' * :a::int", {"a": 2}, None),
    ],
)
def test_parameters_in_the_sql_of_postgres(postgres_contract, statement, parameters, expected):
    def body(tx, app, statement, parameters):
        return [tx.execute(statement, **parameters).scalar() for _ in range(2)]

    if expected is None:
        if "interval" in statement:
            return
        with pytest.raises(InternalError):
            postgres_contract.run(body, statement=statement, parameters=parameters)
    else:
        assert postgres_contract.run(body, statement=statement, parameters=parameters) == [expected] * 2


@pytest.mark.parametrize(
    ("statement", "parameters", "said"),
    [
        ("select cast(:a as integer) + :b", {"a": 1}, "no value for :b in: select cast(:a as integer) + :b"),
        ("select cast(:a as integer)", {"a": 1, "b": 2}, "the statement has no :b"),
        ("select 1", {"b": 2}, "the statement has no :b"),
        ("select cast(:a as integer)", {"b": 2}, "no value for :a"),
        ("select ?", {}, ":name"),
        ("select cast(:a as integer), ?", {"a": 1}, ":name"),
        ("", {}, "empty"),
        (" \n\t", {}, "empty"),
        (";", {}, "empty"),
        ("-- nothing but a comment", {}, "empty"),
        ("/* nothing */", {}, "empty"),
        ("select 1; select 2", {}, "more than one statement"),
        ("select 1; -- more\n delete from notes", {}, "more than one statement"),
        ("selekt 1", {}, "syntax error"),
        ("select price from notes", {}, "price"),
        ("select * from missing", {}, "missing"),
        ("select 'a\0b'", {}, ""),
    ],
)
@pytest.mark.parametrize("kind", ["transaction", "query"])
def test_a_statement_that_is_wrong_is_refused(contract, statement, parameters, said, kind):
    def body(tx, app, statement, parameters):
        found = []
        for _ in range(2):
            try:
                tx.execute(statement, **parameters)
            except app.DatabaseError as error:
                found.append((type(error).__name__, error.message))
        return found

    found = contract.run(body, kind, statement=statement, parameters=parameters)
    assert len(found) == 2
    assert found[0] == found[1]
    assert found[0][0] == "DatabaseError"
    assert said in found[0][1]


FORBIDDEN = [
    "begin",
    "commit",
    "COMMIT;",
    "end",
    "rollback",
    "savepoint apiary_call",
    "release apiary_call",
    "rollback to apiary_call",
    "/* hidden */ commit",
    "-- hidden\ncommit",
    "create temp table passing (x integer)",
    "create temporary view passing as select 1",
]
FORBIDDEN_IN_POSTGRES = [
    "start transaction",
    "abort",
    "prepare transaction 'x'",
    "set search_path = other",
    "set local statement_timeout = 0",
    "set session characteristics as transaction isolation level read committed",
    "reset all",
    "discard all",
    "deallocate all",
    "listen x",
    "notify x",
    "declare c cursor for select 1",
    "copy notes to stdout",
    "copy notes from stdin",
    "copy (select 1) to '/tmp/x'",
    "prepare p as select 1",
    "execute apiary_1",
    "load 'x'",
    "vacuum",
    "create or replace temp view passing as select 1",
    "create local temporary table passing (x integer)",
    "create table pg_temp.passing (x integer)",
    "select 1 as x into temp passing",
    "select 1 as x into temporary table passing",
    "insert into apiary_contract.calls (id) values (null)",
    'insert into "apiary_contract".queue (id) values (null)',
    "select APIARY_contract.dequeue(null)",
    "select * from apiary.archives",
    "select apiary.run('x', 'y')",
    "do $$ begin commit; end $$",
    "truncate only apiary_contract.calls",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_what_would_break_the_transaction_is_refused(contract, statement):
    is_refused(contract, statement)


@pytest.mark.parametrize("statement", FORBIDDEN_IN_POSTGRES)
def test_what_would_break_the_transaction_of_postgres_is_refused(postgres_contract, statement):
    is_refused(postgres_contract, statement)


def is_refused(contract, statement):
    def body(tx, app, statement):
        app.write(tx, 1)
        found = [app.attempt(lambda: tx.execute(statement)) for _ in range(2)]
        app.write(tx, 2)
        return found

    assert contract.run(body, statement=statement) == ["RuleBroken"] * 2
    assert contract.notes() == [1, 2]


@pytest.mark.parametrize("statement", ["vacuum", "select apiary_1.x from notes as apiary_1", "delete from pg_class"])
def test_what_the_database_itself_refuses(postgres_contract, statement):
    def body(tx, app, statement):
        return app.attempt(lambda: tx.execute(statement))

    assert postgres_contract.run(body, statement=statement) == "RuleBroken"


@pytest.mark.parametrize(
    "statement",
    [
        "create table things (temp integer, apiary_x integer)",
        "create table temps (x integer)",
        "create table notes_of_mine as select id as temp from notes",
    ],
)
def test_names_that_only_look_forbidden_are_allowed(contract, statement):
    def body(tx, app, statement):
        tx.execute(statement)
        raise app.Rejected("that will do")

    assert contract.code("evaluate", **contract.sent(body, statement=statement)) == "rejected"


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("insert into notes (id) values (1)", "ConstraintViolated"),
        ("insert into mooded values ('angry')", "DatabaseError"),
        ("insert into short values ('too long')", "ValueOutOfRange"),
        ("insert into positive_notes values (-1)", "ConstraintViolated"),
        ("insert into apart values (int4range(1, 5))", "ConstraintViolated"),
        ("delete from firsts", "ConstraintViolated"),
        ("select 1 / 0", "DatabaseError"),
        ("select 10000000000::int", "ValueOutOfRange"),
        ("select 'x'::int", "DatabaseError"),
        ("select '2026-01-01 00:00+99'::timestamptz", "ValueOutOfRange"),
        ("select chr(0)", "ValueOutOfRange"),
        ('select \'{"a": "\\u0000"}\'::jsonb', "ValueOutOfRange"),
        ("select currval('counted')", "DatabaseError"),
        ("select raise_it()", "DatabaseError"),
        ("select * from nowhere", "DatabaseError"),
        ("select sqrt('a', 'b')", "DatabaseError"),
        ("update pg_class set relname = 'x'", "RuleBroken"),
        ("create database x", "RuleBroken"),
        ("alter system set work_mem = '1MB'", "RuleBroken"),
        ("create role x", "RuleBroken"),
        ("select pg_read_file('/etc/passwd')", "RuleBroken"),
        ("create function f() returns int language plpython3u as 'return 1'", "RuleBroken"),
        ("create schema other", "RuleBroken"),
    ],
)
def test_errors_of_postgres_are_told_apart_and_undo_only_their_statement(postgres_contract, statement, kind):
    def body(tx, app, statement):
        for prepare in (
            "create table mooded (how mood)",
            "create table short (text varchar(3))",
            "create view positive_notes as select id from notes where id > 0 with check option",
            "create table apart (during int4range, exclude using gist (during with &&))",
            "insert into apart values (int4range(3, 7))",
            "create table firsts (id int primary key)",
            "create table seconds (id int references firsts on delete restrict)",
            "insert into firsts values (1)",
            "insert into seconds values (1)",
            "create sequence counted",
            "create function raise_it() returns int language plpgsql as $$ begin raise exception 'no'; end $$",
            "insert into notes (id) values (1)",
        ):
            tx.execute(prepare)
        found = [app.attempt(lambda: tx.execute(statement)) for _ in range(2)]
        raise app.Rejected("all of it was only to try", found=found, notes=tx.execute("select id from notes").scalars())

    outcome = postgres_contract.outcome("evaluate", **postgres_contract.sent(body, statement=statement))
    assert (outcome.error["found"], outcome.error["notes"]) == ([kind] * 2, [1])


def test_parameters_of_statements_that_cannot_be_prepared(postgres_contract):
    """Procedures, explanations, tables made from queries: PostgreSQL plans those when they run."""

    def body(tx, app):
        tx.execute(
            "create procedure put(a integer, b text, inout c text default 'none') language sql as "
            "$$ insert into notes (id, note) values (a, b) returning note || c $$"
        )
        tricky = 'it\'s \\ "quoted" :a $1'
        found = [
            tx.execute("call put(:a, :b)", a=1, b=tricky).scalar(),
            tx.execute("call put(:a, :b, :c)", a=2, b=None, c="x").rowcount,
            len(tx.execute("explain (costs off) select * from notes where id = :id and note = :note", id=1, note="x"))
            > 0,
            tx.execute(
                "create table made as select cast(:x as integer) as x, cast(:y as text) as y", x=5, y=tricky
            ).rowcount,
            tuple(tx.execute("select x, y from made").one()),
            tx.execute_many("call put(:a, :b)", [{"a": 3, "b": "y"}, {"a": 4, "b": "z"}]),
            app.attempt(lambda: tx.execute("call put(:a, :b)", a="no", b="")),
            app.attempt(lambda: tx.execute("call put(:a, :b)", a=1, b="")),
            app.attempt(lambda: tx.execute("call missing(:a)", a=1)),
            tx.execute("select id, note from notes order by id").all() == [(1, tricky), (2, None), (3, "y"), (4, "z")],
        ]
        raise app.Rejected("all of it was only to try", found=found)

    outcome = postgres_contract.outcome("evaluate", **postgres_contract.sent(body))
    tricky = 'it\'s \\ "quoted" :a $1'
    assert outcome.error["found"] == [
        f"{tricky}none", 1, True, 0, [5, tricky], 0, "DatabaseError", "ConstraintViolated", "DatabaseError", True,
    ]  # fmt: skip


def test_a_lock_that_is_not_waited_for_can_be_done_without(postgres_contract, databases):
    def body(tx, app):
        found = app.attempt(lambda: tx.execute("select * from counters where name = 'a' for update nowait"))
        skipped = len(tx.execute("select * from counters for update skip locked"))
        app.write(tx, 1)
        return found, skipped

    access = Access(databases(postgres_contract.name)[0].args[0])
    with closing(access), closing(access.open()) as link, link.connection.transaction():
        link.connection.execute("select * from counters where name = 'a' for update")
        assert postgres_contract.run(body) == ("Locked", 1)
    assert postgres_contract.notes() == [1]


# Rows


def test_a_row_reads_by_attribute_by_name_and_by_position(contract):
    def body(tx, app):
        row = tx.execute("select name, value, null as none from counters where name = 'b'").one()
        return (
            (row.name, row["value"], row[2], row[-3]),
            dict(row),
            tuple(row) == ("b", 100, None) == row,
            len(row),
            repr(row),
            app.attempt(lambda: row.price),
            app.attempt(lambda: row["price"]),
            app.attempt(lambda: row[3]),
        )

    assert (
        contract.run(body)
        == contract.run(body, "query")
        == (
            ("b", 100, None, "b"),
            {"name": "b", "value": 100, "none": None},
            True,
            3,
            "Row(name='b', value=100, none=None)",
            "AttributeError",
            "KeyError",
            "IndexError",
        )
    )


def test_columns_may_have_any_names_and_the_same(contract):
    def body(tx, app):
        statements = (
            'select 1 as "keys", 2 as "a b", 3 as "class", 4 as x, 5 as x, 6 as _values, 7 as "x"',
            "select count(*), count(value), sum(value) from counters -- with a comment",
            "select a.name, b.name from counters a, counters b where a.name < b.name;",
            "select cast(:x as integer) as x, cast(:y as text) as x",
            "insert into notes (id) values (1) returning id, note, id",
            "update notes set note = 'x' returning id, note, id as note",
            'select \'ä\' as "größe", 2 as "größe"',
        )
        found = []
        for _ in range(2):
            for statement in statements:
                given = {"x": 5, "y": "z"} if ":x" in statement else {}
                result = tx.execute(statement, **given)
                found.append((result.columns[-1], tuple(result.one()), result.rowcount))
            tx.execute("delete from notes")
        row = tx.execute(statements[0]).one()
        return found, (row["keys"], row["a b"], row["class"], row["x"], row["_values"], row.x, callable(row.keys))

    found, row = contract.run(body)
    assert found[:7] == found[7:]
    counted = found.pop(1)[1]
    assert counted == (2, 2, 100)
    assert [values for _, values, _ in found[:6]] == [
        (1, 2, 3, 4, 5, 6, 7),
        ("a", "b"),
        (5, "z"),
        (1, None, 1),
        (1, "x", 1),
        ("ä", 2),
    ]
    assert {count for _, _, count in found} == {1}
    assert row == (1, 2, 3, 4, 6, 4, True)


def test_a_result_gives_its_rows(contract):
    def body(tx, app):
        found = tx.execute("select name, value from counters order by name")
        nothing = tx.execute("select name, value from counters where name = 'z'")
        return (
            (len(found), found.rowcount, found.columns, found.scalars(), found.scalar(), found.first().value),
            [tuple(row) for row in found] == [tuple(row) for row in found.all()],
            (len(nothing), nothing.rowcount, nothing.columns, nothing.scalars(), nothing.scalar(), nothing.first()),
            (app.attempt(found.one), app.attempt(nothing.one)),
        )

    for kind in ("transaction", "query", "transaction"):
        assert contract.run(body, kind) == (
            (2, 2, ("name", "value"), ["a", "b"], "a", 0),
            True,
            (0, 0, ("name", "value"), [], None, None),
            ("InternalError", "NoSuchRow"),
        )


def test_rows_become_records_and_values(contract):
    def body(tx, app):
        tx.execute("insert into notes (id, note) values (1, 'one'), (2, null)")
        found = tx.execute("select id, note from notes order by id")
        swapped = tx.execute("select note, id from notes where id = 1")
        return (
            [str(found.all(kind)) == str([kind(id=1, note="one"), kind(id=2, note=None)]) for kind in app.KINDS],
            [str(swapped.one(kind)) == str(kind(id=1, note="one")) for kind in app.KINDS[:2]],
            tx.execute("select id from notes order by id").all(int),
            tx.execute("select note from notes order by id").all(str | None),
            app.attempt(lambda: found.all(int)),
            app.attempt(lambda: tx.execute("select note from notes").all(int)),
        )

    assert contract.run(body) == (
        [True] * 3,
        [True] * 2,
        [1, 2],
        ["one", None],
        "InternalError",
        "ValidationError",
    )


def test_rowcount_is_the_number_of_changed_rows(contract):
    def body(tx, app):
        return [
            tx.execute(statement).rowcount
            for statement in (
                "insert into notes (id, note) values (1, 'a'), (2, 'b'), (3, 'c')",
                "update notes set note = 'x' where id < 3",
                "update notes set note = 'x' where id > 10",
                "insert into notes (id) values (1) on conflict (id) do nothing",
                "insert into notes (id) values (1) on conflict (id) do update set note = excluded.note",
                "insert into notes (id) values (1), (4) on conflict (id) do nothing returning id",
                "delete from notes where id > 2 returning id",
                "delete from notes where id > 2",
                "create table more (x integer)",
                "create table copied as select id from notes",
                "insert into copied select id from notes",
                "drop table more",
                "select id from notes",
                "select id from notes where id = 99",
                "with gone as (select 1 as id) delete from notes where id in (select id from gone)",
                "drop table copied",
            )
        ]

    assert contract.run(body) == [3, 2, 0, 0, 1, 1, 2, 0, 0, 0, 2, 0, 2, 0, 1, 0]


def test_rowcount_in_postgres(postgres_contract):
    def body(tx, app):
        app.write(tx, 1)
        merge = (
            "merge into notes using (select generate_series(1, :last::int) as id) s on s.id = notes.id "
            "when matched then update set note = 'seen' when not matched then insert (id) values (s.id)"
        )
        return (
            tx.execute(merge, last=3).rowcount,
            tx.execute_many(merge, [{"last": 4}, {"last": 5}]),
            tx.execute("select from notes").rowcount,
            tx.execute("truncate notes").rowcount,
            tx.execute("do $$ begin perform 1; end $$").rowcount,
            len(tx.execute("explain select 1")),
            tx.execute("show timezone").scalar(),
            tx.execute("select pg_sleep(0)").columns,
            tx.execute("lock table notes").rowcount,
        )

    assert postgres_contract.run(body) == (3, 9, 5, 0, 0, 1, "UTC", ("pg_sleep",), 0)


def test_a_statement_that_selects_changes_nothing_however_often(contract):
    def body(tx, app):
        tx.execute("insert into notes (id) values (1), (2)")
        return tx.execute_many("select id from notes where id >= :id", [{"id": 0}, {"id": 1}])

    assert contract.run(body) == 0


def test_the_schema_may_change_between_two_runs_of_a_statement(contract):
    """In one function, from call to call, and undone."""

    def look(tx, app):
        return [dict(row) for row in tx.execute("select * from notes order by id")]

    def change(tx, app, fail):
        tx.execute("insert into notes (id, note) values (1, 'x')")
        found = [dict(tx.execute("select * from notes").one()) for _ in range(2)]
        tx.execute("alter table notes add column size integer")
        found += [dict(tx.execute("select * from notes").one()) for _ in range(2)]
        tx.execute("alter table notes drop column note")
        found += [dict(tx.execute("select * from notes").one()) for _ in range(2)]
        tx.execute("alter table notes rename column size to weight")
        found += [dict(tx.execute("select * from notes").one()) for _ in range(2)]
        if fail:
            raise app.Rejected("no", found=found)
        return found

    def mend(tx, app):
        tx.execute("alter table notes rename column weight to note")

    expected = [{"id": 1, "note": "x"}, {"id": 1, "note": "x", "size": None}, {"id": 1, "size": None}]
    expected = [row for row in (*expected, {"id": 1, "weight": None}) for _ in range(2)]
    for _ in range(2):
        outcome = contract.outcome("evaluate", **contract.sent(change, fail=True))
        assert outcome.error["found"] == expected
        assert contract.run(look) == contract.run(look, "query") == []
    try:
        assert contract.run(change, fail=False) == expected
        for kind in ("transaction", "query") * 2:
            assert contract.run(look, kind) == [{"id": 1, "weight": None}]
    finally:
        contract.run(mend)
    assert contract.run(look) == contract.run(look, "query") == [{"id": 1, "note": None}]


def test_many_different_statements(contract):
    """More than any cache of statements holds."""

    def body(tx, app):
        total = 0
        for number in range(1200):
            total += tx.execute(f"select {number} + cast(:one as integer)", one=1).scalar()
        return total + sum(
            tx.execute(f"select {number} + cast(:one as integer)", one=1).scalar() for number in range(9)
        )

    assert contract.run(body) == sum(range(1, 1201)) + sum(range(1, 10))
