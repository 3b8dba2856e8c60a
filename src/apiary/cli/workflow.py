"""`apiary workflow …`: which workflows there are, how they stand, and what is done to them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional
from urllib.parse import quote

import httpx
import typer
from rich.text import Text

from apiary.cli.options import LOCAL, Key, Url
from apiary.cli.output import errors, people, say, short_moment, show, status_text, table, value_of, wants_json
from apiary.cli.workflow_tree import tree_of, waits_text
from apiary.client import Http
from apiary.runtime.errors import Unavailable, WrongArguments

app = typer.Typer(help="Workflows: which there are, how they stand, and what is done to them.", no_args_is_help=True)

WAIT_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
"""So long a server may be away while somebody waits for a result."""
AGAIN_SECONDS = 1.0
ACCEPTED = 202
INTERRUPTED = 130

Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Its id.")]


@app.command(name="list")
def list_workflows(
    app_name: Annotated[Optional[str], typer.Argument(metavar="[APP]")] = None,  # noqa: UP045 - typer
    function: Annotated[Optional[str], typer.Option(help="Only those of this function.")] = None,  # noqa: UP045
    status: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="queued, running, waiting, blocked, cancelling, undoing; ok, rejected, failed, cancelled."),
    ] = None,
    caller: Annotated[Optional[str], typer.Option(help="Only those of this caller.")] = None,  # noqa: UP045
    roots: Annotated[bool, typer.Option("--roots", help="Only those that no other workflow has started.")] = False,
    before: Annotated[Optional[str], typer.Option(help="Only those that are older than this one.")] = None,  # noqa: UP045
    limit: Annotated[int, typer.Option(help="How many, the latest first.")] = 20,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """The workflows of an app, or of all, the latest first."""
    given = {"app": app_name, "function": function, "status": status, "caller": caller, "before": before}
    asked = {name: value for name, value in given.items() if value is not None}
    if roots:
        asked["roots"] = "true"
    found = Http(url, key).json("GET", "/api/v1/workflows", params={**asked, "limit": str(limit)})
    rows = [
        (
            short_moment(entry["started"]),
            ("" if entry["step"] is None else "  ") + f"{entry['app']}.{entry['function']}",
            status_text(entry),
            waits_text(entry["waits_for"]),
            entry["caller"],
            Text(entry["id"], "dim"),
        )
        for entry in found
    ]
    table("workflows", ("started", "function", "status", "waits for", "caller", "id"), rows, found)


@app.command(name="show")
def show_workflow(
    workflow: Workflow,
    after: Annotated[Optional[int], typer.Option(help="Only steps behind this one.")] = None,  # noqa: UP045 - typer
    limit: Annotated[int, typer.Option(help="How many steps.")] = 100,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Everything about one workflow: how it stands, what it waits for, and each of its steps."""
    asked = {"limit": str(limit), **({"after": str(after)} if after is not None else {})}
    found = Http(url, key).json("GET", _path(workflow), params=asked)
    if wants_json():
        show(found)
    else:
        people.print(tree_of(found))


@app.command()
def result(
    workflow: Workflow,
    wait: Annotated[
        Optional[float],  # noqa: UP045 - typer
        typer.Option(min=0, help="At most so many seconds; default: as long as it takes."),
    ] = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Wait for the end of a workflow, and print its result."""
    print_result(Http(url, key), workflow, wait)


@app.command()
def export(
    workflow: Workflow,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - typer
        typer.Option("--output", help="The file to write; default: standard output."),
    ] = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Write what a workflow did as JSON, for tests that run it again with other code."""
    found = Http(url, key).json("GET", _path(workflow, "/export"))
    if output is None:
        typer.echo(json.dumps(found, indent=1))
        return
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    say(f"wrote {len(found['steps'])} steps of {found['function']} to {output}")


@app.command()
def send(
    workflow: Workflow,
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    value: Annotated[Optional[str], typer.Argument(metavar="[VALUE]", help="JSON, or text.")] = None,  # noqa: UP045
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Leave a message for a workflow."""
    given = {"topic": topic, "value": None if value is None else value_of(value)}
    _post(workflow, "messages", given, f"left a message on {topic} for", url, key)


@app.command()
def cancel(workflow: Workflow, url: Url = LOCAL, key: Key = None) -> None:
    """End a workflow at its next step, and those that it started. What was done is undone as far as it says how."""
    _post(workflow, "cancel", {}, "cancelled", url, key)


@app.command()
def resume(workflow: Workflow, url: Url = LOCAL, key: Key = None) -> None:
    """Let a workflow that is blocked try again."""
    _post(workflow, "resume", {}, "resumed", url, key)


@app.command()
def fork(
    workflow: Workflow,
    step: Annotated[
        int | None, typer.Option(min=0, help="Keep what is recorded below this step; default: all.")
    ] = None,
    version: Annotated[Optional[str], typer.Option(help="Default: the version that serves.")] = None,  # noqa: UP045
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Begin a new workflow with what another one has recorded, and go on from there."""
    given = {"step": step, "version": version}
    chosen = {name: value for name, value in given.items() if value is not None}
    found = _post(workflow, "fork", chosen, "forked", url, key)
    say(f"the new one is {found['id']}")


def print_result(http: Http, workflow: str, wait: float | None = None) -> None:
    """Wait for the end of a workflow, show meanwhile how it stands, and print its result."""
    end = None if wait is None else time.monotonic() + wait
    try:
        with _standing() as tell:
            response = _ask(http, workflow, 0.0)
            while response.status_code == ACCEPTED and (end is None or time.monotonic() < end):
                tell(_stands(http, workflow))
                left = WAIT_SECONDS if end is None else min(WAIT_SECONDS, max(0.0, end - time.monotonic()))
                response = _ask(http, workflow, left)
    except KeyboardInterrupt:
        tell_how_to_find(workflow)
        raise typer.Exit(INTERRUPTED) from None
    show(response.json())
    if response.status_code == ACCEPTED:
        tell_how_to_find(workflow)
        raise typer.Exit(1)


def tell_how_to_find(workflow: str) -> None:
    """Say how a workflow that goes on is found again."""
    say(f"the workflow goes on; find it again: apiary workflow show {workflow}")
    say(f"  wait for its result: apiary workflow result {workflow}")
    say(f"  end it:              apiary workflow cancel {workflow}")


def _ask(http: Http, workflow: str, wait: float) -> httpx.Response:
    """The answer to the question for a result; a server that is away for a while is asked again."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return http.get(_path(workflow, "/result"), {"wait": f"{wait:.3f}"})
        except Unavailable:
            if time.monotonic() > end:
                raise
            time.sleep(AGAIN_SECONDS)


@contextmanager
def _standing() -> Iterator[Any]:
    """For people, a line that changes; for programs, nothing."""
    if wants_json() or not errors.is_terminal:
        yield lambda text: None
        return
    with errors.status("starting") as status:
        yield status.update


def _stands(http: Http, workflow: str) -> str:
    try:
        found = http.json("GET", _path(workflow), params={"limit": "1"})
    except Unavailable:
        return "the server does not answer"
    seconds = max(0.0, time.time() - found["started"] / 1e6)
    waits = waits_text(found["waits_for"])
    return f"{found['function']} {workflow} {found['status']}{' for ' + waits if waits else ''} ({seconds:.0f} s)"


def _post(workflow: str, operation: str, given: Mapping[str, Any], what: str, url: str, key: str | None) -> Any:
    body = json.dumps(given).encode()
    headers = {"Content-Type": "application/json"}
    found = Http(url, key).post(_path(workflow, f"/{operation}"), body, headers).json()
    say(f"{what} {workflow}")
    show(found)
    return found


def _path(workflow: str, rest: str = "") -> str:
    if not workflow:
        raise WrongArguments("which workflow? its id is missing", hint="list them: apiary workflow list")
    return f"/api/v1/workflows/{quote(workflow, safe='')}{rest}"
