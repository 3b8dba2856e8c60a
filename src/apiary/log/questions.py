"""Questions about the log of one app, answered from its engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from apiary.engine.places import Log
from apiary.finite import read_json
from apiary.log.downstream import downstream
from apiary.log.effects import as_of, history, readers, sql
from apiary.log.export import export_workflow, recording
from apiary.log.leaks import leaks
from apiary.log.queues import queues
from apiary.log.trace import add_effects, identifier_of, trace
from apiary.log.workflows import MAX_STEPS, MAX_VALUE_BYTES, recorded_step, workflow, workflow_end, workflows
from apiary.runtime.errors import NotFound, WrongArguments
from apiary.runtime.ids import id_text

MAX_CALLS = 1000


def calls(
    log: Log,
    *,
    function: str | None = None,
    status: str | None = None,
    caller: str | None = None,
    since: int | None = None,
    until: int | None = None,
    text: str | None = None,
    before: int | None = None,
    after: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The calls that fit, the latest first, `limit` of them at most. `before` and `after` are sequence numbers.

    `since` and before `until`: when they began, in microseconds since 1970. `text`: words with each of which a word
    begins in what went in, what came out, or what was logged.

    Whoever asks for what is `after` the latest call that it was told, and so on, is told of every call once. A call is
    told so when it has its final place: on PostgreSQL, once no transaction that began to write before it still runs.
    """
    asked: dict[str, Any] = {"function": function, "status": status, "caller": caller, "since": since, "until": until}
    asked.update(before=before, after=after, limit=max(1, min(limit, MAX_CALLS)))
    asked["words"] = None if text is None else json.dumps(_words(text))
    return [_summary(row) for row in log.ask("log_calls", asked)]


def _words(text: str) -> list[str]:
    """Words as an index has them: of letters and digits."""
    words = re.findall(r"[^\W_]+", text)
    if not words:
        raise WrongArguments(f"there is no word in {text!r:.80}", hint="letters and digits make words")
    return words


def show(log: Log, *, call: str, effects: bool = False) -> dict[str, Any]:
    """Everything about one call: its record, its attempts, its steps, and the calls that it put into the queue.

    With `effects` also what it read, by statement, and wrote; none where the engine does not know that.
    """
    identifier = identifier_of(call)
    attempts = log.ask("log_call", {"id": identifier})
    if not attempts:
        raise NotFound(f"there is no call {call} in the log")
    row = attempts[-1]
    return {
        **_summary(row),
        **(_effects(log, row["seq"]) if effects else {}),
        "input": _json(row["input"]),
        "output": _json(row["output"]),
        "error": _json(row["error"]),
        "lines": _json(row["lines"]) or [],
        "nested": _json(row["nested"]) or [],
        "earlier_attempts": [_summary(attempt) for attempt in attempts[:-1]],
        "steps": _steps(log, identifier) if row["kind"] == "workflow" else [],
        "queued_calls": [_summary(child) for child in log.ask("log_queued", {"id": identifier})],
        "waiting_calls": [
            {"id": id_text(child["id"]), "function": child["function"]}
            for child in log.ask("log_waiting", {"id": identifier})
        ],
    }


def _effects(log: Log, seq: int) -> dict[str, Any]:
    if not log.knows_effects:
        return {"reads": None, "writes": None}
    call: dict[str, Any] = {"seq": seq, "reads": [], "writes": []}
    more = add_effects(log, [call])
    return {"reads": call["reads"], "writes": call["writes"], "more_effects": more}


def _steps(log: Log, identifier: bytes) -> list[dict[str, Any]]:
    asked = {"id": identifier, "after": -1, "limit": MAX_STEPS, "most": MAX_VALUE_BYTES}
    return [recorded_step(row) for row in log.ask("log_steps", asked)]


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
    "sql": sql,
    "history": history,
    "as_of": as_of,
    "readers": readers,
    "trace": trace,
    "leaks": leaks,
    "recording": recording,
    "downstream": downstream,
    "workflows": workflows,
    "workflow": workflow,
    "workflow_end": workflow_end,
    "workflow_export": export_workflow,
    "queues": queues,
}
