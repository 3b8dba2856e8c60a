"""What comes of running something again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from traceback import format_exception_only
from typing import Any

from apiary.runtime.call import is_refusal
from apiary.runtime.errors import Error, InternalError
from apiary.runtime.session import Call


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a call or a workflow came to with the code of now, as far as is recorded.

    `status`: `ok` with its `result`; `raised` with the `error`; and for workflows `waiting`, where it goes on behind
    what is recorded, or `continues`, where it begins again. `recorded`: the status that it had in the record.
    `steps`: so many statements, or operations of a workflow, fit their records. `difference`: how the outcome is
    another one than that of the record; empty, where it is the same or the record has none.
    """

    status: str
    recorded: str
    steps: int
    result: Any = None
    error: BaseException | None = None
    difference: str = ""


class Unguarded:
    """No deadlines."""

    def begin(self, call: Call, seconds: float) -> None:
        """Nothing ends it."""

    def end(self) -> bool:
        """It was not ended."""
        return False


def unlike_output(run: Mapping[str, Any], output: bytes) -> str:
    """How a result differs from that of the record."""
    if run["output"] is None:
        return "" if run["error"] is None else f"it returned {_short(output.decode())}; then, {_told(run['error'])}"
    came, recorded = json.loads(output), json.loads(run["output"])
    if came == recorded or (isinstance(recorded, dict) and "apiary:omitted" in recorded):
        return ""
    return f"it returned {_short(output.decode())}; then, {_short(run['output'])}"


def unlike_error(run: Mapping[str, Any], error: BaseException) -> str:
    """How an error differs from that of the record."""
    said = f"it raised {type(error).__name__}: {error}"
    if run["error"] is None:
        return "" if run["output"] is None else f"{said}; then, it returned {_short(run['output'])}"
    recorded = json.loads(run["error"])
    if is_refusal(error):
        assert isinstance(error, Error)
        same = (error.code, error.message) == (recorded["code"], recorded["detail"])
    else:
        same = "".join(format_exception_only(error)).rstrip() in recorded.get("traceback", "")
    return "" if same else f"{said}; then, {_told(run['error'])}"


def _told(error: str) -> str:
    problem = json.loads(error)
    if problem["code"] == InternalError.code:
        return f"it raised {_short(problem['traceback'].rstrip().splitlines()[-1])}"
    return f"it failed with {problem['code']}: {_short(problem['detail'])}"


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"
