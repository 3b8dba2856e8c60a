"""Questions about the workflows of one app: which there are, where one is, what it came to.

A workflow that has not ended is a row of the queue, also one that has not begun; one that has ended is a record of the
log. The queue is asked first: what leaves it meanwhile is found in the log.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from apiary.engine.places import Log
from apiary.finite import read_json
from apiary.recorded import STARS
from apiary.runtime.errors import NotFound, WrongArguments
from apiary.runtime.failures import told
from apiary.runtime.ids import id_bytes, id_text
from apiary.runtime.machine import CONTINUED, UNDO_FROM, step_id
from apiary.runtime.session import MESSAGE, NEVER
from apiary.runtime.transaction import now_microseconds
from apiary.runtime.undoing import UNDOING

GOING_ON = ("queued", "running", "waiting", "blocked", "cancelling", "undoing")
ENDED = ("ok", "rejected", "failed", "cancelled")
MAX_WORKFLOWS = 1000
MAX_STEPS = 1000
MAX_VALUE_BYTES = 64 * 1024
"""Of a step, larger arguments and results are not shown, but how large they are."""

Row = Mapping[str, Any]
Visible = Mapping[str, Collection[str] | None]
"""The arguments of each function that may be shown; `None`: all."""


def workflows(
    log: Log,
    *,
    function: str | None = None,
    status: str | None = None,
    caller: str | None = None,
    roots: bool = False,
    before: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The workflows that fit, the latest first, `limit` of them at most. `before`: those that are older than this one.

    `roots`: only those that no other workflow has started.
    """
    if status is not None and status not in (*GOING_ON, *ENDED):
        raise WrongArguments(
            f"no workflow has the status {status!r:.50}", hint=f"there are: {', '.join((*GOING_ON, *ENDED))}"
        )
    limit = max(1, min(limit, MAX_WORKFLOWS))
    asked = {
        "function": function,
        "status": status,
        "caller": caller,
        "roots": int(roots),
        "before": None if before is None else _identifier(before),
        "limit": limit,
    }
    now = now_microseconds()
    found: dict[bytes, dict[str, Any]] = {}
    if status not in ENDED:
        found.update((row["id"], _running(row)) for row in log.ask("log_running", {**asked, "now": now}))
    if status not in GOING_ON:
        found.update((row["id"], _ended(row)) for row in log.ask("log_ended", asked))
    return [entry for _, entry in sorted(found.items(), reverse=True)][:limit]


def workflow(log: Log, *, workflow: str, visible: Visible, after: int = -1, limit: int = MAX_STEPS) -> dict[str, Any]:
    """Everything about one workflow: how it stands, what it waits for, what it lets others read, and its steps.

    Of the steps, `limit` at most that come `after` one; `more` says after which to go on. `visible`: the arguments that
    may be shown, by function. A record shows no others; the queue, which is to run them, has them all.
    """
    identifier = _identifier(workflow)
    row, running = find(log, workflow)
    limit = max(1, min(limit, MAX_STEPS))
    asked = {"id": identifier, "after": after, "limit": limit, "most": MAX_VALUE_BYTES}
    recorded = [recorded_step(each) for each in log.ask("log_steps", asked)]
    more = recorded[-1]["step"] if len(recorded) == limit else None
    steps = recorded + (_open_steps(log, row, recorded, after, more, visible) if running else [])
    shown = {
        **(_running(row) if running else _ended(row)),
        "input": shown_input(row, visible) if running else read_json(row["input"]),
        "result": None if running or row["output"] is None else read_json(row["output"]),
        "error": _error(row, running),
        "deadline": _moment(row["deadline"]) if running else None,
        "lines": read_json(row["lines"]) if not running and row["lines"] else [],
        "published": {each["name"]: read_json(each["value"]) for each in log.ask("log_published", {"id": identifier})},
        "messages": {each["topic"]: each["messages"] for each in log.ask("log_messages", {"id": identifier})},
        "steps": sorted(steps, key=_place),
        "more": more,
    }
    waits = shown["waits_for"]
    if waits is not None and waits["for"] == "step":
        for step in steps:
            if step["step"] == waits["step"] and step["status"] in GOING_ON:
                waits.update({name: step[name] for name in ("kind", "function", "id")})
    return shown


def _place(step: dict[str, Any]) -> tuple[bool, int, int]:
    """Where a step is shown: what undoes others comes behind them, in the order in which that was done."""
    began = NEVER if step["started"] is None else step["started"]
    return (True, began, -step["step"]) if step["undo"] else (False, step["step"], 0)


def workflow_end(log: Log, *, workflow: str) -> dict[str, Any]:
    """What a workflow came to: its `status`, and `output` (JSON, as text) or the problem document `error` if it ended.

    Also its function and its `caller`, who has a right to know. One that is blocked has an `error`, too.
    """
    row, running = find(log, workflow)
    error = _error(row, running) if not running or row["status"] == "blocked" else None
    return {
        "function": row["function"],
        "caller": row["caller"],
        "status": row["status"],
        "output": None if running else row["output"] or "null",
        "error": None if error is None else told(error),
    }


def find(log: Log, workflow: str) -> tuple[Row, bool]:
    """The row of a workflow, and whether it goes on; `NotFound`."""
    identifier = _identifier(workflow)
    running = log.ask("log_begun", {"id": identifier, "now": now_microseconds()})
    ended = log.ask("log_end", {"id": identifier})
    if ended and ended[0]["kind"] == "workflow":
        return ended[0], False
    if running:
        return running[0], True
    hint = "list them: apiary workflow list"
    if ended:
        hint = f"it is a call of {ended[0]['function']}: apiary log show {id_text(identifier)}"
    raise NotFound(f"there is no workflow {id_text(identifier)}", hint=hint)


def _running(row: Row) -> dict[str, Any]:
    return {**_summary(row), "ended": None, "code": None, "waits_for": _waits_for(row)}


def _ended(row: Row) -> dict[str, Any]:
    error = read_json(row["error"]) if row["error"] else None
    return {
        **_summary(row),
        "ended": row["started"] + row["duration"],
        "code": error.get("code") if error else None,
        "waits_for": None,
    }


def _summary(row: Row) -> dict[str, Any]:
    return {
        "id": id_text(row["id"]),
        "function": row["function"],
        "status": row["status"],
        "version": row["version"],
        "caller": row["caller"],
        "started": row["started"],
        "idempotency_key": row["key"],
        "parent": id_text(row["parent"]) if row["parent"] else None,
        "step": row["step"],
    }


def _waits_for(row: Row) -> dict[str, Any] | None:
    """What has to happen before a workflow goes on: a message, the end of a step, a time."""
    if row["status"] not in ("waiting", "cancelling", "undoing", "running"):
        return None
    if row["waits"] == MESSAGE:
        return {"for": "message", "topic": row["topic"], "until": _moment(row["due"])}
    if row["waits"] is not None:
        return {"for": "step", "step": row["waits"]}
    if row["status"] == "waiting" and row["due"] < NEVER:
        return {"for": "time", "until": row["due"]}
    return None


def _error(row: Row, running: bool) -> dict[str, Any] | None:
    """Why it ended, or is to; of one that still undoes what it did, what it will have ended with."""
    text = row["problem"] if running else row["error"]
    found: dict[str, Any] | None = None if text is None else read_json(text)
    return found["error"] if found is not None and running and row["status"] == UNDOING else found


def _moment(microseconds: int) -> int | None:
    return None if microseconds >= NEVER else microseconds


def recorded_step(row: Row) -> dict[str, Any]:
    """A call that is recorded, as a step of a workflow; it may be none."""
    return {
        **_open_step(row["step"], row["id"], row["function"], row["kind"], row["status"]),
        "attempt": row["attempt"],
        "started": row["started"],
        "duration": row["duration"],
        "input": _value(row, "input"),
        "output": _value(row, "output"),
        "error": read_json(row["error"]) if row["error"] else None,
    }


def _open_step(number: int | None, identifier: bytes, function: str | None, kind: str, status: str) -> dict[str, Any]:
    """A step that has no outcome yet."""
    return {
        "step": number,
        "undo": number is not None and UNDO_FROM <= number < CONTINUED,
        "id": id_text(identifier),
        "function": function,
        "kind": kind,
        "status": status,
        "attempt": None,
        "started": None,
        "duration": None,
        "input": None,
        "output": None,
        "error": None,
    }


def _value(row: Row, name: str) -> Any:
    size = row[f"{name}_bytes"]
    if size is not None and size > MAX_VALUE_BYTES:
        return {"apiary:omitted": {"bytes": size}}
    return None if row[name] is None else read_json(row[name])


def _open_steps(
    log: Log, row: Row, recorded: list[dict[str, Any]], after: int, more: int | None, visible: Visible
) -> list[dict[str, Any]]:
    """The steps that were begun and have no outcome: children, which are workflows themselves, and actions."""
    first = max(row["first"], after + 1)
    end = min(row["issued"], first + MAX_STEPS if more is None else more)
    known = {step["step"] for step in recorded}
    numbers = {number for number in range(first, end) if number not in known}
    if row["waits"] is not None and row["waits"] > after and more is None:
        numbers |= {row["waits"]} - known
    begun = {step_id(row["id"], number): number for number in numbers}
    asked = {"ids": json.dumps([identifier.hex() for identifier in begun]), "now": now_microseconds()}
    children = {child["id"]: child for child in log.ask("log_children", asked)} if begun else {}
    found = []
    for identifier, number in begun.items():
        child = children.get(identifier)
        if child is None:
            found.append(_open_step(number, identifier, None, "action", "running"))
        else:
            step = _open_step(number, identifier, child["function"], "workflow", child["status"])
            found.append({**step, "started": child["started"], "input": shown_input(child, visible)})
    if row["waits"] == MESSAGE and first <= row["issued"] == end:
        step = _open_step(end, step_id(row["id"], end), "wf.receive", "receive", "waiting")
        found.append({**step, "input": {"topic": row["topic"]}})
    return found


def shown_input(row: Row, visible: Visible) -> Any:
    """The arguments of a workflow that is still to run, stars for those that are secret, or may be."""
    given, names = read_json(row["input"]), visible.get(row["function"], ())
    if names is None or not isinstance(given, dict):
        return given
    return {name: value if name in names else STARS for name, value in given.items()}


def _identifier(text: str) -> bytes:
    try:
        return id_bytes(text)
    except ValueError:
        raise NotFound(
            f"{text!r:.80} is not the id of a workflow", hint="ids look like 0198f1c2-…: see `apiary workflow list`"
        ) from None
