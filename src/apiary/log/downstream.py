"""What came of data: the calls that read what a call wrote, those that read what these wrote, and so on.

A call read what another one wrote where it read a row that the other had written last. The log has calls in the order
of their commits, so that is a question of which stands between them. Only of queries the log does not know exactly what
they saw: their records are written later. A query counts where it may have seen what was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from apiary.engine.places import Log
from apiary.log.effects import forms, image, number
from apiary.log.trace import identifier_of
from apiary.runtime.errors import NotFound, WrongArguments
from apiary.runtime.ids import id_text

MAX_EDGES = 10_000
MAX_DEPTH = 100
LATE_EFFECTS = 1000
"""A query's record may come so many effects after another call has written the row anew that the query read."""

Graph = dict[str, Any]


def downstream(
    log: Log,
    *,
    call: str | None = None,
    table: str | None = None,
    key: str | Mapping[str, Any] | None = None,
    depth: int | str = MAX_DEPTH,
    limit: int | str = 1000,
) -> Graph:
    """The graph of what came of a `call`, or of all that was ever written to a row (`table`, `key`).

    `calls`: each once, with its distance; `edges`: from which call to which, `how`, and by which row. How: `read` is a
    row that the one had written and the other read; `began` a step or an enqueued call; `then` a later step of the same
    workflow, which may have been given what the step returned. Not `certain` are reads of a table of which it is not
    known which rows they were. `depth`: so many steps away; `limit`: so many edges; `more` says that there are more.
    """
    seen = {row["seq"]: {**_call(row), "distance": 0} for row in _first(log, call, table, key)}
    most, deepest = max(1, min(number("limit", limit), MAX_EDGES)), min(number("depth", depth), MAX_DEPTH)
    edges: list[dict[str, Any]] = []
    more, distance = False, 0
    newest = list(seen)
    row_of = {"table": table, "keys": None if key is None else json.dumps(forms(key))}
    while newest and distance < deepest and not more:
        distance += 1
        asked = {"calls": json.dumps(newest), "late": LATE_EFFECTS, "limit": most - len(edges) + 1, **row_of}
        found = [*log.ask("log_read_from", asked), *log.ask("log_came_of", asked)]
        more = len(edges) + len(found) > most
        found = found[: most - len(edges)]
        edges += map(_edge, found)
        reached = {row["to_seq"] for row in found} - seen.keys()
        newest = sorted(reached)
        for row in log.ask("log_calls_by_seq", {"calls": json.dumps(newest)}):
            seen[row["seq"]] = {**_call(row), "distance": distance}
        row_of = {"table": None, "keys": None}
    names = {seq: each["id"] for seq, each in seen.items()}
    for edge in edges:
        edge["from"], edge["to"] = names[edge["from"]], names[edge["to"]]
    return {"calls": list(seen.values()), "edges": edges, "more": more}


def dot(graph: Graph) -> str:
    """The graph as Graphviz has it; what is not certain is dashed."""
    return "\n".join(["digraph downstream {", "  rankdir=LR; node [shape=box];", *_lines(graph), "}"])


def _first(log: Log, call: str | None, table: str | None, key: str | Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The calls from which it begins."""
    if call is not None and table is None and key is None:
        found = log.ask("log_call_by_id", {"id": identifier_of(call)})
        if not found:
            raise NotFound(f"there is no call {call} in the log")
        return found
    if call is not None or table is None or key is None:
        raise WrongArguments("downstream of what? a call, or a table and the key of a row")
    return log.ask("log_writers", {"table": table, "keys": json.dumps(forms(key)), "limit": MAX_EDGES})


def _call(row: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: row[name] for name in ("seq", "function", "kind", "caller", "status", "started")}
    return {"id": id_text(row["id"]), **named}


def _edge(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "from": row["from_seq"],
        "to": row["to_seq"],
        "how": row["how"],
        "table": row["table_name"],
        "key": image(row["key"]),
        "certain": bool(row["certain"]),
    }


def _lines(graph: Graph) -> Iterator[str]:
    for call in graph["calls"]:
        label = f"{call['function']}\n{call['caller']}\n{call['id']}"
        yield f"  {json.dumps(call['id'])} [label={json.dumps(label, ensure_ascii=False)}];"
    for edge in graph["edges"]:
        row = f"{edge['table']} {json.dumps(edge['key'], ensure_ascii=False)}" if edge["table"] else edge["how"]
        label = json.dumps(row, ensure_ascii=False) + ("" if edge["certain"] else ", style=dashed")
        yield f"  {json.dumps(edge['from'])} -> {json.dumps(edge['to'])} [label={label}];"
