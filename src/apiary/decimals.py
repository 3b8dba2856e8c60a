"""Decimals that came as numbers in JSON, with more digits than a float holds: pydantic rounds them without a word."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from apiary.completeness import schemas_in
from apiary.finite import Place

MANY_DIGITS = re.compile(rb"[0-9.]{17}")


class _Rounded:
    def __init__(self, written: str) -> None:
        self.written = written


def has_decimals(schema: Any) -> bool:
    """Whether values of this core schema may be decimals."""
    return any(inner.get("type") == "decimal" for inner in schemas_in(schema))


def rounded(body: bytes, value: Any) -> tuple[Place, str] | None:
    """Where a decimal in `value`, which was read from `body`, is not the number that is written there."""
    if not MANY_DIGITS.search(body):
        return None
    return _rounded(read_exactly(body, _Rounded), value, ())


def read_exactly(text: str | bytes, instead: Callable[[str], Any]) -> Any:
    """What a JSON text says, with `instead` of its text for each number that a float would round."""

    def fraction(written: str) -> Any:
        number = float(written)
        try:
            return number if Decimal(repr(number)) == Decimal(written) else instead(written)
        except InvalidOperation:  # an exponent that no decimal has
            return instead(written)

    return json.loads(text, parse_float=fraction)


def _rounded(said: Any, value: Any, place: Place) -> tuple[Place, str] | None:
    if isinstance(said, _Rounded):
        return (place, said.written) if isinstance(value, Decimal) else None
    items = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    for name, inner in items:
        found = _rounded(inner, _part(value, name), (*place, name))
        if found is not None:
            return found
    return None


def _part(value: Any, name: str | int) -> Any:
    """The part of a value that was read from what has this name, or this number, in JSON."""
    if isinstance(name, int):
        return value[name] if isinstance(value, Sequence) and name < len(value) else None
    if isinstance(value, Mapping):
        return value.get(name)
    for field, declared in getattr(type(value), "model_fields", {}).items():
        if name in (declared.alias, declared.validation_alias):
            return getattr(value, field)
    return getattr(value, name, None)
