"""Values between Python and PostgreSQL as text, the same in a backend and beside it. Standard library only.

Parameters travel as text, whose type the server infers, as psycopg sends strings. Results become what psycopg makes of
them: integers, floats, Decimal, bool, bytes, UUID, dates and times, parsed JSON, lists; anything else is text.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from apiary.engine.postgres import types
from apiary.runtime.errors import ValueOutOfRange

Reader = Callable[[Any], Any]


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


def check_text(value: str | None) -> None:
    """`ValueOutOfRange` for text that PostgreSQL cannot hold."""
    if value is None or (value.isascii() and "\0" not in value):
        return
    if "\0" in value:
        raise ValueOutOfRange("the database cannot hold text with a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueOutOfRange(f"the database cannot hold half a character: {error}") from None


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
    written: str | list[Any] | None = parameter(value)
    if written is None:
        return "NULL"
    if isinstance(written, list):
        return as_array(written)
    return '"' + written.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _integer(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError as error:
        raise ValueOutOfRange(f"the database cannot hold an integer of {value.bit_length()} bits") from error


def _instant(value: datetime) -> str:
    """In UTC, because PostgreSQL ignores the zone where it expects a time without one."""
    try:
        return (value if value.tzinfo is None else value.astimezone(UTC)).isoformat(" ")
    except OverflowError as error:
        raise ValueOutOfRange(f"the database cannot hold the time {value}: {error}") from None


WRITERS: dict[type, Callable[[Any], Any]] = {
    Enum: lambda value: parameter(value.value),
    bool: lambda value: "true" if value else "false",
    int: _integer,
    float: float.__repr__,
    str: str.__str__,
    Decimal: lambda value: "NaN" if value.is_nan() else str(value),
    UUID: str,
    datetime: _instant,
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
    return date.fromisoformat(text)


def _datetime(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is None else found.astimezone(UTC)


INTERVAL = re.compile(
    r"(?:(-?\d+) years? ?)?(?:(-?\d+) mons? ?)?(?:(-?\d+) days? ?)?(?:(-?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?)?\Z"
)
DAYS_OF_YEAR, DAYS_OF_MONTH = 365, 30


def _interval(text: str) -> timedelta:
    """An interval in style `postgres`; years and months have 365 and 30 days, as psycopg counts them."""
    match = INTERVAL.match(text.replace("+", ""))
    if match is None:
        raise ValueError(text)
    years, months, days, sign, hours, minutes, seconds, fraction = match.groups()
    span = timedelta(
        hours=int(hours or 0),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0),
        microseconds=int((fraction or "0").ljust(6, "0")),
    )
    whole = int(years or 0) * DAYS_OF_YEAR + int(months or 0) * DAYS_OF_MONTH + int(days or 0)
    return timedelta(days=whole) + (-span if sign else span)


def _single(value: float) -> float:
    """The shortest decimal number that a float of 32 bits stands for, as PostgreSQL writes it."""
    if not math.isfinite(value):
        return value
    return next(short for digits in range(1, 10) if _as_single(short := float(f"{value:.{digits}g}")) == value)


def _as_single(value: float) -> float:
    try:
        found: float = SINGLE.unpack(SINGLE.pack(value))[0]
    except OverflowError:  # rounded up beyond the largest there is
        return math.inf
    return found


SINGLE = struct.Struct("f")
READERS: dict[int, Reader] = {
    types.UUID: UUID,
    types.JSON: json.loads,
    types.JSONB: json.loads,
    types.TIMESTAMP: _datetime,
    types.TIMESTAMPTZ: _datetime,
    types.DATE: _date,
    types.TIME: time.fromisoformat,
    types.TIMETZ: time.fromisoformat,
    types.INTERVAL: _interval,
    types.FLOAT4: _single,
}
"""What becomes of what PL/Python gives for a type, by its OID: text, most of the time."""


def reader(kind: types.Kind) -> Reader | None:
    """What makes a Python value of what PL/Python gives for a column of this kind; `None` where it is one already.

    `ValueOutOfRange` where Python has no such value.
    """
    read = READERS.get(kind.base if kind.element is None else kind.element)
    if read is None:
        return None
    guarded = _guarded(read)
    return guarded if kind.element is None else _deep(guarded)


def _guarded(read: Reader) -> Reader:
    def guarded(value: Any) -> Any:
        try:
            return read(value)
        except (ValueError, OverflowError):
            raise ValueOutOfRange(f"{value!r} is a value that Python cannot hold") from None

    return guarded


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
