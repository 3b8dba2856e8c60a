"""What a record says of an exception, so that a workflow that runs again can catch it as it was raised."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from apiary.runtime.errors import Error, StepFailed, from_problem
from apiary.runtime.plain import plain, plain_text

OWN = {"traceback", "raised", "message", "arguments"}
"""Members of a recorded error that its caller is not told."""


def raised(cause: BaseException) -> dict[str, Any]:
    """What is recorded of an exception beside its problem document: its class and, unless it is ours, what it said."""
    kind = type(cause)
    found: dict[str, Any] = {"raised": f"{kind.__module__}:{kind.__qualname__}"}
    if not isinstance(cause, Error):
        found["message"] = plain_text(cause)
        found["arguments"] = plain(cause.args)
    return found


def told(error: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded error as the problem document that the caller gets."""
    return {name: value for name, value in error.items() if name not in OWN}


def revived(error: str) -> Exception:
    """The exception that a recorded error (JSON) was: of its own class where that is loaded, else of one like it.

    A class is made without its constructor, which may want anything.
    """
    found = json.loads(error)
    kind = _class(found.get("raised", ""))
    if "message" not in found:
        known = from_problem(told(found))
        if kind is not None and issubclass(kind, Error) and type(known) is not kind:
            other = kind.__new__(kind)
            Error.__init__(other, known.message, hint=known.hint, **known.details)
            other.code, other.call_id = known.code, known.call_id
            return other
        return known
    if kind is not None and issubclass(kind, Exception) and not issubclass(kind, Error):
        try:
            same = kind.__new__(kind, *found["arguments"])
            same.args = tuple(found["arguments"])
            return same
        except Exception:  # noqa: BLE001 - whatever a class of the user does when it is made
            pass
    return StepFailed(f"{found.get('raised', '').rpartition(':')[2]}: {found['message']}")


def _class(name: str) -> type[BaseException] | None:
    """A class of exceptions by its module and name, where that is loaded already."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None
