"""Migrations: each once, in order, all or nothing."""

import hashlib

import pytest

from apiary import App, Transaction
from apiary.bundle import Migration
from apiary.codec import convert_rows
from apiary.engine.sqlite.engine import SqliteEngine
from apiary.runtime.errors import DatabaseUnavailable, MigrationRefused


@pytest.fixture
def engine(tmp_path):
    engine = SqliteEngine(tmp_path / "app.db", convert_rows)
    yield engine
    engine.close()


def files(**sql: str) -> list[Migration]:
    """Migrations as they are read: `m1="…"` is the file `1.sql`."""
    return [Migration(f"{name[1:]}.sql", text, hashlib.sha256(text.encode()).hexdigest()) for name, text in sql.items()]


def look(
    engine, sql="select name from sqlite_master where name not like 'apiary_%' and name not like 'sqlite_%' order by 1"
):
    return [row[0] for row in engine._connection.execute(sql).fetchall()]


def test_each_is_applied_once_in_order(engine):
    assert engine.migrate(files(m1="create table a (x)", m2="alter table a add column y"), "v1") == ["1.sql", "2.sql"]
    assert engine.migrate(files(m1="create table a (x)", m2="alter table a add column y"), "v2") == []
    grown = files(m1="create table a (x)", m2="alter table a add column y", m3="create table b (x)")
    assert engine.migrate(grown, "v3") == ["3.sql"]
    assert look(engine) == ["a", "b"]
    applied = engine._connection.execute("select name, version from apiary_migrations order by name").fetchall()
    assert applied == [("1.sql", "v1"), ("2.sql", "v1"), ("3.sql", "v3")]


def test_ten_comes_after_nine(engine):
    engine.migrate(files(m9="create table a (x)"), "v1")
    assert engine.migrate(files(m9="create table a (x)", m10="create table b (x)"), "v2") == ["10.sql"]


def test_many_statements_and_triggers_in_one_file(engine):
    sql = """
    -- a comment; with a semicolon
    create table a (x integer, note text default 'a;b');
    create table log (x integer);
    create trigger t after insert on a begin
        insert into log (x) values (new.x);
        update a set note = 'seen; twice' where rowid = new.rowid;
    end;
    insert into a (x) values (1), (2); /* and more; */
    """
    engine.migrate(files(m1=sql), "v1")
    assert look(engine, "select x from log") == [1, 2]
    assert look(engine, "select note from a") == ["seen; twice"] * 2


def test_a_file_that_was_changed_is_refused(engine):
    engine.migrate(files(m1="create table a (x)"), "v1")
    with pytest.raises(MigrationRefused, match=r"1\.sql was changed") as raised:
        engine.migrate(files(m1="create table a (x, y)", m2="create table b (x)"), "v2")
    assert "new migration" in raised.value.hint
    assert look(engine) == ["a"]


@pytest.mark.parametrize(
    "sql",
    [
        "create table c (x); insert into missing values (1)",
        "create table c (x); this is no sql",
        "create table c (x); insert into a values (1), (null)",
        "insert into a values (7); create table b (x)",
        "create table c (x); select :parameter",
    ],
)
def test_one_that_fails_leaves_all_as_it_was(engine, sql):
    engine.migrate(files(m1="create table a (x not null); insert into a values (5)", m2="create table b (x)"), "v1")
    before = look(engine, "select count(*) from apiary_migrations")
    grown = files(
        m1="create table a (x not null); insert into a values (5)",
        m2="create table b (x)",
        m3="create table good (x)",
        m4=sql,
    )
    for _ in range(2):
        with pytest.raises(MigrationRefused, match=r"4\.sql"):
            engine.migrate(grown, "v2")
    assert look(engine) == ["a", "b"]
    assert look(engine, "select x from a") == [5]
    assert look(engine, "select count(*) from apiary_migrations") == before
    grown[-1] = files(m4="create table mended (x)")[0]
    assert engine.migrate(grown, "v3") == ["3.sql", "4.sql"]


@pytest.mark.parametrize(
    "sql",
    [
        "create table b (x); commit; create table c (x)",
        "create table b (x); commit; begin; create table c (x)",
        "create table b (x); rollback",
        "create table b (x); end; begin",
        "begin; create table b (x); commit",
        "create table b (x); savepoint mine",
        "create table b (x); attach 'other.db' as other",
        "create table b (x); delete from apiary_calls",
        "create table b (x); drop index apiary_calls_key",
        "create table b (x); create trigger t after insert on apiary_calls begin delete from b; end",
        "create table apiary_mine (x)",
        "create table b (x); pragma synchronous = off",
        "create table b (x); pragma writable_schema = on",
        "create temp table b (x)",
    ],
)
def test_one_that_breaks_the_rules_is_refused_whole(engine, sql):
    engine.migrate(files(m1="create table a (x)"), "v1")
    with pytest.raises(MigrationRefused, match=r"2\.sql"):
        engine.migrate(files(m1="create table a (x)", m2=sql), "v2")
    assert look(engine) == ["a"]
    assert engine.migrate(files(m1="create table a (x)", m2="create table b (x)"), "v3") == ["2.sql"]


def test_one_that_leaves_broken_references_is_refused(engine):
    tables = "create table p (id integer primary key); create table c (p integer references p); "
    with pytest.raises(MigrationRefused):
        engine.migrate(files(m1=tables + "insert into c values (1)"), "v1")
    deferred = "pragma defer_foreign_keys = on; insert into c values (1)"
    with pytest.raises(MigrationRefused, match="foreign keys"):
        engine.migrate(files(m1=tables + deferred), "v1")
    assert look(engine) == []
    mended = deferred + "; insert into p values (1)"
    assert engine.migrate(files(m1=tables + mended), "v1") == ["1.sql"]


def test_older_code_with_fewer_files_is_welcome(engine):
    both = files(m1="create table a (x)", m2="create table b (x)")
    engine.migrate(both, "v1")
    assert engine.migrate(both[:1], "v0") == []
    assert engine.migrate([], "v00") == []
    assert engine.migrate(both, "v1") == []


def test_a_number_that_was_used_cannot_be_used_again(engine):
    engine.migrate(files(m1="create table a (x)", m2="create table b (x)"), "v1")
    other = Migration("2-other.sql", "create table c (x)", "0")
    with pytest.raises(MigrationRefused, match="does not come after"):
        engine.migrate([*files(m1="create table a (x)"), other], "v2")
    with pytest.raises(MigrationRefused, match="does not come after"):
        engine.migrate([Migration("0-early.sql", "create table c (x)", "0")], "v2")


def test_the_same_file_applied_by_two_at_once_is_applied_once(tmp_path, together):
    engines = [SqliteEngine(tmp_path / "app.db", convert_rows) for _ in range(4)]
    migrations = files(m1="create table a (x)", m2="insert into a values (1)")
    applied = together(lambda engine: engine.migrate(migrations, "v1"), engines)
    assert sorted(map(len, applied)) == [0, 0, 0, 2]
    assert look(engines[0], "select x from a") == [1]
    for engine in engines:
        engine.close()


def test_a_database_that_is_locked_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("apiary.engine.sqlite.session.BUSY_MILLISECONDS", 10)
    first, second = (SqliteEngine(tmp_path / "app.db", convert_rows) for _ in range(2))
    first._connection.execute("begin immediate")
    with pytest.raises(DatabaseUnavailable):
        second.migrate(files(m1="create table a (x)"), "v1")
    first._connection.execute("rollback")
    assert second.migrate(files(m1="create table a (x)"), "v1") == ["1.sql"]
    first.close()
    second.close()


def test_what_is_pending_is_told_while_another_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("apiary.engine.sqlite.session.BUSY_MILLISECONDS", 10)
    first = SqliteEngine(tmp_path / "app.db", convert_rows)
    first.migrate(files(m1="create table a (x)"), "v1")
    first._connection.execute("begin immediate")
    second = SqliteEngine(tmp_path / "app.db", convert_rows)
    assert second.pending(files(m1="create table a (x)", m2="not yet read", m3="create table c (x)")) == [
        "2.sql",
        "3.sql",
    ]
    assert second.pending(files(m1="create table a (x)")) == second.pending([]) == []
    assert second.migrate(files(m1="create table a (x)"), "v2") == []
    with pytest.raises(MigrationRefused, match=r"1\.sql was changed"):
        second.pending(files(m1="create table a (x, y)"))
    first._connection.execute("rollback")
    first.close()
    second.close()


def test_functions_see_a_schema_that_another_migrated(make_app, engine_app):
    app = make_app("create table t (x integer); insert into t values (1)")

    @app.query
    def rows(tx: Transaction):
        return tx.execute("select * from t").all()

    @app.transaction
    def write_rows(tx: Transaction):
        return tx.execute("select * from t").all()

    opened = engine_app(app)
    assert opened.call(rows) == opened.call(write_rows) == [{"x": 1}]
    added = Migration("002.sql", "alter table t add column y integer default 7", "0")
    opened.engine.migrate([added], "v2")
    assert opened.call(rows) == opened.call(write_rows) == [{"x": 1, "y": 7}]


def test_an_app_finds_its_migrations_beside_its_module(tmp_path, monkeypatch):
    assert App("x").migrations.name == "migrations"
    assert App("x", migrations="elsewhere").migrations == App("x").migrations.parent / "elsewhere"
    assert App("x", migrations=tmp_path).migrations == tmp_path


def test_the_schema_of_the_platform_is_made_by_its_files(tmp_path):
    engine = SqliteEngine(tmp_path / "app.db", convert_rows)
    first = engine._connection.execute("select sql from sqlite_master order by name").fetchall()
    engine.close()
    again = SqliteEngine(tmp_path / "app.db", convert_rows)
    assert again._connection.execute("select sql from sqlite_master order by name").fetchall() == first
    numbers = again._connection.execute("select number from apiary_schema order by number").fetchall()
    assert numbers == [(number + 1,) for number in range(len(numbers))]
    again.close()
