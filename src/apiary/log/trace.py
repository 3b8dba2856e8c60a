"""What a call did and what came of it: the calls that it began, and what each of them read and wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from apiary.engine.places import Log
from apiary.log.effects import image, number
from apiary.log.workflows import MAX_VALUE_BYTES, recorded_step
from apiary.runtime.errors import NotFound
from apiary.runtime.ids import id_bytes, id_text
from apiary.runtime.transaction import now_microseconds

MAX_CALLS = 1000
MAX_DEPTH = 100
MAX_ROWS = 10_000
"""Of all calls of a trace, so many rows that were read, and so many that were written."""

Node = dict[str, Any]


def trace(log: Log, *, call: str, depth: int | str = MAX_DEPTH, limit: int | str = MAX_CALLS) -> Node:
    """A call, what it read and wrote, and below it, as `children`, those that it began: its steps, what it enqueued.

    `depth`: so many generations. Of the calls, `limit` at most, the nearest first; `more` says that something is
    missing. What has no outcome yet is not in it. `NotFound` where there is no such call.
    """
    identifier = identifier_of(call)
    levels, most = min(number("depth", depth), MAX_DEPTH), max(1, min(number("limit", limit), MAX_CALLS))
    asked = {"id": identifier, "depth": levels, "limit": most + 1, "most": MAX_VALUE_BYTES}
    rows = log.ask("log_tree", asked)
    ended = bool(rows) and rows[0]["id"] == identifier
    root = _node(rows[0]) if ended else _begun(log, identifier)
    nodes: dict[bytes, Node] = {identifier: root}
    for row in rows[ended:most]:
        nodes[row["id"]] = node = _node(row)
        nodes[row["parent"]]["children"].append(node)
    cut = add_effects(log, [node for node in nodes.values() if node["seq"] is not None])
    for node in nodes.values():
        node["children"].sort(key=lambda child: (child["step"] is None, child["step"] or 0, child["seq"]))
    return {**root, "more": len(rows) > most or cut}


def add_effects(log: Log, nodes: Iterable[Node]) -> bool:
    """Add to calls, by their `seq`, what they read, by statement, and wrote; returns whether some of it is missing."""
    by_seq = {node["seq"]: node for node in nodes}
    asked = {"calls": json.dumps(list(by_seq)), "limit": MAX_ROWS}
    writes, reads = log.ask("log_written", asked), log.ask("log_read", asked)
    for row in writes:
        by_seq[row["seq"]]["writes"].append(
            {
                "operation": row["operation"],
                "table": row["table_name"],
                **{name: image(row[name]) for name in ("key", "before", "after")},
            }
        )
    statements: dict[tuple[int, int], Node] = {}
    for row in reads:
        place = row["effect"], row["number"]
        if place not in statements:
            statements[place] = {
                "statement": row["statement"],
                "parameters": image(row["parameters"]),
                "rows": [],
            }
            by_seq[row["seq"]]["reads"].append(statements[place])
        read = {"table": row["table_name"], "key": image(row["key"]), "row": image(row["row"])}
        statements[place]["rows"].append(read)
    return len(writes) == MAX_ROWS or len(reads) == MAX_ROWS


def identifier_of(call: str) -> bytes:
    """The id of a call that somebody wrote; `NotFound` where it is none."""
    try:
        return id_bytes(call)
    except ValueError:
        hint = "ids look like 0198f1c2-…: see `apiary log calls`"
        raise NotFound(f"{call!r:.80} is not the id of a call", hint=hint) from None


def _node(row: Mapping[str, Any]) -> Node:
    return {"seq": row["seq"], **recorded_step(row), "caller": row["caller"], "reads": [], "writes": [], "children": []}


def _begun(log: Log, identifier: bytes) -> Node:
    """A workflow that has not ended."""
    found = log.ask("log_begun", {"id": identifier, "now": now_microseconds()})
    if not found:
        raise NotFound(f"there is no call {id_text(identifier)} in the log")
    unknown = ("seq", "attempt", "duration", "error", "input", "input_bytes", "output", "output_bytes")
    return _node({**found[0], **dict.fromkeys(unknown), "kind": "workflow"})
