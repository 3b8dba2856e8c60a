"""Values between Python and PostgreSQL as text, the same in a backend and beside it. Standard library only.

Parameters travel as text, whose type the server infers, as psycopg sends strings. Results become what psycopg makes of
them: integers, floats, Decimal, bool, bytes, UUID, dates and times, parsed JSON, lists; anything else is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from apiary.runtime.errors import ValueOutOfRange

Reader = Callable[[Any], Any]

BOOL, BYTEA, TEXT, JSON, JSONB = 16, 17, 25, 114, 3802

ARRAYS = {
    1000: BOOL, 1001: BYTEA, 1005: 21, 1007: 23, 1016: 20, 1021: 700, 1022: 701, 1231: 1700, 1009: TEXT, 1014: 1042,
    1015: 1043, 1003: 19, 1028: 26, 2951: 2950, 199: JSON, 3807: JSONB, 1115: 1114, 1185: 1184, 1182: 1082, 1183: 1083,
    1270: 1266, 1187: 1186,
}  # fmt: skip
"""The type of the elements of an array type, by OID, for the types of `READERS` and those that Python knows anyway."""


def parameter(value: Any) -> Any:
    """A value as text for the server; lists stay lists, because only their type tells how they are written.

    `TypeError` for what is no value.
    """
    kind = type(value)
    if value is None or kind is str or kind is list:
        return value
    write = WRITERS.get(kind) or next((WRITERS[base] for base in kind.__mro__ if base in WRITERS), None)
    if write is None:
        raise TypeError(f"a {kind.__name__} cannot be a parameter of a statement")
    return write(value)


def _span(value: timedelta) -> str:
    return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"


def _hex(value: bytes | bytearray | memoryview) -> str:
    return "\\x" + bytes(value).hex()


def as_json(value: Any) -> str:
    """A dict or list for a json column."""
    return json.dumps(value, default=str, ensure_ascii=False)


def as_array(value: Sequence[Any]) -> str:
    """A list as the text of an array."""
    return "{" + ",".join(map(_element, value)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return as_array(value)
    text: str = parameter(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


WRITERS: dict[type, Callable[[Any], Any]] = {
    Enum: lambda value: parameter(value.value),
    bool: lambda value: "true" if value else "false",
    int: int.__repr__,
    float: float.__repr__,
    str: str.__str__,
    Decimal: str,
    UUID: str,
    datetime: lambda value: value.isoformat(" "),
    date: date.isoformat,
    time: time.isoformat,
    timedelta: _span,
    bytes: _hex,
    bytearray: _hex,
    memoryview: _hex,
    dict: as_json,
    list: list,
    tuple: list,
}
"""How a value is written, by its class or the first of its bases that is here."""


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _beyond(text) from None


def _datetime(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _beyond(text) from None
    return found if found.tzinfo is None else found.astimezone(UTC)


def _time(text: str) -> time:
    return time.max if text.startswith("24:") else time.fromisoformat(text)


def _beyond(text: str) -> ValueOutOfRange:
    return ValueOutOfRange(f"{text!r} is a time that Python cannot hold")


INTERVAL = re.compile(
    r"(?:(-?\d+) years? ?)?(?:(-?\d+) mons? ?)?(?:(-?\d+) days? ?)?(?:(-?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?)?\Z"
)
DAYS_OF_YEAR, DAYS_OF_MONTH = 365, 30


def _interval(text: str) -> timedelta:
    """An interval in style `postgres`; years and months have 365 and 30 days, as psycopg counts them."""
    match = INTERVAL.match(text.replace("+", ""))
    if match is None:
        raise _beyond(text)
    years, months, days, sign, hours, minutes, seconds, fraction = match.groups()
    span = timedelta(
        hours=int(hours or 0),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0),
        microseconds=int((fraction or "0").ljust(6, "0")),
    )
    whole = int(years or 0) * DAYS_OF_YEAR + int(months or 0) * DAYS_OF_MONTH + int(days or 0)
    return timedelta(days=whole) + (-span if sign else span)


READERS: dict[int, Reader] = {
    2950: UUID,
    JSON: json.loads,
    JSONB: json.loads,
    1114: _datetime,
    1184: _datetime,
    1082: _date,
    1083: _time,
    1266: _time,
    1186: _interval,
}
"""What becomes of the text of a type, by its OID."""


def reader(oid: int) -> Reader | None:
    """What makes a Python value of what PL/Python gives for a column of this type; `None` where it is one already."""
    if oid in ARRAYS:
        element = READERS.get(ARRAYS[oid])
        return element and _deep(element)
    return READERS.get(oid)


def _deep(element: Reader) -> Reader:
    def read(values: Any) -> Any:
        return [
            value if value is None else read(value) if isinstance(value, list) else element(value) for value in values
        ]

    return read


def convert(rows: list[tuple[Any, ...]], readers: Sequence[tuple[int, Reader]]) -> list[tuple[Any, ...]]:
    """The rows with the given columns converted; null stays null."""
    converted = []
    for row in rows:
        values = list(row)
        for position, read in readers:
            if values[position] is not None:
                values[position] = read(values[position])
        converted.append(tuple(values))
    return converted
