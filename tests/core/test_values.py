"""The engine contract: values of Python go into the database and come out as they were."""

import enum
import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apiary import InternalError, Transaction, ValueOutOfRange

COLUMNS = {
    "an_integer": "bigint",
    "a_float": "double precision",
    "a_text": "text",
    "some_bytes": "blob",
    "a_bool": "boolean",
    "a_date": "date",
    "a_time": "time",
    "a_naive_time": "timestamp",
    "an_instant": "timestamptz",
    "a_decimal": "numeric",
    "an_id": "uuid",
    "a_document": "json",
}
TABLES = "create table kinds (" + ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items()) + ")"


class Colour(enum.Enum):
    RED = "red"
    DATED = date(2026, 1, 1)
    PRICED = Decimal("1.5")


class Missing(enum.Enum):
    NUMBER = float("nan")


class Size(enum.IntEnum):
    BIG = 3


class Name(enum.StrEnum):
    ADA = "ada"


@pytest.fixture
def inside(make_app, sqlite_app):
    app = make_app(TABLES)
    body = None
    result = None

    @app.transaction
    def run_it(tx: Transaction) -> None:
        nonlocal result
        tx.execute("delete from kinds")
        result = body(tx)

    opened = sqlite_app(app)

    def run(function):
        nonlocal body
        body = function
        try:
            opened.call(run_it)
        except InternalError as error:
            raise error.__cause__ or error from None
        return result

    return run


@pytest.fixture
def there_and_back(inside):
    def run(column, value):
        def body(tx):
            tx.execute(f"insert into kinds ({column}) values (:value)", value=value)
            return tx.execute(f"select {column} from kinds").scalar()

        return inside(body)

    return run


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("an_integer", 0),
        ("an_integer", 2**63 - 1),
        ("an_integer", -(2**63)),
        ("a_float", 0.1),
        ("a_float", float("inf")),
        ("a_float", 5e-324),
        ("a_text", ""),
        ("a_text", "größe 😀 \u2028 \x00 after"),
        ("a_text", "'; drop table kinds; --"),
        ("a_text", "x" * 1_000_000),
        ("some_bytes", b""),
        ("some_bytes", bytes(range(256))),
        ("a_bool", True),
        ("a_bool", False),
        ("a_date", date(2026, 2, 28)),
        ("a_date", date.min),
        ("a_time", time(23, 59, 59, 999999)),
        ("a_naive_time", datetime(2026, 2, 28, 12, 30)),  # noqa: DTZ001
        ("a_naive_time", datetime(2026, 2, 28, 12, 30, 1, 5)),  # noqa: DTZ001
        ("an_instant", datetime(2026, 2, 28, 12, 30, tzinfo=UTC)),
        ("an_instant", datetime(2026, 2, 28, 12, 30, tzinfo=timezone(timedelta(hours=5, minutes=45)))),
        ("a_decimal", Decimal("19.99")),
        ("a_decimal", Decimal("-0.000001")),
        ("a_decimal", Decimal(10**15)),
        ("a_decimal", Decimal(7)),
        ("a_decimal", Decimal("1E+300")),
        ("a_decimal", Decimal("-1.5E-300")),
        ("an_id", UUID("00000000-0000-0000-0000-000000000000")),
        ("an_id", UUID("12345678-1234-5678-1234-567812345678")),
        ("a_document", {"a": [1, None, True, "ü"], "b": {"c": 1.5}}),
        ("a_document", []),
        *((column, None) for column in COLUMNS),
    ],
)
def test_a_value_comes_back_as_it_was(there_and_back, column, value):
    back = there_and_back(column, value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("a_text", Colour.RED, "red"),
        ("a_date", Colour.DATED, date(2026, 1, 1)),
        ("a_decimal", Colour.PRICED, Decimal("1.5")),
        ("an_integer", Size.BIG, 3),
        ("a_text", Name.ADA, "ada"),
        ("some_bytes", bytearray(b"x"), b"x"),
        ("a_document", (1, 2), [1, 2]),
        ("a_document", {"at": date(2026, 1, 1)}, {"at": "2026-01-01"}),
        ("a_decimal", 5, Decimal(5)),
        ("a_decimal", Decimal("0E+9999999999"), Decimal(0)),
    ],
)
def test_values_that_are_kept_as_something_else(there_and_back, column, value, expected):
    assert there_and_back(column, value) == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("an_integer", 2**63),
        ("an_integer", -(2**63) - 1),
        ("a_text", "\ud800"),
        ("a_decimal", Decimal("12345678901234567.89")),
        ("a_decimal", Decimal("1E+400")),
        ("a_decimal", Decimal("-1E+400")),
        ("a_decimal", Decimal("1E-400")),
        ("a_decimal", Decimal("1E+9999999999")),
        ("a_decimal", Decimal("1E-9999999999")),
        ("a_decimal", Decimal("1.23456789012345E-320")),
        ("a_float", float("nan")),
        ("a_float", Missing.NUMBER),
        ("a_document", {"a": [float("nan")]}),
        ("a_document", [float("inf")]),
    ],
)
def test_a_value_that_cannot_be_kept_is_refused(make_app, sqlite_app, column, value):
    app = make_app(TABLES)

    @app.transaction
    def put(tx: Transaction) -> None:
        tx.execute(f"insert into kinds ({column}) values (:value)", value=value)

    @app.transaction
    def put_many(tx: Transaction) -> None:
        tx.execute_many(f"insert into kinds ({column}) values (:value)", [{"value": value}])

    opened = sqlite_app(app)
    for function in (put, put_many):
        with pytest.raises(ValueOutOfRange) as raised:
            opened.call(function.name)
        assert raised.value.status == 422


@pytest.mark.parametrize("value", [object(), {1, 2}, timedelta(1), Ellipsis])
def test_a_value_of_no_known_kind_is_a_mistake_of_the_function(there_and_back, value):
    with pytest.raises(TypeError, match="cannot be a parameter"):
        there_and_back("a_text", value)


def test_decimals_compare_with_numbers(inside):
    def body(tx):
        rows = [{"price": Decimal(price)} for price in ("9.5", "10", "100.25")]
        tx.execute_many("insert into kinds (a_decimal) values (:price)", rows)
        found = tx.execute(
            "select a_decimal from kinds where a_decimal > :least order by a_decimal", least=Decimal("9.75")
        )
        over = tx.execute("select sum(a_decimal) > :limit from kinds", limit=Decimal("119.5")).scalar()
        under = tx.execute("select sum(a_decimal) > :limit from kinds", limit=Decimal("119.75")).scalar()
        return found.scalars(), bool(over), bool(under)

    assert inside(body) == ([Decimal(10), Decimal("100.25")], True, False)


def test_instants_sort_in_the_order_of_time(inside):
    zones = [timezone(timedelta(hours=hours)) for hours in (-11, 0, 5, 14)]
    instants = [
        datetime(2026, 1, 1, 12, tzinfo=zone) + timedelta(milliseconds=step) for zone in zones for step in range(3)
    ]

    def body(tx):
        tx.execute_many("insert into kinds (an_instant) values (:at)", [{"at": at} for at in instants])
        sorted_ = tx.execute("select an_instant from kinds order by an_instant").scalars()
        later = tx.execute("select count(*) from kinds where an_instant > :at", at=instants[4]).scalar()
        return sorted_, later

    found, later = inside(body)
    assert found == sorted(instants)
    assert later == sum(at > instants[4] for at in instants)


def test_what_a_column_holds_against_its_type_comes_out_as_it_is(inside):
    def body(tx):
        columns = "a_date, an_id, a_document, a_decimal, a_bool"
        tx.execute(f"insert into kinds ({columns}) values ('soon', 5, 'no json', 'n/a', 'perhaps')")
        return tuple(tx.execute(f"select {columns} from kinds").one())

    assert inside(body) == ("soon", 5, "no json", "n/a", "perhaps")


def test_text_in_a_boolean_column_is_read_as_postgres_reads_it(inside):
    """A default is often written so: `boolean default 'false'`."""

    def body(tx):
        tx.execute_many("insert into kinds (a_bool) values (:text)", [{"text": text} for text in texts])
        return tx.execute("select a_bool from kinds order by rowid").scalars()

    texts = ["false", "F", "no", "off", " 0", "true", "T", "yes", "On", "1"]
    assert inside(body) == [False] * 5 + [True] * 5


VALUES = {
    "an_integer": st.integers(-(2**63), 2**63 - 1),
    "a_float": st.floats(allow_nan=False),
    "a_text": st.text(),
    "some_bytes": st.binary(),
    "a_bool": st.booleans(),
    "a_date": st.dates(),
    "a_time": st.times(),
    "a_naive_time": st.datetimes(),
    "an_instant": st.datetimes(
        min_value=datetime(1, 1, 3),  # noqa: DTZ001
        max_value=datetime(9999, 12, 29),  # noqa: DTZ001
        timezones=st.timezones(),
    ),
    "a_decimal": st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**10), max_value=10**10),
    "an_id": st.uuids(),
    "a_document": st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).filter(lambda value: isinstance(value, list | dict)),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_row_of_values_comes_back(inside, data):
    row = {name: data.draw(st.none() | kind, label=name) for name, kind in VALUES.items()}
    if row["an_instant"] is not None:
        row["an_instant"] = row["an_instant"].astimezone(UTC)  # zones with gaps have times that equal no other

    def body(tx):
        names = ", ".join(row)
        places = ", ".join(f":{name}" for name in row)
        tx.execute(f"insert into kinds ({names}) values ({places})", **row)
        return dict(tx.execute("select * from kinds").one())

    assert inside(body) == row


def test_results_travel_as_json(make_app, sqlite_app, platform):
    app = make_app(TABLES)

    @app.query
    def rows(tx: Transaction):
        return tx.execute("select 1 as a, 'x' as b union all select 2, null").all()

    @app.query
    def row(tx: Transaction):
        return {"row": tx.execute("select 1 as a").one()}

    opened = platform(sqlite_app(app))
    assert json.loads(opened.run("rows").output) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert json.loads(opened.run("row").output) == {"row": {"a": 1}}
