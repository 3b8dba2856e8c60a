"""How the command line speaks: tables for people, JSON for programs, errors that say what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apiary.decimals import read_exactly
from apiary.runtime.errors import Error, WrongArguments

people = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

STATUS_STYLES = {
    "ok": "green",
    "rejected": "yellow",
    "failed": "red",
    "stopped": "magenta",
    "cancelled": "magenta",
    "cancelling": "magenta",
    "undoing": "magenta",
    "blocked": "red",
    "running": "cyan",
    "waiting": "cyan",
    "queued": "dim",
}


class Output:
    """Whether to write for people or for programs. JSON by itself when the output is no terminal."""

    json = False


def wants_json() -> bool:
    """Whether the output is for programs."""
    return Output.json or not (sys.stdout.isatty() or os.environ.get("FORCE_COLOR"))


def show(value: Any) -> None:
    """Write a value: JSON, indented and coloured for people."""
    if wants_json():
        print(_as_json(value, sys.stdout))
    else:
        people.print_json(json.dumps(value))


def _as_json(value: Any, output: TextIO) -> str:
    """JSON in one line, with the letters that the output can show."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    try:
        text.encode(output.encoding)
    except UnicodeEncodeError:
        return json.dumps(value, default=str)
    return text


def say(message: str) -> None:
    """A word to people on what happened; not part of the result."""
    errors.print(Text(message))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], value: Any) -> None:
    """Write rows as a table, or `value` as JSON."""
    if wants_json():
        print(_as_json(value, sys.stdout))
        return
    made = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in ("id", "call"))  # ids are copied
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    people.print(made)
    if not rows:
        people.print("[dim]nothing[/dim]")


def status_text(call: Mapping[str, Any]) -> Text:
    """The status of a call in its colour, with the code of a failure."""
    status = str(call["status"])
    code = call.get("code")
    return Text(f"{status} ({code})" if code else status, STATUS_STYLES.get(status, ""))


def value_of(text: str) -> Any:
    """A value as somebody types it: JSON where it can be read as such, else text."""
    try:
        return read_exactly(text, str)
    except ValueError:
        return text


def arguments_of(given: Sequence[str]) -> dict[str, Any]:
    """Arguments as somebody types them: NAME=VALUE each."""
    arguments: dict[str, Any] = {}
    for item in given:
        name, separator, text = item.partition("=")
        if not separator or not name:
            raise WrongArguments(f"{item!r} is no argument", hint="write NAME=VALUE, for example user=7")
        if name in arguments:
            raise WrongArguments(f"{name} is given twice", hint="a list is one value: " + f"{name}='[1, 2]'")
        arguments[name] = value_of(text)
    return arguments


def moment(microseconds: int) -> str:
    """A time of the log as people read it, in the local zone."""
    return datetime.fromtimestamp(microseconds / 1e6).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def short_moment(microseconds: int) -> str:
    """The same for a table, which is wide enough already: the time of today, or the minute of another day."""
    then = datetime.fromtimestamp(microseconds / 1e6).astimezone()
    today = then.date() == datetime.now().astimezone().date()
    return moment(microseconds)[11:] if today else then.strftime("%Y-%m-%d %H:%M")


def milliseconds(microseconds: int) -> str:
    """A duration of the log as people read it."""
    return f"{microseconds / 1000:.2f} ms"


def fail(error: Error) -> typer.Exit:
    """Show an error to its reader; returns what ends the command with status 1."""
    if wants_json():
        called = {"call_id": error.call_id} if error.call_id else {}
        print(_as_json({**error.problem(), **called}, sys.stderr), file=sys.stderr)
    else:
        explain(error)
    return typer.Exit(1)


def explain(error: Error) -> None:
    """Show an error to people."""
    errors.print(Text.assemble(("error: ", "bold red"), error.message))
    for wrong in error.details.get("errors", []):
        errors.print(Text(f"  {wrong.get('argument') or 'arguments'}: {wrong.get('message')}"))
    for detail in ("traceback", "output"):
        if error.details.get(detail):
            errors.print(Text(str(error.details[detail]).rstrip(), "dim"))
    if error.hint:
        errors.print(Text.assemble(("hint: ", "bold"), error.hint))
    if error.call_id:
        errors.print(Text(f"call: {error.call_id}", "dim"))
