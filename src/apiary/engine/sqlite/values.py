"""Values between Python and SQLite, which knows integers, floats, text and blobs only.

What else Python has goes in as text, and comes out again by the type with which its column was declared. Times with
a zone are kept in UTC, so that their text sorts in the order of time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any
from uuid import UUID

Reader = Callable[[Any], Any]

MAX_EXPONENT = 400
"""Far beyond that of a float; Python's own arithmetic has a limit, too."""
EXACT_DIGITS = 15
MAX_INTEGER = 2**63
EXACT = frozenset({int, str, bytes, bool, type(None)})
"""What SQLite keeps as it is, whatever its value. (A float may be NaN.)"""
TEXTS_OF_BOOLEANS = {
    **dict.fromkeys(("t", "true", "y", "yes", "on", "1"), True),
    **dict.fromkeys(("f", "false", "n", "no", "off", "0"), False),
}


def bind(cursor: object, number: int, value: Any) -> Any:
    """APSW asks this for each parameter that SQLite has no type for."""
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        kept = value.value
        check_numbers((kept,))
        return kept if kept is None or isinstance(kept, int | float | str | bytes) else bind(cursor, number, kept)
    if isinstance(value, dict | list | tuple):
        return _json(value)
    raise TypeError(f"a {type(value).__name__} cannot be a parameter of a statement")


def check_numbers(values: Iterable[Any]) -> None:
    """`OverflowError` where one is not a number: SQLite would keep null in its place."""
    for value in values:
        if isinstance(value, float) and value != value:
            raise OverflowError("NaN would become null; say None where that is meant")


def native(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as SQLite is given them."""
    return {name: _native(value) for name, value in parameters.items()}


def _native(value: Any) -> Any:
    if type(value) in EXACT or type(value) is float:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind) and not isinstance(value, Enum):
            return kind(value)
    try:
        return bytes(memoryview(value))
    except TypeError:
        return _native(bind(None, 0, value))


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise OverflowError(f"a {type(value).__name__} is not JSON: {error}") from None


def _number(value: Decimal) -> int | float | str:
    """A decimal as a number, so that it compares with numbers, sums included. SQLite keeps 15 digits for certain."""
    if not value.is_finite():
        return str(value)
    if not value:
        return 0
    if abs(value.adjusted()) > MAX_EXPONENT:
        raise OverflowError("a decimal is beyond the range of a float; keep it as text: str(value)")
    if value == value.to_integral_value() and abs(value) < MAX_INTEGER:
        return int(value)
    if len(value.normalize().as_tuple().digits) > EXACT_DIGITS:
        raise OverflowError(f"{value} has more than {EXACT_DIGITS} digits; keep it as text: str(value)")
    number = float(value)
    if Decimal(repr(number)) != value:
        raise OverflowError(f"{value} is beyond the range of a float; keep it as text: str(value)")
    return number


def _decimal(value: Any) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is no number") from None


def _boolean(value: Any) -> bool:
    """Text as PostgreSQL reads it: a default is often written so."""
    return TEXTS_OF_BOOLEANS[value.strip().lower()] if isinstance(value, str) else bool(value)


READERS: dict[str, Reader] = {
    "timestamp": datetime.fromisoformat,
    "timestamptz": datetime.fromisoformat,
    "timestamp with time zone": datetime.fromisoformat,
    "timestamp without time zone": datetime.fromisoformat,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "uuid": UUID,
    "boolean": _boolean,
    "bool": _boolean,
    "json": json.loads,
    "jsonb": json.loads,
    "decimal": _decimal,
    "numeric": _decimal,
}
FROM_NUMBERS = ("boolean", "bool", "decimal", "numeric")


def column_readers(declared: Sequence[str | None]) -> list[tuple[int, Reader]]:
    """The columns whose values must be converted, by the declared types of all columns; none, most of the time."""
    found = []
    for position, kind in enumerate(declared):
        name = (kind or "").lower().split("(")[0].strip()
        reader = READERS.get(name)
        if reader is not None:
            found.append((position, _guarded(reader, name)))
    return found


def _guarded(reader: Reader, name: str) -> Reader:
    """Null stays null, and a value that is not of the declared type (SQLite allows that) stays as it is."""
    accepted = (int, float, str) if name in FROM_NUMBERS else (str,)

    def read(value: Any) -> Any:
        if not isinstance(value, accepted):
            return value
        try:
            return reader(value)
        except (ValueError, KeyError):
            return value

    return read


def convert(rows: list[tuple[Any, ...]], readers: Sequence[tuple[int, Reader]]) -> list[tuple[Any, ...]]:
    """The rows with the given columns converted."""
    converted = []
    for row in rows:
        values = list(row)
        for position, reader in readers:
            values[position] = reader(values[position])
        converted.append(tuple(values))
    return converted
