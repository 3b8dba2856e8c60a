"""`apiary log …`: what ran, and what it did."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer
from rich.text import Text
from rich.tree import Tree

from apiary.cli.options import LOCAL, Key, Url
from apiary.cli.output import milliseconds, moment, people, show, status_text, table, wants_json
from apiary.client import Http

app = typer.Typer(help="What ran, and what it did.", no_args_is_help=True)


@app.command()
def calls(
    app_name: Annotated[Optional[str], typer.Argument(metavar="[APP]")] = None,  # noqa: UP045 - typer
    function: Annotated[Optional[str], typer.Option(help="Only calls of this function.")] = None,  # noqa: UP045
    status: Annotated[Optional[str], typer.Option(help="ok, rejected, failed or stopped.")] = None,  # noqa: UP045
    caller: Annotated[Optional[str], typer.Option(help="Only calls by this caller.")] = None,  # noqa: UP045
    limit: Annotated[int, typer.Option(help="How many, the latest first.")] = 20,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """The latest calls."""
    given = {"app": app_name, "function": function, "status": status, "caller": caller, "limit": limit}
    found = Http(url, key).json("GET", "/api/v1/calls", params={k: v for k, v in given.items() if v is not None})
    rows = [
        (
            moment(call["started"]),
            f"{call['app']}.{call['function']}",
            status_text(call),
            milliseconds(call["duration"]),
            call["caller"],
            Text(call["id"], "dim"),
        )
        for call in found
    ]
    table("calls", ("started", "function", "status", "duration", "caller", "id"), rows, found)


@app.command(name="show")
def show_call(call: str, url: Url = LOCAL, key: Key = None) -> None:
    """Everything about one call: what went in and came out, its log lines, its traceback, what it called."""
    found = Http(url, key).json("GET", f"/api/v1/calls/{call}")
    if wants_json():
        show(found)
    else:
        people.print(_tree(found))


def _tree(call: dict[str, Any]) -> Tree:
    tree = Tree(Text.assemble((f"{call['app']}.{call['function']} ", "bold"), status_text(call)))
    for name in ("id", "kind", "version", "caller", "attempt", "idempotency_key", "parent", "input", "output"):
        if call[name] is not None:
            tree.add(Text(f"{name}: {call[name]}"))
    tree.add(f"started: {moment(call['started'])}, took {milliseconds(call['duration'])}")
    if call["error"]:
        branch = tree.add(Text(str(call["error"].get("detail")), "red"))
        branch.add(Text(str(call["error"].get("traceback", "")).rstrip(), "dim"))
    for line in call["lines"]:
        tree.add(Text(f"+{milliseconds(line['at'])}  {line['message']}  {line.get('fields', '')}"))
    for nested in call["nested"]:
        tree.add(f"called {nested['function']}: {nested['status']}, {milliseconds(nested['duration'])}")
    if call["kind"] == "workflow":
        tree.add(Text(f"its steps: apiary workflow show {call['id']}", "dim"))
    for attempt in call["earlier_attempts"]:
        tree.add(Text.assemble(f"attempt {attempt['attempt']}: ", status_text(attempt)))
    for child in call["queued_calls"]:
        tree.add(Text.assemble(f"queued {child['function']} ({child['id']}): ", status_text(child)))
    for child in call["waiting_calls"]:
        tree.add(f"queued {child['function']} ({child['id']}): waiting")
    return tree
