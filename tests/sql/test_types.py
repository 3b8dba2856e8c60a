"""Arguments and results of functions as types of SQL."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

TYPES = """
import datetime as dt
import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Optional
from uuid import UUID

from pydantic import BaseModel, Field, NaiveDatetime, PlainSerializer, SecretStr


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1


@dataclass
class Point:
    x: int
    y: int = 0


class Line(BaseModel):
    points: list[Point]


def same(name, kind):
    def body(tx, value):
        tx.log(type(value).__name__)
        return value

    body.__name__ = body.__qualname__ = name
    body.__annotations__ = {"tx": Transaction, "value": kind, "return": kind}
    app.transaction(body)


KINDS = {
    "integer": int,
    "real": float,
    "text": str,
    "truth": bool,
    "amount": Decimal,
    "instant": dt.datetime,
    "local": NaiveDatetime,
    "day": dt.date,
    "clock": dt.time,
    "span": dt.timedelta,
    "identity": UUID,
    "blob": bytes,
    "colour": Colour,
    "size": Size,
    "choice": Literal["a", "b"],
    "positive": Annotated[int, Field(gt=0)],
    "named": NewType("Named", int),
    "maybe": Optional[int],
    "maybe_instant": Optional[dt.datetime],
    "point": Point,
    "line": Line,
    "anything": Any,
    "either": int | str,
    "mapping": dict[str, int],
    "matrix": list[list[int]],
    "integers": list[int],
    "texts": list[str],
    "amounts": list[Decimal],
    "instants": list[dt.datetime],
    "spans": list[dt.timedelta],
    "blobs": list[bytes],
    "days": set[dt.date],
    "holes": tuple[Optional[int], ...],
    "colours": list[Colour],
}
for name, kind in KINDS.items():
    same(name, kind)


@app.transaction
def defaults(
    tx: Transaction,
    a: int,
    b: int = 2,
    c: list[int] = [],
    d: dt.timedelta = dt.timedelta(days=-1, seconds=5),
    e: bytes = b"\\xff",
    f: Optional[str] = None,
    g: Optional[str] = "it's",
    h: Point = Point(1, 2),
    i: SecretStr = SecretStr("hidden"),
    j: int = None,
    k: Colour = Colour.RED,
    l: dt.datetime = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
    m: Decimal = Decimal("1.50"),
    n: list = None,
) -> list[str]:
    return [repr(value) for value in (a, b, c, d, e, f, g, h, i.get_secret_value(), j, k, l.isoformat(), m, n)]


@app.transaction
def keywords(tx: Transaction, a: int = 1, *, b: int, args: int = 0, TD: int = 0, answer: int = 0) -> list[int]:
    return [a, b, args, TD, answer]


@app.transaction
def seconds(tx: Transaction) -> Annotated[dt.timedelta, PlainSerializer(lambda span: span.total_seconds())]:
    return dt.timedelta(minutes=1)


@app.transaction
def nul(tx: Transaction) -> str:
    return "a\\0b"


@app.transaction
def nul_inside(tx: Transaction) -> dict[str, str]:
    return {"a": "a\\0b"}
"""


@pytest.fixture(scope="module")
def typed(module_database):
    assert module_database.deploy(TYPES, "kinds") == []
    return module_database


ROUND_TRIPS = [
    ("integer", "bigint", [0, -(2**63), 2**63 - 1]),
    ("real", "double precision", [0.1, -1e300, 5e-324, 3.0]),
    ("text", "text", ["", "it's", '"\\/\n\t', "naïve ☕ 🐝", "null"]),
    ("truth", "boolean", [True, False]),
    ("amount", "numeric", [Decimal("1.20"), Decimal("12345678901234567890.123456789"), Decimal("0.000")]),
    (
        "instant",
        "timestamp with time zone",
        [datetime(2024, 2, 29, 12, 30, 0, 123456, UTC), datetime(1, 1, 1, tzinfo=UTC)],
    ),
    ("local", "timestamp without time zone", [datetime(2024, 2, 29, 12, 30, 0, 5)]),  # noqa: DTZ001
    ("day", "date", [date(2024, 2, 29), date(9999, 12, 31)]),
    ("clock", "time without time zone", [time(0, 0), time(23, 59, 59, 999999)]),
    ("span", "interval", [timedelta(0), timedelta(days=-1, seconds=5, microseconds=7), timedelta(days=400, hours=3)]),
    ("identity", "uuid", [UUID(int=7)]),
    ("blob", "bytea", [b"", bytes(range(256))]),
    ("colour", "text", ["red"]),
    ("size", "bigint", [1]),
    ("choice", "text", ["b"]),
    ("positive", "bigint", [5]),
    ("named", "bigint", [5]),
    ("maybe", "bigint", [5, None]),
    ("maybe_instant", "timestamp with time zone", [None]),
    ("integers", "bigint[]", [[], [1, -2]]),
    ("texts", "text[]", [["a", 'b"\\,{}', "", "null", " "]]),
    ("amounts", "numeric[]", [[Decimal("1.20"), Decimal("12345678901234567890.5")]]),
    ("instants", "timestamp with time zone[]", [[datetime(2024, 2, 29, tzinfo=UTC)]]),
    ("spans", "interval[]", [[timedelta(days=1), timedelta(seconds=-1)]]),
    ("blobs", "bytea[]", [[b"\xff", b""]]),
    ("days", "date[]", [[date(2024, 2, 29)]]),
    ("holes", "bigint[]", [[1, None, 3]]),
    ("colours", "text[]", [["red", "blue"]]),
]
DOCUMENTS = [
    ("point", {"x": 1, "y": 2}),
    ("line", {"points": [{"x": 1, "y": 2}]}),
    ("anything", [1, "two", None, {"three": 3.5}]),
    ("either", "text"),
    ("either", 5),
    ("mapping", {"a": 1}),
    ("matrix", [[1, 2], [3]]),
]


@pytest.mark.parametrize(("name", "kind", "values"), ROUND_TRIPS, ids=[name for name, *_ in ROUND_TRIPS])
def test_a_value_comes_back_as_it_went(typed, name, kind, values):
    assert typed.one(f"select pg_get_function_result('kinds.{name}'::regproc)") == kind
    assert typed.one(f"select pg_get_function_arguments('kinds.{name}'::regproc)") == f"value {kind}"
    for value in values:
        found = typed.one(f"select kinds.{name}(%s::{kind})", value)
        assert (found, type(found)) == (value, type(value))
        assert not isinstance(value, Decimal) or str(found) == str(value)


@pytest.mark.parametrize(("name", "value"), DOCUMENTS)
def test_everything_else_is_json(typed, name, value):
    assert typed.one(f"select pg_get_function_result('kinds.{name}'::regproc)") == "jsonb"
    assert typed.one(f"select kinds.{name}(%s)", Jsonb(value)) == value


@pytest.mark.parametrize(
    ("call", "state"),
    [
        ("integer(null)", "AP400"),
        ("positive(0)", "AP400"),
        ("colour('green')", "AP400"),
        ("real('NaN')", "AP400"),
        ("real('infinity')", "AP400"),
        ("amount('NaN')", "AP400"),
        ("instant('infinity')", "AP400"),
        ("day('0044-03-15 BC')", "AP400"),
        ("clock('24:00')", "AP400"),
        ("span('178000000 years')", "AP400"),
        ("integers(array[1, null])", "AP400"),
        ("integers(array[[1], [2]])", "AP400"),
        ("point('{}')", "AP400"),
        ('point(\'{"x": "1"}\')', "AP400"),
        ("nul()", "AP422"),
        ("nul_inside()", "AP422"),
    ],
)
def test_what_does_not_fit_is_refused(typed, call, state):
    with pytest.raises(psycopg.Error) as caught:
        typed.ask(f"select kinds.{call}")
    assert caught.value.sqlstate == state


def test_the_function_gets_python_values(typed):
    typed.ask("delete from apiary_kinds.calls")
    typed.ask("select kinds.span('1 hour'), kinds.identity(gen_random_uuid()), kinds.colour('red'), kinds.blobs('{}')")
    lines = typed.ask("select lines::json -> 0 ->> 'message' from apiary_kinds.calls order by function")
    assert [line for (line,) in lines] == ["list", "Colour", "UUID", "timedelta"]
    assert typed.one("select input::json ->> 'value' from apiary_kinds.calls where function = 'span'") == "PT1H"


def test_months_and_years_have_days(typed):
    assert typed.one("select kinds.span('1 year 1 month 1 day')") == timedelta(days=396)


def test_defaults_are_those_of_the_function(typed):
    values = ["1", "2", "[]", repr(timedelta(days=-1, seconds=5)), repr(b"\xff"), "None", '"it\'s"', "Point(x=1, y=2)"]
    rest = ["'hidden'", "None", "<Colour.RED: 'red'>", "'2024-01-01T00:00:00+00:00'", "Decimal('1.50')", "None"]
    assert typed.one("select kinds.defaults(1)") == [*values, *rest]
    assert typed.one("select kinds.defaults(1, i => 'given', g => null, j => 5)")[6:10] == [
        "None",
        "Point(x=1, y=2)",
        "'given'",
        "5",
    ]


def test_parameters_with_defaults_come_last(typed):
    assert typed.one("select kinds.keywords(5)") == [1, 5, 0, 0, 0]
    assert typed.one('select kinds.keywords(b => 2, a => 3, args => 4, "TD" => 5, answer => 6)') == [3, 2, 4, 5, 6]


def test_a_result_that_is_written_in_another_way_is_json(typed):
    assert typed.one("select kinds.seconds()") == 60
