"""Numbers that JSON lacks, or that no float can hold: NaN, infinities, 1e999. Parsers let them pass."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

Place = tuple[str | int, ...]

LARGE_EXPONENT = re.compile(rb"[0-9.][eE]\+?[0-9]{3}")
MANY_DIGITS = 309
LARGE_NUMBER = re.compile(rb"[0-9]{%d}" % MANY_DIGITS)


class _NoNumber:
    def __init__(self, name: str) -> None:
        self.name = name


def no_number(body: bytes) -> tuple[Place, str] | None:
    """Where in a JSON text there is no number, though it is written like one, and how it is written.

    The text is parsed only where it looks as if there were one.
    """
    if (
        b"NaN" in body
        or b"Infinity" in body
        or LARGE_EXPONENT.search(body)
        or (len(body) >= MANY_DIGITS and LARGE_NUMBER.search(body))
    ):
        return next(_found(_parsed(body, _NoNumber)), None)
    return None


def read_json(text: str | bytes) -> Any:
    """What a JSON text says, such numbers as the text that they are, so that it can be written again."""
    return _parsed(text, str)


def _parsed(text: str | bytes, instead: Callable[[str], Any]) -> Any:
    def fraction(written: str) -> Any:
        number = float(written)
        return number if math.isfinite(number) else instead(written)

    return json.loads(text, parse_constant=instead, parse_float=fraction)


def _found(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    if isinstance(value, _NoNumber):
        yield place, value.name
    elif isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _found(item, (*place, name))
