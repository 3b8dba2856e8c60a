"""What the log knows of the rows that calls read; and that a program does not notice that its reads are known."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr

import apiary
from apiary import App, OpenApp, Transaction
from apiary.codec import convert_rows
from apiary.config import Capturing
from apiary.engine import records
from apiary.engine.selection import selection
from apiary.engine.sqlite import capture
from apiary.engine.sqlite.engine import SqliteEngine
from apiary.engine.sqlite.expansion import file_beside
from apiary.engine.sqlite.log import SqliteLog
from apiary.recorded import STARS
from apiary.runtime.errors import Error

TABLES = """
create table items (id integer primary key, name text unique, kind text, at timestamp);
create index items_kind on items (kind, name);
create table lines (cart integer, item integer references items, n real, primary key (cart, item)) without rowid;
create table heap (x, y);
create index heap_x on heap (x);
create table named (name text primary key, size integer);
create index named_size on named (size);
create view large as select id, name from items where id > 2;
insert into items values (1, 'one', 'a', '2026-01-31 10:00:00'), (2, 'two', 'b', null), (3, 'three', 'a', null),
                         (4, null, null, null);
insert into lines values (1, 1, 1), (1, 2, 2), (2, 1, 0.5), (2, 4, 4);
insert into heap values (1, 'a'), (2, 'b'), (1, 'c'), (null, 'd');
insert into named values ('n1', 3), ('n2', 1), ('n3', 2);
"""
COLUMNS = {
    "items": ["id", "name", "kind", "at", "rowid"],
    "lines": ["cart", "item", "n"],
    "heap": ["x", "y", "rowid"],
    "named": ["name", "size"],
    "large": ["id", "name"],
}


def opened(folder: Path, name: str, capturing: Capturing) -> OpenApp:
    migrations = folder / "migrations"
    if not migrations.exists():
        migrations.mkdir()
        (migrations / "001.sql").write_text(TABLES)
    app = App("reads", migrations=migrations)

    @app.query
    def ask(tx: Transaction, statement: str, n: int | None = None) -> Any:
        result = tx.execute(statement, **({} if n is None else {"n": n}))
        return [result.columns, [list(row) for row in result], result.rowcount]

    @app.transaction
    def run(tx: Transaction, statement: str) -> Any:
        return [list(row) for row in tx.execute(statement)]

    path = folder / f"{name}.db"
    return OpenApp(app, SqliteEngine(path, convert_rows, capturing=capturing), SqliteLog(path))


@pytest.fixture
def reads(tmp_path: Path) -> Iterator[OpenApp]:
    with opened(tmp_path, "reads", Capturing.BOTH) as app:
        yield app


def asked(app: OpenApp, statement: str) -> list[tuple[Any, ...]]:
    app.call("run", statement="select 1")  # records of queries come with the next transaction at the latest
    return list(app.log.sql(statement, 10_000, 10.0).rows)


def read_by(app: OpenApp, statement: str) -> list[tuple[Any, ...]]:
    """What the log knows to be read by a statement."""
    app.call("run", statement=statement)
    found = "select table_name, key from reads where effect = (select max(effect) from sources where call = ("
    return asked(
        app, f'{found} select max(seq) from calls where input <> \'{{"statement":"select 1"}}\')) order by place'
    )


@pytest.mark.parametrize("capture", ["off", "reads", "writes", "both", "strict"])
def test_what_is_kept_is_what_was_asked_for(tmp_path, capture):
    (tmp_path / "001.sql").write_text("create table t (a integer primary key)")
    app = App("reads", migrations=tmp_path)

    @app.transaction
    def add(tx: Transaction) -> int:
        return tx.execute("insert into t values (null) returning a").scalar()

    @app.query
    def count(tx: Transaction) -> int:
        return len(tx.execute("select a from t").all())

    with apiary.open(app, f"sqlite:///{tmp_path}/reads.db", capture=capture) as opened:
        opened.call("add")
        opened.call("count")
        if capture == "strict":
            assert opened.log.sql("select function from calls order by seq", 9, 1.0).rows == [("add",), ("count",)]
        opened.call("add")
        found = opened.log.sql("select (select count(*) from reads), (select count(*) from writes)", 9, 1.0).rows[0]
    assert found == (capture not in ("off", "writes"), 3 * (capture not in ("off", "reads")))


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("select name from items where id < 3", [("items", '{"id":1}'), ("items", '{"id":2}')]),
        ("select * from items where id = 1", [("items", '{"id":1}')]),
        ("select y from heap where x = 2", [("heap", '{"rowid":2}')]),
        (
            "select i.name from lines l join items as i on i.id = l.item where l.cart = 1 and l.n > 1",
            [("lines", '{"cart":1,"item":2}'), ("items", '{"id":2}')],
        ),
        (
            "select a.name, b.name from items a left join items b on b.id = a.id + 3 where a.id < 3 order by 1",
            [("items", '{"id":1}'), ("items", '{"id":4}'), ("items", '{"id":2}')],
        ),
        ("select size from named where size > 1", [("named", '{"name":"n3"}'), ("named", '{"name":"n1"}')]),
        ("select count(*) from items", [("items", None)]),
        ("select distinct kind from items", [("items", None)]),
        ("select id from large", [("items", None)]),
        (
            "select x from heap where x in (select id from items) and y = 'a'",
            [("items", None), ("heap", '{"rowid":1}')],
        ),
        (
            "select (select i.id from items i where i.id = 3) as id from items where id = 1",
            [("items", None), ("items", '{"id":1}')],
        ),
        ("select l.name from large l join items i using (id) where id = 3", [("items", None), ("items", '{"id":3}')]),
        (
            "with c as (select id as x from items) select c.x from c join items i on i.id = 2",
            [("items", None), *[("items", '{"id":2}')] * 4],
        ),
        ("with items as (select x from heap) select x from items", [("heap", None)]),
        ("update items set name = 'x' where id = 1", []),
        ("insert into heap select id, name from items where id = 1", [("items", None)]),
        ("select 1", []),
    ],
)
def test_the_rows_that_were_read_are_known(reads, statement, found):
    assert read_by(reads, statement) == found


def test_a_reading_is_told_with_statement_parameters_and_rows(reads):
    reads.call("ask", statement="select name, at from items where id = :n", n=1)
    (found,) = asked(reads, "select function, statement, parameters, row from reads")
    assert found[:3] == ("ask", "select name, at from items where id = :n", '{"n":1}')
    assert json.loads(found[3]) == {"name": "one", "at": "2026-01-31 10:00:00"}
    assert asked(reads, "select rows, count from statements where function = 'ask'") == [
        ('[["one","2026-01-31 10:00:00"]]', 1)
    ]


def test_what_a_call_read_that_failed_is_known(reads):
    with pytest.raises(Error):
        reads.call("ask", statement="select name from items where id = :n or :m", n=1)
    with pytest.raises(Error):
        reads.call("ask", statement="delete from items", n=None)
    assert asked(reads, "select function, status from calls where function = 'ask'") == [("ask", "failed")] * 2


def test_of_many_rows_the_keys_are_kept_and_of_more_the_number(reads, monkeypatch):
    fill = "insert into heap with recursive n (i) as (select 1 union all select i + 1 from n where i < {}) "
    reads.call("run", statement=fill.format(1000) + "select i, printf('%200d', i) from n")
    reads.call("ask", statement="select y from heap where x > 0")
    found = asked(reads, "select count(key), count(row), count(*) from reads where function = 'ask'")
    assert found == [(1003, 0, 1003)]
    reads.call("run", statement=fill.format(5000) + "select i, i from n")
    monkeypatch.setattr(capture, "MAX_KEYS_BYTES", 10_000)
    reads.call("ask", statement="select y from heap where x > -1")
    where = "where statement = 'select y from heap where x > -1'"
    assert asked(reads, f"select table_name, key from reads {where}") == [("heap", None)]
    assert asked(reads, f"select rows, count from statements {where}") == [(None, 6003)]


def test_what_cannot_be_written_as_fast_as_it_is_read_is_left_out_and_told(reads, monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORDS_WAITING", 3)
    monkeypatch.setattr(records, "MAX_EFFECTS_WAITING_BYTES", 70)
    told: list[tuple[int, int]] = []
    reads._dispatcher._records = records.Records(lambda *dropped: told.append(dropped))
    reads._dispatcher.hold(lambda call: None)
    for n in range(5):
        reads.call("ask", statement="select name from items where id = :n", n=n)
    assert [sum(counts) for counts in zip(*told, strict=True)] == [2, 1]
    reads._dispatcher.resume()
    found = asked(reads, "select json_extract(input, '$.n'), left_out from calls where function = 'ask'")
    assert found == [(0, None), (1, None), (2, -1)]


def test_secret_arguments_are_not_shown(tmp_path):
    (tmp_path / "001.sql").write_text("create table users (name text primary key, password text, note text, raw blob)")
    app = App("reads", migrations=tmp_path)

    @app.transaction
    def join(tx: Transaction, name: str, password: SecretStr, keys: dict[str, SecretBytes], fail: bool = False) -> str:
        secret = password.get_secret_value()
        tx.execute(
            "insert into users values (:name, :password, :note, :raw)",
            name=name, password=secret, note=f"pass: {secret}", raw=keys["a"].get_secret_value(),
        )  # fmt: skip
        found = tx.execute("select password from users where name = :name", name=name).scalar()
        assert not fail
        return found

    path = tmp_path / "reads.db"
    with apiary.open(app, f"sqlite:///{path}") as opened:
        assert opened.call("join", name="a", password="hush-hush", keys={"a": "aHVzaA=="}) == "hush-hush"
        opened.call("join", name="b", password="b", keys={"a": "aHVzaA=="})
        with pytest.raises(Error):
            opened.call("join", name="c", password="hush-hush", keys={"a": "aHVzaA=="}, fail=True)
        written = opened.log.sql("select key, after from writes where kind <> 'migration' order by seq", 9, 1.0).rows
        assert [json.loads(after)["password"] for _, after in written] == [STARS, STARS]
        assert [json.loads(key)["name"] for key, _ in written] == ["a", STARS], "no key is worth a secret"
        assert len(opened.log.sql("select * from reads", 9, 1.0).rows) == 3
    for file in (path, file_beside(path)):
        connection = apsw.Connection(str(file))
        tables = ["apiary_effects"] if file == path else ["writes", "statements", "reads"]
        kept = repr([connection.execute(f"select * from {table}").fetchall() for table in tables])
        connection.close()
        assert "hush" not in kept.replace("note", "")
        assert STARS in kept


@st.composite
def selects(draw: Any) -> str:
    """Selects of many forms, some of them wrong."""
    sources = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3))
    aliases = [f"t{number}" for number in range(len(sources))]
    written = f"{sources[0]} as t0"
    columns = [f"t0.{column}" for column in COLUMNS[sources[0]]]
    for source, alias in list(zip(sources, aliases, strict=True))[1:]:
        own = [f"{alias}.{column}" for column in COLUMNS[source]]
        how = draw(st.sampled_from(["join", "left join", ",", "cross join", "full join"]))
        on = "" if how == "," else f" on {draw(st.sampled_from(own))} = {draw(st.sampled_from(columns))}"
        written += f"{' ' * (how != ',')}{how} {source} {alias}{on}"
        columns += own
    one = st.sampled_from(columns)
    expression = st.one_of(
        one,
        one.map(lambda c: f"{c} as renamed"),
        one.map(lambda c: f"coalesce({c}, 'none') as c"),
        one.map(lambda c: f"(select count(*) from heap where heap.x = {c})"),
        st.sampled_from(
            [
                "*",
                "t0.*",
                "1",
                "'from t0'",
                "count(*)",
                f"max({columns[0]})",
                f"row_number() over (order by {columns[-1]})",
            ]
        ),
    )
    listed = ", ".join(draw(st.lists(expression, min_size=1, max_size=3)))
    where = draw(
        st.sampled_from(
            [
                "",
                f" where {draw(one)} is not null",
                f" where {draw(one)} > :n",
                f" where exists (select 1 from items where id = {draw(one)})",
            ]
        )
    )
    group = draw(st.sampled_from([""] * 8 + [f" group by {draw(one)}"]))
    order = draw(
        st.sampled_from(["", "", f" order by {draw(one)}", " order by 1 desc", f" order by {draw(one)} limit 2"])
    )
    before = draw(
        st.sampled_from(
            [""] * 6 + ["with c as (select 1 as one) ", "with heap as (select id as x, name as y from items) "]
        )
    )
    distinct = draw(st.sampled_from(["", "", "", "", "distinct ", "all "]))
    after = draw(st.sampled_from([""] * 8 + [" union all select 1", ";", " -- end"]))
    return f"{before}select {distinct}{listed} /* from */ from {written}{where}{group}{order}{after}"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[OpenApp, OpenApp]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with opened(folder, "traced", Capturing.BOTH) as traced, opened(folder, "plain", Capturing.OFF) as plain:
            yield traced, plain


@settings(deadline=None, max_examples=150)
@given(selects())
def test_a_program_does_not_notice_that_it_is_traced(pair, statement):
    n = 1 if ":n" in statement else None
    outcomes = []
    for app in pair:
        try:
            outcomes.append(app.call("ask", statement=statement, n=n))
        except Error as error:
            outcomes.append(repr(error.__cause__ or error))
    assert outcomes[0] == outcomes[1]


@settings(deadline=None, max_examples=150)
@given(selects())
def test_the_rows_that_were_read_are_those_of_the_tables(pair, statement):
    traced, _ = pair
    try:
        traced.call("ask", statement=statement, n=1 if ":n" in statement else None)
    except Error:
        return
    found = asked(
        traced,
        "select table_name, key, row from reads where key is not null "
        "and seq = (select max(seq) from calls where function = 'ask')",
    )
    connection = apsw.Connection(str(traced.engine.path))
    for table, key, row in found:
        where = " and ".join(f"{name} is ?" for name in json.loads(key))
        columns = json.loads(row)
        names = ", ".join([*columns, "1"])
        held = connection.execute(
            f"select {names} from {table} where {where}", tuple(json.loads(key).values())
        ).fetchall()
        assert held == [(*columns.values(), 1)]
    connection.close()


@pytest.mark.parametrize(
    "statement",
    ["select 1", "values (1)", "select a from t union select a from u", "select distinct a from t", "", "select",
     "select sum(a) from t", "select a from t group by a", "select (select max(t.a)) from t", "explain select a from t",
     "insert into t select a from u", "select rank() over (order by a) from t", "with t as (select 1) values (1)"],
)  # fmt: skip
def test_some_statements_have_no_place_for_more_columns(statement):
    assert selection(statement) is None
