"""What a workflow did, as one JSON object: whole, to be kept in a file and run again by `apiary.testing.replay`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from apiary.engine.places import Log
from apiary.log.workflows import Visible, find, shown_input
from apiary.runtime.control import DROPPED
from apiary.runtime.errors import Conflict, PayloadTooLarge
from apiary.runtime.ids import id_text
from apiary.runtime.machine import CONTINUED, UNDO_FROM, WHOLE

FORMAT = 1
MAX_BYTES = 64 * 1024 * 1024
PAGE = 500


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
