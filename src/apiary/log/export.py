"""What a call or a workflow did, whole, as one JSON object: to be run again by `apiary.testing.replay`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from apiary.engine.places import Log
from apiary.log.trace import identifier_of
from apiary.log.workflows import Visible, find, shown_input
from apiary.runtime.control import DROPPED
from apiary.runtime.errors import Conflict, NotFound, PayloadTooLarge
from apiary.runtime.ids import id_text
from apiary.runtime.machine import CONTINUED, UNDO_FROM, WHOLE

FORMAT = 1
MAX_BYTES = 64 * 1024 * 1024
PAGE = 500


def recording(log: Log, *, call: str) -> dict[str, Any]:
    """A query or transaction with its arguments, its outcome, and what its statements gave. JSON within is text.

    Secrets are stars, as everywhere in the log. `Conflict` where the log does not have what it takes: of actions, of
    attempts that were stopped, of queries that it could not keep, and where the engine does not know what was read.
    """
    identifier = identifier_of(call)
    attempts = log.ask("log_call", {"id": identifier})
    if not attempts:
        raise NotFound(f"there is no call {call} in the log")
    row = attempts[-1]
    if row["kind"] == "workflow":
        raise Conflict(f"{call} is a workflow", hint=f"apiary workflow export {call}")
    if row["kind"] not in ("query", "transaction"):
        raise Conflict(f"{call} is of {row['kind']} {row['function']}: it acted on the world, and is not run again")
    if row["status"] == "stopped":
        raise Conflict(f"{call} was stopped by the platform, at a moment that is not known")
    if not log.knows_effects:
        raise Conflict("the log does not know what calls read on this database")
    left_out = log.ask("log_left_out", {"seq": row["seq"]})
    if left_out and left_out[0]["left_out"] < 0:
        raise Conflict(f"what {call} read was dropped, because the log could not keep up")
    queued = [(child["id"], child["function"], child["input"]) for child in log.ask("log_queued", {"id": identifier})]
    queued += [(child["id"], child["function"], None) for child in log.ask("log_waiting", {"id": identifier})]
    names = ("function", "kind", "version", "caller", "started", "status", "input", "output", "error")
    return {
        "format": FORMAT,
        "id": id_text(identifier),
        **{name: row[name] for name in names},
        "statements": log.ask("log_statements", {"seq": row["seq"]}),
        "drawn": [drawn["bytes"] for drawn in log.ask("log_drawn", {"seq": row["seq"]})],
        "queued": [{"id": id_text(child), "function": function, "input": given} for child, function, given in queued],
    }


def export_workflow(log: Log, *, workflow: str, visible: Visible) -> dict[str, Any]:
    """A workflow with its arguments, its steps and, where it has ended, its outcome. JSON within is text, as it was.

    Secrets are stars, as everywhere in the log. `Conflict` where not all is there any more: it was dropped, or the
    workflow has ended and had begun again before. `PayloadTooLarge` beyond 64 MiB.
    """
    row, running = find(log, workflow)
    if not running and row["lines"] == DROPPED:
        raise Conflict(f"what the workflow {id_text(row['id'])} did is not kept any more")
    first = row["first"] if running else 0
    steps = list(_steps(log, row["id"], first))
    if not running and log.ask("log_steps", {"id": row["id"], "after": CONTINUED - 1, "limit": 1, "most": WHOLE}):
        raise Conflict("a workflow that has begun again, and ended, cannot be run again: how it began last is not kept")
    after_last = steps[-1]["step"] + 1 if steps else first
    return {
        "format": FORMAT,
        "id": id_text(row["id"]),
        "function": row["function"],
        "version": row["version"],
        "caller": row["caller"],
        "started": row["started"],
        "status": row["status"],
        "input": json.dumps(shown_input(row, visible)) if running else row["input"],
        "output": None if running else row["output"],
        "error": None if running else row["error"],
        "first": first,
        "issued": max(row["issued"], after_last) if running else after_last,
        "steps": steps,
    }


def _steps(log: Log, identifier: bytes, first: int) -> Iterator[dict[str, Any]]:
    after, size = first - 1, 0
    while True:
        found = log.ask("log_steps", {"id": identifier, "after": after, "limit": PAGE, "most": WHOLE})
        for row in found:
            if row["step"] >= UNDO_FROM:
                return
            size += len(row["input"]) + len(row["output"] or "")
            if size > MAX_BYTES:
                raise PayloadTooLarge(f"the workflow has more than {MAX_BYTES // 2**20} MiB of arguments and results")
            names = ("step", "function", "kind", "input", "output", "error")
            yield {"id": id_text(row["id"]), **{name: row[name] for name in names}}
        if len(found) < PAGE:
            return
        after = found[-1]["step"]
