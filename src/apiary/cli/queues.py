"""`apiary queues`: what waits in the queues of apps, what runs; and a queue can be paused."""

from __future__ import annotations

import time
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer
from rich.text import Text

from apiary.cli.options import LOCAL, Key, Url
from apiary.cli.output import say, show, table
from apiary.client import Http

app = typer.Typer(help="Queues: what waits in them, what runs, and which are paused.", invoke_without_command=True)

App = Annotated[str, typer.Argument(metavar="APP", help="The app.")]
Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The name of the queue.")]


@app.callback()
def queues(
    context: typer.Context,
    only: Annotated[Optional[str], typer.Option("--app", help="Only those of this app.")] = None,  # noqa: UP045 - typer
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """List the queues of all apps, or of one; or pause one and resume it."""
    if context.invoked_subcommand is not None:
        return
    http = Http(url, key)
    names = [only] if only is not None else [found["app"] for found in http.get("/api/v1/apps", {}).json()]
    found = [{"app": name, **queue} for name in names for queue in http.get(_path(name), {}).json()]
    columns = ["app", "queue", "waiting", "later", "running", "oldest", "limits", ""]
    table("queues", columns, [_row(queue) for queue in found], found)


@app.command()
def pause(app_name: App, queue: Queue, url: Url = LOCAL, key: Key = None) -> None:
    """Begin no more calls of a queue. Those that run go on, and it can be filled."""
    _post(app_name, queue, "pause", "paused", url, key)


@app.command()
def resume(app_name: App, queue: Queue, url: Url = LOCAL, key: Key = None) -> None:
    """Begin calls of a queue again."""
    _post(app_name, queue, "resume", "resumed", url, key)


def _post(app_name: str, queue: str, operation: str, what: str, url: str, key: str | None) -> None:
    found = Http(url, key).post(_path(app_name, f"/{quote(queue, safe='')}/{operation}"), b"", {}).json()
    say(f"{what} {app_name} {queue}")
    show(found)


def _path(app_name: str, rest: str = "") -> str:
    return f"/api/v1/apps/{quote(app_name, safe='')}/queues{rest}"


def _row(queue: dict[str, Any]) -> list[Any]:
    oldest = "" if queue["oldest"] is None else f"{max(0.0, time.time() - queue['oldest'] / 1e6):.1f} s"
    name = queue["queue"] or Text("(none)", "dim")
    state = Text("paused", "yellow") if queue["paused"] else ""
    numbers = [queue["waiting"], queue["later"], queue["running"]]
    return [queue["app"], name, *numbers, oldest, _limits(queue), state]


def _limits(queue: dict[str, Any]) -> str:
    limits = []
    if queue["concurrency"] is not None:
        limits.append(f"{queue['concurrency']} at once")
    if queue["rate"] is not None:
        limits.append(f"{queue['rate'][0]} in {queue['rate'][1]:g} s")
    if queue["fair_by"] is not None:
        limits.append(f"fair by {queue['fair_by']}")
    return ", ".join(limits)
