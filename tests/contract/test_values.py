"""The contract of values: what goes into the database comes out as it was. psycopg judges the types of PostgreSQL."""

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types import TypeInfo
from psycopg.types.array import register_array
from psycopg.types.json import Json, Jsonb
from psycopg.types.string import TextLoader

from apiary import InternalError
from apiary.engine.postgres.connection import READ_AS_TEXT, Access
from apiary.runtime.errors import ValueOutOfRange


def there_and_back(contract, column, value, *, many=False):
    def body(tx, app, column, value, many, source):
        value = eval(value, vars(app)) if source else value
        tx.execute("delete from portable")
        insert = f"insert into portable (id, {column}) values (1, :value)"
        if many:
            tx.execute_many(insert, [{"value": value}])
        else:
            tx.execute(insert, value=value)
        found = tx.execute(f"select {column} from portable").scalar()
        return type(found).__name__, found

    return contract.run(body, column=column, value=value, many=many, source=isinstance(value, Source))


class Source(str):
    """A value that is made inside, from this expression."""


KOLKATA = timezone(timedelta(hours=5, minutes=30))
PORTABLE = [
    ("an_integer", 0),
    ("an_integer", 2**63 - 1),
    ("an_integer", -(2**63)),
    ("a_float", 0.1),
    ("a_float", math.inf),
    ("a_float", -math.inf),
    ("a_float", 5e-324),
    ("a_float", 1e308),
    ("a_text", ""),
    ("a_text", "größe 😀 \u2028 \\ ' \" :x $1 %s {} \t\r\n \x7f"),
    ("a_text", "'; drop table portable; --"),
    ("a_text", "null"),
    ("a_text", "{1,2}"),
    ("a_text", "x" * 250_000),
    ("a_text", "é" * 250_000),
    ("some_bytes", b""),
    ("some_bytes", bytes(range(256))),
    ("some_bytes", b"\\x41"),
    ("some_bytes", bytes(250_000)),
    ("a_bool", True),
    ("a_bool", False),
    ("a_date", date(2026, 2, 28)),
    ("a_date", date.min),
    ("a_date", date.max),
    ("a_time", time(23, 59, 59, 999999)),
    ("a_time", time(0, 0)),
    ("a_naive_time", datetime(2026, 2, 28, 12, 30)),  # noqa: DTZ001
    ("a_naive_time", datetime(1, 1, 1, 0, 0, 0, 1)),  # noqa: DTZ001
    ("a_naive_time", datetime(9999, 12, 31, 23, 59, 59, 999999)),  # noqa: DTZ001
    ("an_instant", datetime(2026, 2, 28, 12, 30, tzinfo=UTC)),
    ("an_instant", datetime(2026, 2, 28, 12, 30, 1, 5, tzinfo=KOLKATA)),
    ("an_instant", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ("a_decimal", Decimal("19.99")),
    ("a_decimal", Decimal("-0.000001")),
    ("a_decimal", Decimal(10**15)),
    ("a_decimal", Decimal("1e5")),
    ("a_decimal", Decimal("NaN")),
    ("a_decimal", Decimal("Infinity")),
    ("an_id", UUID("00000000-0000-0000-0000-000000000000")),
    ("an_id", UUID("12345678-1234-5678-1234-567812345678")),
    ("a_document", {"a": [1, None, True, "ü\u0000\\"], "b": {"c": 1.5}, "": {}}),
    ("a_document", []),
    ("a_document", {}),
    ("a_document", [[1, 2], [3]]),
    *((column, None) for column in ("an_integer", "a_text", "some_bytes", "a_bool", "an_instant", "a_document")),
]


@pytest.mark.parametrize(("column", "value"), PORTABLE)
def test_a_value_comes_back_as_it_was(contract, column, value):
    kind, back = there_and_back(contract, column, value)
    assert kind == type(value).__name__
    assert back == value or (back != back and value != value)
    assert there_and_back(contract, column, value, many=True) == (kind, back) or back != back


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("a_text", "Colour.RED", "red"),
        ("a_date", "Colour.DATED", date(2026, 1, 1)),
        ("a_decimal", "Colour.PRICED", Decimal("1.5")),
        ("an_integer", "Size.BIG", 3),
        ("a_text", "Name.ADA", "ada"),
        ("some_bytes", "bytearray(b'x')", b"x"),
        ("some_bytes", "memoryview(b'x')", b"x"),
        ("a_document", "(1, 2)", [1, 2]),
        ("a_document", "[Colour.RED.value, (1, 2), {'a': Decimal('1.5')}]", ["red", [1, 2], {"a": "1.5"}]),
        ("a_document", "{'at': date(2026, 1, 1)}", {"at": "2026-01-01"}),
        ("a_decimal", "5", Decimal(5)),
        ("a_float", "5", 5.0),
        ("a_naive_time", "datetime(2026, 2, 28, 12, 30, tzinfo=UTC)", None),
        ("an_instant", "datetime(2026, 2, 28, 12, tzinfo=timezone(timedelta(hours=-3)))", None),
        ("a_text", "UUID(int=5)", "00000000-0000-0000-0000-000000000005"),
        ("a_text", "date(2026, 1, 2)", "2026-01-02"),
    ],
)
def test_values_that_are_kept_as_something_else(contract, column, value, expected):
    _, found = there_and_back(contract, column, Source(value))
    if expected is not None:
        assert found == expected
    elif column == "an_instant":
        assert found == datetime(2026, 2, 28, 15, tzinfo=UTC)
    else:
        assert found.replace(tzinfo=None) == datetime(2026, 2, 28, 12, 30)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("an_integer", "2**63"),
        ("an_integer", "-(2**63) - 1"),
        ("an_integer", "10**5000"),
        ("a_text", "'a\\ud800b'"),
        ("an_instant", "datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))"),
        ("a_decimal", "Decimal('1E+9999999999')"),
    ],
)
def test_a_value_that_cannot_be_kept_is_refused(contract, column, value):
    for many in (False, True):
        with pytest.raises(ValueOutOfRange) as raised:
            there_and_back(contract, column, Source(value), many=many)
        assert raised.value.status == 422
    assert there_and_back(contract, "a_text", "fine") == ("str", "fine")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("a_text", "'a\\0b'"),
        ("a_text", "'ü\\0'"),
        ("an_integer", "'1\\0'"),
        ("some_bytes", "'\\0'"),
    ],
)
def test_postgres_has_no_nul_in_text(postgres_contract, column, value):
    for many in (False, True):
        with pytest.raises(ValueOutOfRange):
            there_and_back(postgres_contract, column, Source(value), many=many)


@pytest.mark.parametrize("value", ["object()", "{1, 2}", "Ellipsis", "Note(1)", "int", "1j"])
def test_a_value_of_no_known_kind_is_a_mistake_of_the_function(contract, value):
    def body(tx, app, value):
        value = eval(value, vars(app))
        tx.execute("insert into portable (id) values (1)")
        try:
            tx.execute("update portable set a_text = :value", value=value)
        except TypeError as error:
            return str(error), tx.execute("select id from portable").scalars()

    said, ids = contract.run(body, value=value)
    assert said.endswith("cannot be a parameter of a statement")
    assert ids == [1]


def test_values_compare_and_sort_as_values(contract):
    def body(tx, app):
        rows = [{"id": id, "price": Decimal(price)} for id, price in enumerate(("9.5", "10", "100.25"))]
        tx.execute_many("insert into portable (id, a_decimal) values (:id, :price)", rows)
        zones = [timezone(timedelta(hours=hours)) for hours in (-11, 0, 5, 14)]
        instants = [datetime(2026, 1, 1, 12, tzinfo=zone) for zone in zones]
        for id, at in enumerate(instants, start=10):
            tx.execute("insert into portable (id, an_instant) values (:id, :at)", id=id, at=at)
        ordered = tx.execute("select an_instant from portable where an_instant is not null order by an_instant")
        return (
            tx.execute("select id from portable where a_decimal > :least order by id", least=Decimal("9.75")).scalars(),
            bool(tx.execute("select sum(a_decimal) > :limit from portable", limit=Decimal("119.5")).scalar()),
            bool(tx.execute("select sum(a_decimal) > :limit from portable", limit=Decimal("119.75")).scalar()),
            ordered.scalars() == sorted(instants),
            tx.execute("select count(*) from portable where an_instant > :at", at=instants[2]).scalar(),
        )

    assert contract.run(body) == ([1, 2], True, False, True, 2)


# What only PostgreSQL has. psycopg, with the settings of our connections, is the reference.


@pytest.fixture(scope="module")
def reference(databases, opened_contracts):
    """The value that psycopg reads for an expression of SQL, with its parameters."""
    opened_contracts("beside")  # which makes the types
    access = Access(databases("beside")[0].args[0])
    link = access.open()
    connection = link.connection
    for name, base in {"mood": None, "consent": 16, "moment": 1184, "percentage": 23}.items():
        found = TypeInfo.fetch(connection, name)
        register_array(TypeInfo(name, base or found.oid, found.array_oid), connection)
    for name in READ_AS_TEXT:
        connection.adapters.register_loader(name, TextLoader)

    def read(statement: str, *parameters: Any) -> Any:
        row = connection.execute(statement.encode(), parameters).fetchone()
        assert row is not None
        return row[0]

    yield read
    link.close()
    access.close()


def read_by_function(contract, statement, **parameters):
    def body(tx, app, statement, parameters):
        return [tx.execute(statement, **parameters).scalar() for _ in range(2)]

    first, second = contract.run(body, statement=statement, parameters=parameters)
    assert same(first, second)
    return second


def same(one: Any, other: Any) -> bool:
    """Equal, of one type, at the same offset from UTC, and not a number where the other is none."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime | time):
        return one == other and one.utcoffset() == other.utcoffset()
    if isinstance(one, float | Decimal) and one != one:
        return bool(other != other)
    return bool(one == other) and repr(one) == repr(other)


LITERALS = {
    "smallint": ["-32768", "32767"],
    "integer": ["0"],
    "bigint": ["-9223372036854775808"],
    "oid": ["4294967295"],
    "real": ["0.1", "1e-45", "3.4028235e38", "nan", "-infinity", "16777216", "1234567.9", "-0"],
    "double precision": ["0.1", "nan", "infinity", "-0", "1e-300"],
    "numeric": ["1.10", "nan", "infinity", "-infinity", "0.00", "1e40", "123456789012345678901234567890.123456789"],
    "numeric(10,2)": ["1", "99999999.99"],
    "money": ["1.5"],
    "text": ["", "ä\n'"],
    "varchar(5)": ["abc"],
    "character(4)": ["ab", ""],
    '"char"': ["x"],
    "name": ["abc"],
    "bytea": ["\\x", "\\x00ff5c", "abc\\\\ \\001"],
    "boolean": ["t", "off"],
    "date": ["2026-02-28", "0001-01-01", "9999-12-31"],
    "time": ["00:00", "23:59:59.999999"],
    "timetz": ["12:30+05:30", "00:00-11", "01:02:03.000004+00"],
    "timestamp": ["2026-02-28 12:30", "0001-01-01 00:00:00.000001"],
    "timestamptz": ["2026-02-28 12:30+05:30", "0001-01-01 00:00+00", "9999-12-31 23:59:59.999999+00"],
    "interval": [
        "1 year 2 mons 3 days 04:05:06.789", "-1 year", "-1 mon +3 days -00:00:00.000001", "0", "100:00:00",
        "-00:00:01.5", "1 day -04:00", "-3 days +04:00", "25 years -13 mons", "00:00:00.1",
    ],
    "uuid": ["12345678-1234-5678-1234-567812345678"],
    "json": ["{\"a\": [1, 1.5, null, \"\\u00e4\"]}", "5", "null", "\"x\"", "[]", "1e400"],
    "jsonb": ["{\"b\": {\"a\": 1e5}}", "false", "null", "123456789012345678901234567890"],
    "integer[]": ["{}", "{1,null,3}", "{{1,2},{3,4}}", "[0:1]={5,6}", "{{{1}},{{null}}}"],
    "text[]": ["{}", "{a,NULL,\"NULL\",\"\",\"a,b\",\"{\\\"}\",\"\\\\\"}"],
    "bytea[]": ["{\"\\\\x00ff\",null}"],
    "boolean[]": ["{t,f,null}"],
    "real[]": ["{0.1,null,nan}"],
    "numeric[]": ["{1.10,nan}"],
    "date[]": ["{2026-02-28,null}"],
    "timetz[]": ["{12:30+05:30}"],
    "timestamp[]": ["{2026-02-28 12:30}"],
    "timestamptz[]": ["{2026-02-28 12:30+05:30,null}"],
    "interval[]": ["{1 day,-1 mon}"],
    "uuid[]": ["{12345678-1234-5678-1234-567812345678}"],
    "json[]": ["{\"{\\\"a\\\": 1}\",null,\"null\",\"[1]\"}"],
    "jsonb[]": ["{\"[1, [2]]\",\"5\"}"],
    "inet": ["10.0.0.1", "::1/64"],
    "inet[]": ["{10.0.0.1}"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(3)": ["101"],
    "varbit": ["10101"],
    "int4range": ["[1,5)", "empty"],
    "tstzrange": ["[2026-01-01,)"],
    "int4range[]": ["{\"[1,5)\"}"],
    "int4multirange": ["{[1,5)}"],
    "point": ["(1,2)"],
    "xml": ["<a/>"],
    "tsvector": ["a b"],
    "regclass": ["pg_class"],
    "mood": ["so so"],
    "mood[]": ["{sad,\"so so\",null}"],
    "percentage": ["50"],
    "consent": ["t"],
    "consent[]": ["{t,f,null}"],
    "moment": ["2026-02-28 12:30+05:30"],
    "moment[]": ["{2026-02-28 12:30+05:30}"],
    "tags": ["{a,\"b c\"}"],
    "information_schema.cardinal_number": ["5"],
    "information_schema.yes_or_no": ["YES"],
}  # fmt: skip


@pytest.mark.parametrize("kind", LITERALS)
def test_a_value_of_any_type_is_what_psycopg_makes_of_it(postgres_contract, reference, kind):
    for literal in (*LITERALS[kind], None):
        text = "null" if literal is None else "'" + literal.replace("'", "''") + "'"
        statement = f"select {text}::{kind} as value"
        found, expected = read_by_function(postgres_contract, statement), reference(statement)
        assert same(found, expected), (literal, found, expected)


@pytest.mark.parametrize(
    "value",
    [
        "'infinity'::date", "'4713-01-01 BC'::date", "'10000-01-01'::date", "'-infinity'::timestamptz",
        "'10000-01-01'::timestamp", "'0044-03-15 BC'::timestamptz", "'24:00'::time", "array['infinity'::date]",
        "interval '1000000000 days'",
    ],
)  # fmt: skip
def test_a_time_that_python_does_not_have_is_refused(postgres_contract, value):
    with pytest.raises(ValueOutOfRange):
        read_by_function(postgres_contract, f"select {value} as value")
    assert read_by_function(postgres_contract, "select 1 as value") == 1


@pytest.mark.parametrize("value", ["row(1, 'a')", "row('x', 'sad')::point_of_view", "n", "array[row(1, 2)]"])
def test_a_row_in_a_column_is_refused(postgres_contract, value):
    postgres_contract.look("insert into notes (id) values (1)")

    def body(tx, app, statement):
        return app.attempt(lambda: tx.execute(statement)), tx.execute("select to_jsonb(n) from notes n").scalar()

    refused = ("RuleBroken", {"id": 1, "note": None})
    assert postgres_contract.run(body, statement=f"select {value} as value from notes n") == refused


TEXT = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
SENT = {
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "real": st.floats(width=32),
    "double precision": st.floats(),
    "numeric": st.decimals(allow_nan=False) | st.just(Decimal("NaN")),
    "text": st.text(TEXT),
    "bytea": st.binary(),
    "boolean": st.booleans(),
    "date": st.dates(),
    "time": st.times(),
    "timetz": st.times(timezones=st.builds(timezone, st.builds(timedelta, minutes=st.integers(-900, 900)))),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(
        min_value=datetime(1, 1, 3),  # noqa: DTZ001
        max_value=datetime(9999, 12, 29),  # noqa: DTZ001
        timezones=st.builds(timezone, st.builds(timedelta, minutes=st.integers(-900, 900))),
    ),
    "interval": st.timedeltas(timedelta(days=-(10**7)), timedelta(days=10**7)),
    "uuid": st.uuids(),
    "mood": st.sampled_from(["sad", "so so", "happy"]),
    "percentage": st.integers(0, 100),
    "consent": st.booleans(),
    "moment": st.datetimes(
        min_value=datetime(1, 1, 3),  # noqa: DTZ001
        max_value=datetime(9999, 12, 29),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
}
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\"\\'", max_size=3), inner, max_size=3),
    max_leaves=8,
)
JSON_TYPES = {"json": Json, "jsonb": Jsonb}


@pytest.mark.parametrize("kind", [*SENT, *JSON_TYPES])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_a_value_that_is_sent_is_what_psycopg_sends(postgres_contract, reference, kind, data):
    """One, null, a list of them, and a list of lists."""
    values: list[Any]
    if kind in JSON_TYPES:
        values = data.draw(st.lists(st.dictionaries(st.text(TEXT, max_size=3), DOCUMENTS), min_size=1, max_size=3))
        wrap = JSON_TYPES[kind]
    else:
        values = data.draw(st.lists(SENT[kind], min_size=1, max_size=4))
        wrap = None
    cases: list[tuple[Any, Any]] = [(value, kind) for value in (values[0], None)]
    cases += [(value, f"{kind}[]") for value in ([*values, None], [], [values, values[::-1]])]
    if kind in JSON_TYPES:
        cases.append((values, kind))
    for value, type_ in cases:
        found = read_by_function(postgres_contract, f"select cast(:value as {type_}) as value", value=value)
        expected = reference(f"select cast(%s as {type_})", wrapped(value, wrap, whole=type_ == kind))
        assert same(found, expected), (value, found, expected)


def wrapped(value: Any, wrap: Any, *, whole: bool) -> Any:
    """What tells psycopg that a value is JSON."""
    if wrap is None or value is None:
        return value
    if whole or isinstance(value, dict):
        return wrap(value)
    return [wrapped(item, wrap, whole=False) for item in value]


def test_lists_are_what_their_parameter_is(postgres_contract):
    def body(tx, app):
        document = [1, {"a": [2, None]}, "x"]
        return (
            tx.execute("select cast(:d as jsonb)", d=document).scalar(),
            tx.execute("select cast(:d as json)", d=document).scalar(),
            tx.execute(
                "insert into portable (id, a_document) values (1, :d) returning a_document", d=document
            ).scalar(),
            tx.execute("select cast(:d as jsonb[])", d=[{"a": 1}, None, {"b": []}]).scalar(),
            tx.execute("select cast(:t as tags)", t=("a", "b c")).scalar(),
            tx.execute("select cast(:m as mood[])", m=["sad", None]).scalar(),
            tx.execute("select count(*) from counters where name = any(:names)", names=["a", "b", "z"]).scalar(),
            tx.execute_many(
                "insert into notes (id) select unnest(cast(:ids as integer[]))", [{"ids": [1, 2]}, {"ids": []}]
            ),
            app.attempt(lambda: tx.execute("select cast(:n as integer)", n=[1])),
            app.attempt(lambda: tx.execute("select cast(:n as integer[])", n=[[1], [2, 3]])),
            app.attempt(lambda: tx.execute("select cast(:n as integer[])", n=["x"])),
            app.attempt(lambda: tx.execute("select cast(:n as integer[])", n=5)),
            tx.execute("select cast(:n as integer[])", n="{5,6}").scalar(),
            app.attempt(lambda: tx.execute("select cast(:n as text[])", n=["a\0b"])),
            app.attempt(lambda: tx.execute("select cast(:n as json)", n=["\ud800"])),
            app.attempt(lambda: tx.execute("select cast(:n as percentage)", n=101)),
            app.attempt(lambda: tx.execute("select cast(:n as mood)", n="angry")),
        )

    document = [1, {"a": [2, None]}, "x"]
    assert postgres_contract.run(body) == (
        document, document, document, [{"a": 1}, None, {"b": []}], ["a", "b c"], ["sad", None], 2, 2, "DatabaseError",
        "DatabaseError", "DatabaseError", "DatabaseError", [5, 6], "ValueOutOfRange", "ValueOutOfRange",
        "ConstraintViolated", "DatabaseError",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["true", "yes", "of", "tr", "1", "0", " ON ", "x", "", "5"])
def test_text_for_a_boolean_is_read_by_the_server(postgres_contract, reference, text):
    def body(tx, app, text):
        try:
            return tx.execute("select cast(:text as boolean)", text=text).scalar()
        except app.DatabaseError as error:
            return error.message.split(" in: ")[0]

    try:
        expected = reference("select cast(%s as boolean)", text)
    except psycopg.errors.InvalidTextRepresentation as error:
        expected = error.diag.message_primary
    assert postgres_contract.run(body, text=text) == expected


@pytest.mark.parametrize("text", ["\\x00ff", "\\xzz", "abc", "a\\\\b", "\\001", "\\9"])
def test_text_for_bytes_is_read_by_the_server(postgres_contract, reference, text):
    def body(tx, app, text):
        try:
            return tx.execute("select cast(:text as bytea)", text=text).scalar()
        except app.DatabaseError as error:
            return error.message.split(" in: ")[0]

    try:
        expected = reference("select cast(%s as bytea)", text)
    except psycopg.Error as error:
        expected = error.diag.message_primary
    assert postgres_contract.run(body, text=text) == expected


def test_a_parameter_without_a_context_is_text(postgres_contract):
    """As PostgreSQL has it for a literal; a cast says what it is."""

    def body(tx, app):
        return (
            tx.execute("select :n as n", n=5).scalar(),
            tx.execute("select cast(:n as integer) as n", n=5).scalar(),
            tx.execute("select cast(:n as integer) + :m as n", n=5, m=1).scalar(),
            app.attempt(lambda: tx.execute("select :n + :m", n=5, m=1)),
        )

    assert postgres_contract.run(body) == ("5", 5, 6, "DatabaseError")


def test_a_refused_value_leaves_the_transaction_usable(postgres_contract):
    def body(tx, app):
        app.write(tx, 1)
        for statement, value in (
            ("insert into notes (id) values (:value)", "x"),
            ("insert into notes (id) values (:value)", 2**40),
            ("insert into notes (id) values (:value)", "\0"),
            ("select cast(:value as date)", "infinity"),
            ("select cast(:value as varchar(2)) from missing", "abc"),
        ):
            app.attempt(lambda statement=statement, value=value: tx.execute(statement, value=value))
        return tx.execute("select id from notes").scalars()

    assert postgres_contract.run(body) == [1]
    with pytest.raises(InternalError):
        read_by_function(postgres_contract, "select cast(:value as integer)", value="x")
