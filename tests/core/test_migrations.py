"""Migrations: each once, in order, all or nothing."""

import hashlib
from contextlib import closing

import pytest

import apiary
from apiary import App, Transaction
from apiary.bundle import Migration
from apiary.codec import convert_rows
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.engine.sqlite.engine import SqliteEngine
from apiary.runtime.errors import BundleRefused, DatabaseUnavailable, MigrationRefused


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    """An engine of an app that has no tables yet, for both kinds of SQL."""
    if request.param == "sqlite":
        engine = SqliteEngine(tmp_path / "app.db", convert_rows)
    else:
        engine = PostgresEngine(place(request.getfixturevalue("postgres_url")), convert_rows)
    yield engine
    engine.close()


@pytest.fixture
def sqlite_engine(tmp_path):
    engine = SqliteEngine(tmp_path / "app.db", convert_rows)
    yield engine
    engine.close()


@pytest.fixture
def postgres_engine(postgres_url):
    engine = PostgresEngine(place(postgres_url), convert_rows)
    yield engine
    engine.close()


def place(url):
    installer = Installer(url)
    target = installer.app("migrated")
    installer.close()
    return target


def files(**sql: str) -> list[Migration]:
    """Migrations as they are read: `m1="…"` is the file `1.sql`."""
    return [Migration(f"{name[1:]}.sql", text, hashlib.sha256(text.encode()).hexdigest()) for name, text in sql.items()]


TABLES = {
    "sqlite": "select name from sqlite_master where type = 'table' and name not like 'apiary_%' order by 1",
    "postgresql": "select tablename::text from pg_tables where schemaname = 'migrated' order by 1",
}
APPLIED = {
    "sqlite": "select name || ' ' || version from apiary_migrations order by applied, name",
    "postgresql": "select name || ' ' || version from apiary_migrated.migrations order by applied, name",
}


def look(engine, sql=None):
    """The first column of what a statement finds; the tables of the app, where none is given."""
    if engine.dialect == "sqlite":
        return [row[0] for row in engine._connection.execute(sql or TABLES["sqlite"]).fetchall()]
    with closing(engine._access.open()) as link:
        return [row[0] for row in link.connection.execute(sql or TABLES["postgresql"]).fetchall()]


def applied(engine):
    return look(engine, APPLIED[engine.dialect])


def test_each_is_applied_once_in_order(engine):
    assert engine.migrate(files(m1="create table a (x integer)", m2="alter table a add column y integer"), "v1") == [
        "1.sql",
        "2.sql",
    ]
    assert engine.migrate(files(m1="create table a (x integer)", m2="alter table a add column y integer"), "v2") == []
    grown = files(
        m1="create table a (x integer)", m2="alter table a add column y integer", m3="create table b (x integer)"
    )
    assert engine.migrate(grown, "v3") == ["3.sql"]
    assert look(engine) == ["a", "b"]
    assert applied(engine) == ["1.sql v1", "2.sql v1", "3.sql v3"]


def test_ten_comes_after_nine(engine):
    engine.migrate(files(m9="create table a (x integer)"), "v1")
    assert engine.migrate(files(m9="create table a (x integer)", m10="create table b (x integer)"), "v2") == ["10.sql"]


def test_many_statements_and_triggers_in_one_file(sqlite_engine):
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
    sqlite_engine.migrate(files(m1=sql), "v1")
    assert look(sqlite_engine, "select x from log") == [1, 2]
    assert look(sqlite_engine, "select note from a") == ["seen; twice"] * 2


def test_a_file_that_was_changed_is_refused(engine):
    engine.migrate(files(m1="create table a (x integer)"), "v1")
    with pytest.raises(MigrationRefused, match=r"1\.sql was changed") as raised:
        engine.migrate(files(m1="create table a (x integer, y integer)", m2="create table b (x integer)"), "v2")
    assert "new migration" in raised.value.hint
    assert look(engine) == ["a"]


@pytest.mark.parametrize(
    "sql",
    [
        "create table c (x integer); insert into missing values (1)",
        "create table c (x integer); this is no sql",
        "create table c (x integer); insert into a values (1), (null)",
        "insert into a values (7); create table b (x integer)",
        "create table c (x integer); select :parameter",
    ],
)
def test_one_that_fails_leaves_all_as_it_was(engine, sql):
    engine.migrate(
        files(m1="create table a (x integer not null); insert into a values (5)", m2="create table b (x integer)"), "v1"
    )
    before = applied(engine)
    grown = files(
        m1="create table a (x integer not null); insert into a values (5)",
        m2="create table b (x integer)",
        m3="create table good (x integer)",
        m4=sql,
    )
    for _ in range(2):
        with pytest.raises(MigrationRefused, match=r"4\.sql"):
            engine.migrate(grown, "v2")
    assert look(engine) == ["a", "b"]
    assert look(engine, "select x from a") == [5]
    assert applied(engine) == before
    grown[-1] = files(m4="create table mended (x integer)")[0]
    assert engine.migrate(grown, "v3") == ["3.sql", "4.sql"]


@pytest.mark.parametrize(
    "sql",
    [
        "create table b (x integer); commit; create table c (x integer)",
        "create table b (x integer); commit; begin; create table c (x integer)",
        "create table b (x integer); rollback",
        "create table b (x integer); end; begin",
        "begin; create table b (x integer); commit",
        "create table b (x integer); savepoint mine",
        "create table b (x integer); attach 'other.db' as other",
        "create table b (x integer); delete from apiary_calls",
        "create table b (x integer); drop index apiary_calls_key",
        "create table b (x integer); create trigger t after insert on apiary_calls begin delete from b; end",
        "create table apiary_mine (x integer)",
        "create table b (x integer); pragma synchronous = off",
        "create table b (x integer); pragma writable_schema = on",
        "create temp table b (x integer)",
    ],
)
def test_one_that_breaks_the_rules_is_refused_whole(sqlite_engine, sql):
    sqlite_engine.migrate(files(m1="create table a (x integer)"), "v1")
    with pytest.raises(MigrationRefused, match=r"2\.sql"):
        sqlite_engine.migrate(files(m1="create table a (x integer)", m2=sql), "v2")
    assert look(sqlite_engine) == ["a"]
    assert sqlite_engine.migrate(files(m1="create table a (x integer)", m2="create table b (x integer)"), "v3") == [
        "2.sql"
    ]


def test_one_that_leaves_broken_references_is_refused(sqlite_engine):
    tables = "create table p (id integer primary key); create table c (p integer references p); "
    with pytest.raises(MigrationRefused):
        sqlite_engine.migrate(files(m1=tables + "insert into c values (1)"), "v1")
    deferred = "pragma defer_foreign_keys = on; insert into c values (1)"
    with pytest.raises(MigrationRefused, match="foreign keys"):
        sqlite_engine.migrate(files(m1=tables + deferred), "v1")
    assert look(sqlite_engine) == []
    mended = deferred + "; insert into p values (1)"
    assert sqlite_engine.migrate(files(m1=tables + mended), "v1") == ["1.sql"]


def test_older_code_with_fewer_files_is_welcome(engine):
    both = files(m1="create table a (x integer)", m2="create table b (x integer)")
    engine.migrate(both, "v1")
    assert engine.migrate(both[:1], "v0") == []
    assert engine.migrate([], "v00") == []
    assert engine.migrate(both, "v1") == []


def test_a_number_that_was_used_cannot_be_used_again(engine):
    engine.migrate(files(m1="create table a (x integer)", m2="create table b (x integer)"), "v1")
    other = Migration("2-other.sql", "create table c (x integer)", "0")
    with pytest.raises(MigrationRefused, match="does not come after"):
        engine.migrate([*files(m1="create table a (x integer)"), other], "v2")
    with pytest.raises(MigrationRefused, match="does not come after"):
        engine.migrate([Migration("0-early.sql", "create table c (x integer)", "0")], "v2")


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_same_file_applied_by_several_at_once_is_applied_once(dialect, request, tmp_path, together):
    if dialect == "sqlite":
        engines = [SqliteEngine(tmp_path / "app.db", convert_rows) for _ in range(4)]
    else:
        target = place(request.getfixturevalue("postgres_url"))
        engines = [PostgresEngine(target, convert_rows) for _ in range(4)]
    migrations = files(m1="create table a (x integer)", m2="insert into a values (1)")
    applied = together(lambda engine: engine.migrate(migrations, "v1"), engines)
    assert sorted(map(len, applied)) == [0, 0, 0, 2]
    assert look(engines[0], "select x from a") == [1]
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(
    "sql",
    [
        "create table b (x integer); commit; create table c (x integer)",
        "create table b (x integer); COMMIT and chain; create table c (x integer)",
        "create table b (x integer); rollback",
        "create table b (x integer); /* now */ end; begin",
        "start transaction; create table b (x integer); commit",
        "create table b (x integer); savepoint mine",
        "create table b (x integer); prepare transaction 'mine'",
        "create table b (x integer); do $$ begin commit; end $$",
        "create table b (x integer); insert into apiary_migrated.calls (id) values (null)",
        'create table b (x integer); drop table "apiary_migrated".queue',
        "create table b (x integer); drop schema apiary_migrated cascade",
        "create table b (x integer); create role mine",
        "create temp table b (x integer)",
        "create table b (x integer); select 1 as x into temporary c",
        "create table b (x integer); select 'a\0b'",
        "create table b (x integer); select :parameter",
    ],
)
def test_one_that_breaks_the_rules_of_postgres_is_refused_whole(postgres_engine, sql):
    postgres_engine.migrate(files(m1="create table a (x integer)"), "v1")
    with pytest.raises(MigrationRefused, match=r"2\.sql"):
        postgres_engine.migrate(files(m1="create table a (x integer)", m2=sql), "v2")
    assert look(postgres_engine) == ["a"]
    both = files(m1="create table a (x integer)", m2="create table b (x integer)")
    assert postgres_engine.migrate(both, "v3") == ["2.sql"]


def test_functions_and_triggers_of_postgres_in_one_file(postgres_engine):
    sql = """
    -- a comment; with a semicolon
    create table a (x integer, note text default 'a;b');
    create table log (x integer);
    create function seen() returns trigger language plpgsql as $$
    begin
        insert into log (x) values (new.x);
        return new;
    end; $$;
    create function largest(low integer) returns integer language sql stable begin atomic
        select case when low > 5 then low else case when true then 5 end end;
        select coalesce(max(x), low) from a;
    end;
    create trigger t after insert on a for each row execute function seen();
    insert into a (x) values (1), (2); /* and more; */
    """
    postgres_engine.migrate(files(m1=sql), "v1")
    assert look(postgres_engine, "select x from log") == [1, 2]
    assert look(postgres_engine, "select largest(7)") == [2]


def test_references_that_are_broken_in_the_end_refuse_the_migrations(postgres_engine):
    tables = (
        "create table p (id integer primary key); "
        "create table c (p integer references p deferrable initially deferred); insert into c values (1)"
    )
    with pytest.raises(MigrationRefused, match="foreign key"):
        postgres_engine.migrate(files(m1=tables), "v1")
    assert look(postgres_engine) == []
    assert postgres_engine.migrate(files(m1=tables + "; insert into p values (1)"), "v1") == ["1.sql"]


def test_a_database_that_is_locked_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("apiary.engine.sqlite.session.BUSY_MILLISECONDS", 10)
    first, second = (SqliteEngine(tmp_path / "app.db", convert_rows) for _ in range(2))
    first._connection.execute("begin immediate")
    with pytest.raises(DatabaseUnavailable):
        second.migrate(files(m1="create table a (x integer)"), "v1")
    first._connection.execute("rollback")
    assert second.migrate(files(m1="create table a (x integer)"), "v1") == ["1.sql"]
    first.close()
    second.close()


def test_what_is_pending_is_told_while_another_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("apiary.engine.sqlite.session.BUSY_MILLISECONDS", 10)
    first = SqliteEngine(tmp_path / "app.db", convert_rows)
    first.migrate(files(m1="create table a (x integer)"), "v1")
    first._connection.execute("begin immediate")
    second = SqliteEngine(tmp_path / "app.db", convert_rows)
    assert second.pending(
        files(m1="create table a (x integer)", m2="not yet read", m3="create table c (x integer)")
    ) == [
        "2.sql",
        "3.sql",
    ]
    assert second.pending(files(m1="create table a (x integer)")) == second.pending([]) == []
    assert second.migrate(files(m1="create table a (x integer)"), "v2") == []
    with pytest.raises(MigrationRefused, match=r"1\.sql was changed"):
        second.pending(files(m1="create table a (x integer, y integer)"))
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


def test_a_folder_of_migrations_that_is_named_must_be_there(tmp_path):
    with pytest.raises(BundleRefused, match="'mistyped' as the folder of its migrations, which is not there"):
        apiary.open(App("x", migrations=tmp_path / "mistyped"), database=f"sqlite:///{tmp_path}/x.db")


@pytest.mark.parametrize(
    "sql",
    [
        "create table jobs (id blob references apiary_queue (id));",
        "create table jobs (id blob); alter table jobs add column call blob references Apiary_Calls (id);",
    ],
)
def test_a_table_cannot_hold_on_to_rows_of_the_platform(sqlite_engine, sql):
    with pytest.raises(MigrationRefused, match=r"(?i)the table jobs refers to apiary_"):
        sqlite_engine.migrate([Migration("001.sql", sql, "x")], "v1")
    sqlite_engine.migrate([Migration("001.sql", "create table jobs (id blob)", "y")], "v1")


def test_a_migration_with_a_nul_is_refused(sqlite_engine):
    with pytest.raises(MigrationRefused, match="NUL"):
        sqlite_engine.migrate([Migration("001.sql", "create table t (a);\0", "x")], "v1")


def test_what_is_said_of_commit_in_a_migration_is_of_migrations(sqlite_engine):
    with pytest.raises(MigrationRefused, match="leave begin, commit and rollback out"):
        sqlite_engine.migrate([Migration("001.sql", "create table t (a); commit;", "x")], "v1")
