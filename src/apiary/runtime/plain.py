"""Makes anything a JSON value: what functions say in errors and log lines must be writable, whatever it holds.

And tells which JSON values are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 20
MAX_BITS = 64


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON has it: names are text, and what JSON cannot say becomes its `str`."""
    if value is None or isinstance(value, bool) or (type(value) is int and value.bit_length() < MAX_BITS):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {plain_text(name): plain(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(item, depth + 1) for item in value]
    return plain_text(value)


def plain_text(value: Any) -> str:
    """`value` as text that can be written: a lone surrogate in it becomes a question mark."""
    try:
        return str(value).encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - it is the user's `__str__`, and the error that it tells of matters more
        return f"<{type(value).__name__}>"


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: 1 and 1.0 are one number, true is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(item, other[name]) for name, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
