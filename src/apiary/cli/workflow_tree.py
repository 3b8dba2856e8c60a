"""A workflow for people: as a tree, and what it waits for in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text
from rich.tree import Tree

from apiary.cli.output import milliseconds, moment, status_text

MAX_SHOWN = 120


def waits_text(waits: Mapping[str, Any] | None) -> str:
    """What a workflow waits for."""
    if waits is None:
        return ""
    until = f"until {moment(waits['until'])}" if waits.get("until") else ""
    if waits["for"] == "message":
        return f"a message on {waits['topic']} {until}".rstrip()
    if waits["for"] == "step":
        name = waits.get("function") or waits.get("kind")
        return f"step {waits['step']}{f' ({name})' if name else ''}"
    return until


def tree_of(found: Mapping[str, Any]) -> Tree:
    """Everything about a workflow, with a line for each of its steps."""
    tree = Tree(Text.assemble((f"{found['app']}.{found['function']} ", "bold"), status_text(found)))
    for branch in (*_facts(found), *_says(found), *map(step_text, found["steps"])):
        tree.add(branch)
    if found["more"] is not None:
        tree.add(Text(f"there are more steps: --after {found['more']}", "dim"))
    return tree


def _facts(found: Mapping[str, Any]) -> Iterator[Text | Tree]:
    for name in ("id", "version", "caller", "idempotency_key", "parent"):
        if found[name] is not None:
            yield Text(f"{name}: {found[name]}")
    for name in ("input", "result"):
        if found[name] is not None:
            yield Text(f"{name}: {short(found[name])}")
    took = "" if found["ended"] is None else f", took {milliseconds(found['ended'] - found['started'])}"
    yield Text(f"started: {moment(found['started'])}{took}")
    if found["deadline"]:
        yield Text(f"ends at the latest: {moment(found['deadline'])}")
    if found["waits_for"]:
        yield Text(f"waits for {waits_text(found['waits_for'])}", "cyan")
    if found["error"]:
        branch = Tree(Text(str(found["error"].get("detail")), "red"))
        for name in ("traceback", "hint"):
            if found["error"].get(name):
                branch.add(Text(str(found["error"][name]).rstrip(), "dim"))
        yield branch


def _says(found: Mapping[str, Any]) -> Iterator[Text]:
    for name, value in found["published"].items():
        yield Text(f"published {name}: {short(value)}")
    for topic, count in found["messages"].items():
        yield Text(f"not received yet: {count} on {topic}")
    for line in found["lines"]:
        yield Text(f"+{milliseconds(line['at'])}  {line['message']}  {line.get('fields', '')}")


def step_text(step: Mapping[str, Any]) -> Text:
    """One step: its number, what it ran and with what, what came of it."""
    what = step["function"] or step["kind"]
    number = "" if step["step"] is None else f"{step['step']:>3} "
    name = f"undo by {what}" if step["undo"] else f"{number}{what}"
    given = "" if step["input"] is None else f"({short(step['input'])})"
    child = f" {step['id']}" if step["kind"] == "workflow" else ""
    attempt = f" attempt {step['attempt']}" if (step["attempt"] or 1) > 1 else ""
    took = f" {milliseconds(step['duration'])}" if step["duration"] else ""
    status = status_text({"status": step["status"]})
    return Text.assemble(name, (given, "dim"), _came(step), " ", status, (f"{attempt}{took}{child}", "dim"))


def _came(step: Mapping[str, Any]) -> str:
    if step["error"]:
        return f" → {step['error'].get('code')}: {step['error'].get('detail')}"
    if step["output"] is None:
        return ""
    return f" until {moment(step['output'])}" if step["kind"] == "sleep" else f" → {short(step['output'])}"


def short(value: Any) -> str:
    """A value in one line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
