"""Makes anything a JSON value: what functions say in errors and log lines must be writable, whatever it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 20


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON has it: names are text, and what JSON cannot say becomes its `str`."""
    if value is None or isinstance(value, bool) or type(value) in (int, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {_text(name): plain(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(item, depth + 1) for item in value]
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - it is the user's `__str__`, and the error that it tells of matters more
        return f"<{type(value).__name__}>"
