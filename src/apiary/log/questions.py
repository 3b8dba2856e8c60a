"""Questions about the log of one app, answered from its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from apiary.engine.places import Log
from apiary.finite import read_json
from apiary.log.workflows import workflow, workflow_end, workflows
from apiary.runtime.errors import NotFound
from apiary.runtime.ids import id_bytes, id_text

MAX_CALLS = 1000


def calls(
    log: Log,
    *,
    function: str | None = None,
    status: str | None = None,
    caller: str | None = None,
    before: int | None = None,
    after: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The calls that fit, the latest first, `limit` of them at most. `before` and `after` are sequence numbers."""
    rows = log.ask(
        "log_calls",
        {
            "function": function,
            "status": status,
            "caller": caller,
            "before": before,
            "after": after,
            "limit": max(1, min(limit, MAX_CALLS)),
        },
    )
    return [_summary(row) for row in rows]


def show(log: Log, *, call: str) -> dict[str, Any]:
    """Everything about one call: its record, its attempts, and the calls that it put into the queue."""
    try:
        identifier = id_bytes(call)
    except ValueError:
        raise NotFound(
            f"{call!r} is not the id of a call", hint="ids look like 0198f1c2-…: see `apiary log calls`"
        ) from None
    attempts = log.ask("log_call", {"id": identifier})
    if not attempts:
        raise NotFound(f"there is no call {call} in the log")
    row = attempts[-1]
    return {
        **_summary(row),
        "input": _json(row["input"]),
        "output": _json(row["output"]),
        "error": _json(row["error"]),
        "lines": _json(row["lines"]) or [],
        "nested": _json(row["nested"]) or [],
        "earlier_attempts": [_summary(attempt) for attempt in attempts[:-1]],
        "queued_calls": [_summary(child) for child in log.ask("log_queued", {"id": identifier})],
        "waiting_calls": [
            {"id": id_text(child["id"]), "function": child["function"]}
            for child in log.ask("log_waiting", {"id": identifier})
        ],
    }


def _summary(row: Mapping[str, Any]) -> dict[str, Any]:
    error = _json(row["error"])
    return {
        "seq": row["seq"],
        "id": id_text(row["id"]),
        "function": row["function"],
        "kind": row["kind"],
        "status": row["status"],
        "code": error.get("code") if error else None,
        "caller": row["caller"],
        "version": row["version"],
        "attempt": row["attempt"],
        "started": row["started"],
        "duration": row["duration"],
        "idempotency_key": row["key"],
        "parent": id_text(row["parent"]) if row["parent"] else None,
    }


def _json(text: str | None) -> Any:
    return None if text is None else read_json(text)


QUESTIONS: dict[str, Callable[..., Any]] = {
    "calls": calls,
    "show": show,
    "workflows": workflows,
    "workflow": workflow,
    "workflow_end": workflow_end,
}
