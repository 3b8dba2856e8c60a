"""`apiary log …`: what ran, and what it did."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer
from rich.text import Text

from apiary.cli.log_tree import call_tree, downstream_tree, trace_tree
from apiary.cli.options import LOCAL, Key, Url
from apiary.cli.output import (
    milliseconds,
    moment,
    people,
    say,
    short_moment,
    show,
    status_text,
    table,
    value_of,
    wants_json,
)
from apiary.client import Http
from apiary.log.downstream import dot
from apiary.runtime.errors import Unavailable

OfApp = Annotated[Optional[str], typer.Option("--app", help="Which app; may be left out where there is one.")]  # noqa: UP045
TableName = Annotated[str, typer.Argument(metavar="TABLE")]
RowKey = Annotated[list[str], typer.Argument(metavar="COLUMN=VALUE…", help="The primary key of the row.")]
Since = Annotated[Optional[datetime], typer.Option(help="Only those since this time, in the local zone.")]  # noqa: UP045

app = typer.Typer(help="What ran, and what it did.", no_args_is_help=True)


@app.command()
def calls(
    app_name: Annotated[Optional[str], typer.Argument(metavar="[APP]")] = None,  # noqa: UP045 - typer
    function: Annotated[Optional[str], typer.Option(help="Only calls of this function.")] = None,  # noqa: UP045
    status: Annotated[Optional[str], typer.Option(help="ok, rejected, failed or stopped.")] = None,  # noqa: UP045
    caller: Annotated[Optional[str], typer.Option(help="Only calls by this caller.")] = None,  # noqa: UP045
    since: Since = None,
    until: Annotated[Optional[datetime], typer.Option(help="Only those before this time, in the local zone.")] = None,  # noqa: UP045
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only those with these words, or beginnings of words."),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many, the latest first.")] = 20,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """The latest calls."""
    given: dict[str, Any] = {"app": app_name, "function": function, "status": status, "caller": caller, "text": text}
    given |= {"since": _microseconds(since), "until": _microseconds(until), "limit": limit}
    found = Http(url, key).json("GET", "/api/v1/calls", params={k: v for k, v in given.items() if v is not None})
    rows = [
        (
            short_moment(call["started"]),
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
    """Everything about one call: what went in and came out, what it said, read, wrote and called."""
    server, path = Http(url, key), f"/api/v1/calls/{quote(call, safe='')}"
    try:
        found = server.json("GET", path, params={"effects": "true"})
    except Unavailable as error:  # what it read and wrote is taken apart into a file, for which there may be no room
        found = server.json("GET", path)
        say(f"what it read and wrote cannot be told now: {error.message}")
    if wants_json():
        show(found)
    else:
        people.print(call_tree(found))


@app.command()
def trace(
    call: Annotated[str, typer.Argument(metavar="CALL", help="The id of a call, or of a workflow.")],
    depth: Annotated[int, typer.Option(min=0, help="So many generations of calls.")] = 100,
    limit: Annotated[int, typer.Option(min=1, help="How many calls, the nearest first.")] = 1000,
    app_name: OfApp = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """A call or workflow, what it read and wrote, and below it all calls that it began."""
    asked = {"app": app_name, "call": call, "depth": str(depth), "limit": str(limit)}
    found = _asked("trace", Http(url, key), asked)
    if wants_json():
        show(found)
    else:
        people.print(trace_tree(found))


@app.command()
def sql(
    statement: str,
    app_name: OfApp = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """The rows of a statement that reads, over the views calls and writes of an app's log."""
    found = _asked("sql", Http(url, key), {"app": app_name, "statement": statement})
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    if found["more"]:
        say(f"these are the first {len(rows)} rows; ask for less")
    table("", found["columns"], found["rows"], rows)


@app.command()
def history(
    table_name: TableName,
    row: RowKey,
    app_name: OfApp = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """All versions of a row, each with the call that made it."""
    found = _asked("history", Http(url, key), _of_row(app_name, table_name, row))
    rows = [
        (
            moment(version["at"]),
            version["operation"],
            json.dumps(version["after"], ensure_ascii=False) if version["after"] is not None else None,
            version["function"],
            version["caller"],
            Text(version["call"] or "", "dim"),
        )
        for version in found
    ]
    table("versions", ("at", "operation", "row", "function", "caller", "call"), rows, found)


@app.command(name="as-of")
def as_of(
    table_name: TableName,
    row: RowKey,
    at: Annotated[datetime, typer.Option(help="When, in the local zone.")],
    app_name: OfApp = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """A row as it was at a time, with the call that had made it so."""
    found = _asked("as-of", Http(url, key), {**_of_row(app_name, table_name, row), "at": _microseconds(at)})
    if wants_json():
        show(found)
    elif found is None:
        people.print("[dim]there was no such row[/dim]")
    else:
        show(found["row"])
        made = f"{found['operation']} by {found['function']}, {moment(found['at'])}"
        people.print(Text(f"{made}, {found['caller']}, {found['call']}" if found["call"] else made, "dim"))


@app.command()
def readers(
    table_name: TableName,
    row: RowKey,
    since: Since = None,
    app_name: OfApp = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Who read a row, the latest first."""
    asked = {**_of_row(app_name, table_name, row), "since": _microseconds(since)}
    found = _asked("readers", Http(url, key), asked)
    rows = [
        (
            moment(read["at"]),
            read["caller"],
            read["function"],
            "" if read["certain"] else "maybe",
            " ".join(read["statement"].split()),
            Text(read["call"], "dim"),
        )
        for read in found
    ]
    table("readers", ("at", "caller", "function", "", "statement", "call"), rows, found)


@app.command()
def downstream(
    what: Annotated[str, typer.Argument(metavar="CALL|TABLE", help="The id of a call; or a table, and then a row.")],
    row: Annotated[Optional[list[str]], typer.Argument(metavar="[COLUMN=VALUE…]", help="Its primary key.")] = None,  # noqa: UP045
    as_dot: Annotated[bool, typer.Option("--dot", help="As text for Graphviz.")] = False,
    depth: Annotated[int, typer.Option(min=1, help="So many steps away.")] = 100,
    limit: Annotated[int, typer.Option(min=1, help="So many connections.")] = 1000,
    app_name: OfApp = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """All that came of a call, or of a row: who read what it wrote, who read what these wrote, and so on."""
    asked = _of_row(app_name, what, row) if row else {"app": app_name, "call": what}
    found = _asked("downstream", Http(url, key), {**asked, "depth": str(depth), "limit": str(limit)})
    if as_dot:
        print(dot(found))
    elif wants_json():
        show(found)
    else:
        people.print(downstream_tree(found))


@app.command()
def leaks(
    table_name: TableName,
    allowed: Annotated[str, typer.Option(metavar="SQL", help="Which reads are allowed: 'public or author = caller'.")],
    function: Annotated[Optional[str], typer.Option(help="Only reads by this function.")] = None,  # noqa: UP045
    caller: Annotated[Optional[str], typer.Option(help="Only reads by this caller.")] = None,  # noqa: UP045
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="How many reads, the latest first.")] = 1000,
    app_name: OfApp = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Who read rows that were not for them: the reads of a table for which a condition does not hold."""
    asked = {"app": app_name, "table": table_name, "allowed": allowed, "function": function, "caller": caller}
    found = _asked("leaks", Http(url, key), {**asked, "since": _microseconds(since), "limit": str(limit)})
    names = ("caller", "function", "calls", "rows", "unknown", "first", "last")
    rows = [
        [moment(each[name]) if name in ("first", "last") else each[name] for name in names] for each in found["callers"]
    ]
    table("who read what was not allowed", names, rows, found)
    if found["more"]:
        say(f"these are the latest {len(found['reads'])} reads; there are more: --limit, --since")


def _asked(question: str, server: Http, given: dict[str, str | None]) -> Any:
    known = {name: value for name, value in given.items() if value is not None}
    return server.json("GET", f"/api/v1/log/{question}", params=known)


def _of_row(app: str | None, table_name: str, row: list[str]) -> dict[str, str | None]:
    return {"app": app, "table": table_name, "key": json.dumps(_members(row))}


def _microseconds(when: datetime | None) -> str | None:
    return None if when is None else str(round(when.astimezone().timestamp() * 1e6))


def _members(pairs: list[str]) -> dict[str, Any]:
    """Columns and values as somebody types them."""
    split = [pair.partition("=") for pair in pairs]
    for name, equals, _ in split:
        if not name or not equals:
            raise typer.BadParameter(f"write COLUMN=VALUE, not {name!r}")
    return {name: value_of(text) for name, _, text in split}
