"""How statements for PostgreSQL are read: the numbered statement means to the server what the named one says."""

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apiary.engine.postgres.statement import check_script, parse
from apiary.runtime.errors import DatabaseError, RuleBroken


@pytest.fixture(scope="module")
def server(core_database):
    with psycopg.connect(core_database, autocommit=True) as connection:
        yield psycopg.RawCursor(connection)


NASTY = st.text(st.sampled_from(list("ab:x'\"\\$;/*-- \n\r\té😀[](){}?%,.1")), max_size=12)
NAMES = st.sampled_from(["x", "a", "x1", "_y", "select", "größe"])


def plain(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def escaped(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"E'{quoted}'"


def continued(text: str) -> str:
    middle = len(text) // 2
    return escaped(text[:middle]) + "\n  " + escaped(text[middle:])[1:]


def dollars(text: str) -> str:
    tag = next(tag for tag in ("$$", "$q$", "$q_1$") if tag not in text and not f"{text}$".endswith(tag))
    return f"{tag}{text}{tag}"


def commented(text: str) -> str:
    inner = text.replace("/*", "").replace("*/", "").strip("*/")
    return f"/* {inner} /* {inner} */ */ {plain(text)} -- {text.splitlines()[0] if text.splitlines() else ''}\n"


def named(text: str) -> str:
    name = text.replace('"', '""').replace("\r", "") or "x"
    return f'(select "{name}" from (select {plain(text)}::text as "{name}") q)'


LITERALS = st.one_of(
    *(NASTY.map(lambda text, write=write: (write(text), text, {})) for write in (plain, escaped, continued, commented)),
    NASTY.filter(lambda text: "$" not in text).map(lambda text: (dollars(text), text, {})),
    NASTY.filter(lambda text: len(text.encode()) < 60).map(lambda text: (named(text), text, {})),
)
PARAMETERS = st.one_of(
    st.tuples(NAMES, NASTY).map(lambda one: (f"cast(:{one[0]} as text)", None, {one[0]: one[1]})),
    st.tuples(NAMES, NASTY).map(lambda one: (f":{one[0]}::text", None, {one[0]: one[1]})),
    st.tuples(NAMES, NASTY).map(lambda one: (f"(array['', :{one[0]}::text])[2]", None, {one[0]: one[1]})),
    st.tuples(NAMES, NASTY).map(
        lambda one: (f"array_to_string((array[:{one[0]}::text, ''])[1:1], '')", None, {one[0]: one[1]})
    ),
    st.tuples(NAMES, NASTY).map(
        lambda one: (f"array_to_string((array['', :{one[0]}::text, 'no'])[2:n], ',')", None, {one[0]: one[1]})
    ),
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(
    pieces=st.lists(LITERALS | PARAMETERS, min_size=1, max_size=5), end=st.sampled_from(["", ";", " ; -- end", "\n"])
)
def test_the_numbered_statement_means_what_the_named_one_says(server, pieces, end):
    given_ = {name: value for _, _, parameters in pieces for name, value in parameters.items()}
    expected = "".join(given_[next(iter(names))] if text is None else text for _, text, names in pieces)
    sql = "select " + "\n||".join(written for written, _, _ in pieces) + " from (select 2 as n) numbers" + end
    statement = parse(sql)
    assert set(statement.names) == given_.keys()
    assert statement.reads_only
    for text in (statement.sql, statement.cast(["text"] * len(statement.names))):
        assert server.execute(text.encode(), statement.values(given_)).fetchone() == (expected,)


ANYTHING = st.text(st.sampled_from(list("ab:x'\"\\$;/*- \n1[](){}?,.eEuU&")), max_size=30)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(text=ANYTHING)
def test_any_text_is_read_or_refused(text):
    for sql in (text, f"select {text}", f"select '{text}", f"/*{text}"):
        try:
            statement = parse(sql)
        except (DatabaseError, RuleBroken):
            continue
        assert statement.source == sql
        assert statement.sql.count("$") >= len(statement.names)
        assert statement.cast([None] * len(statement.names)) == statement.sql
    try:
        check_script(text)
    except (DatabaseError, RuleBroken):
        pass


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(text=ANYTHING.filter(lambda text: ":" not in text))
def test_a_statement_without_parameters_stays_what_it_is(server, text):
    """What the server says of it is the same, be it rows or an error."""
    sql = f"select {text}"
    try:
        read = parse(sql).sql
    except (DatabaseError, RuleBroken):
        return
    assert said(server, read) == said(server, sql.rstrip(" \n;"))


def said(server, sql):
    try:
        return server.execute(sql.encode()).fetchall()
    except psycopg.Error as error:
        return error.sqlstate


@pytest.mark.parametrize(
    ("sql", "names", "numbered"),
    [
        ("select :a, :b, :a", ("a", "b"), "select $1, $2, $1"),
        (
            "select a[1:x], a[x:y], a[:x], a[x :y], a[:x :y]",
            ("x",),
            "select a[1:x], a[x:y], a[$1], a[x :y], a[$1 :y]",
        ),
        ("select a[1: :x]", ("x",), "select a[1: $1]"),
        ("select a[(b):x]", (), "select a[(b):x]"),
        ("select a[f(1, :x)]", ("x",), "select a[f(1, $1)]"),
        ("select array[1, :x]", ("x",), "select array[1, $1]"),
        ("select array[b :x]", ("x",), "select array[b $1]"),
        ("select a::int[:x]", ("x",), "select a::int[$1]"),
        ("select x::y, x :: y", (), "select x::y, x :: y"),
        ("select f(a := :x, b => :y)", ("x", "y"), "select f(a := $1, b => $2)"),
        ("select a ? :x, a ?| :y, a @? '$.x'", ("x", "y"), "select a ? $1, a ?| $2, a @? '$.x'"),
        ("select 'a' -- :x\n, :y", ("y",), "select 'a' -- :x\n, $1"),
        ("select 1e5, 1.5, :x1.5", ("x1",), "select 1e5, 1.5, $1.5"),
    ],
)
def test_parameters_are_numbered(sql, names, numbered):
    statement = parse(sql)
    assert (statement.names, statement.sql) == (names, numbered)


def test_parameters_are_cast_where_a_type_is_given():
    statement = parse("  select :a, ':b $1', (:b), :a[1] ; ")
    assert statement.cast(['"My Type"[]', None]) == 'select ($1::"My Type"[]), \':b $1\', ($2), ($1::"My Type"[])[1]'


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("select 1", True),
        ("SELECT * FROM t FOR UPDATE", False),
        ("select * from t for no key update of t", False),
        ("select * from t for share", False),
        ("select substring(a from 1 for 2) from t", True),
        ("with x as (select 1) select * from x", True),
        ("with x as (delete from t returning *) select * from x", False),
        ("values (1)", True),
        ("table t", True),
        ("(select 1) union (select 2)", True),
        ("show timezone", True),
        ("explain select 1", True),
        ("explain analyze insert into t values (1)", False),
        ("select 1 into t", False),
        ("insert into t values (1)", False),
        ("merge into t using s on true when matched then delete", False),
        ("truncate t", False),
        ("call p()", False),
        ("do $$ select $$", False),
        ("select t.update, t.delete from t", True),
        ("select 'insert', \"update\", $$delete$$ /* merge */", True),
        ("selekt 1", True),  # the server says what it thinks of it
    ],
)
def test_what_looks_as_if_it_only_reads(sql, reads):
    assert parse(sql).reads_only is reads


def test_a_large_statement_is_read_in_one_go():
    text = "x''" * 300_000
    statement = parse(f"select '{text}', :a, $${text}$$, \"{text}\" -- {text}")
    assert statement.names == ("a",)
    assert len(statement.sql) > 3_500_000 - 10


@pytest.mark.parametrize(
    "sql",
    [
        "create table t (x int); commit",
        "begin; select 1",
        "select 1; create temp table x ()",
        "select 1; delete from apiary_x.calls",
        "create function f() returns int begin atomic select case 1 when 1 then 2 end; end; rollback",
    ],
)
def test_scripts_that_break_the_rules(sql):
    with pytest.raises(RuleBroken):
        check_script(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "; ;",
        "-- commit\n/* rollback; */ create table t (x text default 'commit; begin')",
        "create function f() returns int begin atomic select case 1 when 1 then 2 end; select 2; end; select 1;",
        "do $$ begin perform 1; end $$; create table apiary_like (x int)",
        "set search_path = mine; alter table t rename column a to b",
    ],
)
def test_scripts_that_are_right(sql):
    check_script(sql)
