"""Calls for people: as trees, with what they read and wrote and what they began."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text
from rich.tree import Tree

from apiary.cli.output import milliseconds, moment, status_text
from apiary.cli.workflow_tree import short, step_text

MAX_ROWS = 10
"""Of the rows that a statement read, so many are shown to people."""
FACTS = ("id", "kind", "version", "caller", "attempt", "idempotency_key", "parent", "input", "output")


def call_tree(call: Mapping[str, Any]) -> Tree:
    """Everything about one call."""
    tree = Tree(Text.assemble((f"{call['app']}.{call['function']} ", "bold"), status_text(call)))
    for branch in (*_facts(call), *_effects(call), *_began(call)):
        tree.add(branch)
    return tree


def trace_tree(call: Mapping[str, Any]) -> Tree:
    """A call and all that it began, with what each of them read and wrote."""
    tree = _traced(call)
    if call["more"]:
        tree.add(Text("there is more: --depth, --limit", "dim"))
    return tree


def downstream_tree(graph: Mapping[str, Any]) -> Tree:
    """Calls, each below the first that led to it."""
    calls = {call["id"]: call for call in graph["calls"]}
    tree = Tree(Text(f"{len(calls)} calls, {len(graph['edges'])} connections", "bold"))
    branches = {name: tree.add(_reached(call, None)) for name, call in calls.items() if call["distance"] == 0}
    for edge in graph["edges"]:
        if edge["to"] not in branches:
            branches[edge["to"]] = branches[edge["from"]].add(_reached(calls[edge["to"]], edge))
    if graph["more"]:
        tree.add(Text("there is more: --depth, --limit", "dim"))
    return tree


def _reached(call: Mapping[str, Any], edge: Mapping[str, Any] | None) -> Text:
    by = ""
    if edge is not None:
        maybe = "" if edge["certain"] else "may have "
        by = f"{maybe}read {edge['table']} {_key(edge['key'])}: " if edge["how"] == "read" else f"{edge['how']} "
    who = f" {call['caller']}, {moment(call['started'])}, {call['id']}"
    return Text.assemble((by, "cyan"), call["function"], " ", status_text(call), (who, "dim"))


def _traced(call: Mapping[str, Any]) -> Tree:
    tree = Tree(step_text(call))
    tree.add(Text(f"{call['id']} {call['caller']}", "dim"))
    for branch in (*_effects(call), *map(_traced, call["children"])):
        tree.add(branch)
    return tree


def _facts(call: Mapping[str, Any]) -> Iterator[Text | Tree]:
    for name in FACTS:
        if call[name] is not None:
            yield Text(f"{name}: {call[name]}")
    yield Text(f"started: {moment(call['started'])}, took {milliseconds(call['duration'])}")
    if call["error"]:
        branch = Tree(Text(str(call["error"].get("detail")), "red"))
        branch.add(Text(str(call["error"].get("traceback", "")).rstrip(), "dim"))
        yield branch
    for line in call["lines"]:
        yield Text(f"+{milliseconds(line['at'])}  {line['message']}  {line.get('fields', '')}")


def _effects(call: Mapping[str, Any]) -> Iterator[Text | Tree]:
    for read in call.get("reads") or ():
        given = f" {short(read['parameters'])}" if read["parameters"] else ""
        branch = Tree(Text.assemble(("read ", "cyan"), " ".join(read["statement"].split()), (given, "dim")))
        for row in read["rows"][:MAX_ROWS]:
            branch.add(Text(f"{row['table']} {_key(row['key'])}{' ' + short(row['row']) if row['row'] else ''}"))
        if len(read["rows"]) > MAX_ROWS:
            branch.add(Text(f"and {len(read['rows']) - MAX_ROWS} rows more", "dim"))
        yield branch
    for write in call.get("writes") or ():
        what = write["after"] if write["after"] is not None else write["before"]
        row = [write["table"], _key(write["key"]), None if what is None else short(what)]
        yield Text.assemble((write["operation"], "yellow"), *(f" {part}" for part in row if part))


def _began(call: Mapping[str, Any]) -> Iterator[Text]:
    for nested in call["nested"]:
        yield Text(f"called {nested['function']}: {nested['status']}, {milliseconds(nested['duration'])}")
    yield from map(step_text, call["steps"])
    for attempt in call["earlier_attempts"]:
        yield Text.assemble(f"attempt {attempt['attempt']}: ", status_text(attempt))
    for child in call["queued_calls"]:
        yield Text.assemble(f"queued {child['function']} ({child['id']}): ", status_text(child))
    for child in call["waiting_calls"]:
        yield Text(f"queued {child['function']} ({child['id']}): waiting")
    if call["kind"] == "workflow" or call["queued_calls"]:
        yield Text(f"what they did: apiary log trace {call['id']}", "dim")


def _key(key: Mapping[str, Any] | None) -> str:
    """A key as one types it; rows that are not known are some."""
    if key is None:
        return "some rows"
    return " ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in key.items())
