"""The commands."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional
from urllib.parse import quote

import typer
from rich.text import Text

from apiary import __version__
from apiary.bundle import make_bundle
from apiary.cli import log as log_commands
from apiary.cli import offline
from apiary.cli import queues as queue_commands
from apiary.cli import replay as replay_command
from apiary.cli import workflow as workflow_commands
from apiary.cli.options import LOCAL, Key, Url
from apiary.cli.output import Output, arguments_of, fail, say, show, table
from apiary.cli.progress import tell, waits_told
from apiary.client import Http
from apiary.config import (
    LEASE_SECONDS,
    MIGRATE_SECONDS,
    MIN_LEASE_SECONDS,
    POSTGRESQL,
    Capturing,
    Settings,
    database_folder,
    server_folder,
)
from apiary.engine.health import Check
from apiary.given import given_key
from apiary.runtime.errors import Error, WrongArguments

# What only servers need is loaded by the commands that serve: the others start in half the time.
if TYPE_CHECKING:
    from apiary.platform.platform import Platform

app = typer.Typer(
    name="apiary",
    help="Functions that run as transactions inside the database.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(workflow_commands.app, name="workflow")
app.add_typer(queue_commands.app, name="queues")
app.add_typer(log_commands.app, name="log")
app.command()(replay_command.replay)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, also to a terminal (anywhere).")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Functions that run as transactions inside the database."""
    Output.json = as_json


@app.command()
def new(directory: Annotated[Path, typer.Argument(help="The folder to make.")]) -> None:
    """Make a new app: a module, a migration, a test, a README."""
    name = offline.new_app(directory)
    say(f"made {directory}; what to do next, in there (its README.md says more):")
    say(f"  cd {directory}")
    say("  apiary dev .                    serve it while you write it")
    say("  python -m pip install pytest    what its tests want, once")
    say("  python -m pytest                run its tests")
    show({"app": name, "path": str(directory)})


@app.command()
def serve(
    database: Annotated[
        Optional[str],  # noqa: UP045 - typer
        typer.Option(
            "--database", envvar="APIARY_DATABASE", help="sqlite:///FOLDER or postgresql://…; default: .apiary/"
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", envvar="APIARY_PORT", min=0, max=65535, help="The port; 0 for any.")
    ] = 8000,
    anonymous_calls: Annotated[bool, typer.Option("--anonymous-calls", help="Take calls without a key.")] = False,
    max_request_bytes: Annotated[int, typer.Option(min=1, help="The largest request.")] = 1024 * 1024,
    max_waiting_calls: Annotated[int, typer.Option(min=1, help="Calls of one app in flight; more are refused.")] = 1024,
    host_memory_mb: Annotated[int, typer.Option(min=0, help="Memory of one host, in MiB; 0: no limit.")] = 1024,
    capture: Annotated[
        Capturing, typer.Option(help="What the log keeps, on SQLite, of what calls read and write.")
    ] = Capturing.BOTH,
    folder: Annotated[
        Optional[Path],  # noqa: UP045 - typer
        typer.Option(envvar="APIARY_FOLDER", help="Beside PostgreSQL, files of this machine; default: .apiary/"),
    ] = None,
    lease_seconds: Annotated[
        float, typer.Option(min=MIN_LEASE_SECONDS, help="Silence after which other servers take this one for lost.")
    ] = LEASE_SECONDS,
    keep_workflows_days: Annotated[
        Optional[float],  # noqa: UP045 - typer
        typer.Option(min=0.0, help="So long the steps of workflows that ended are kept; default: for ever."),
    ] = None,
) -> None:
    """Run a server. The first key of a new platform is APIARY_ADMIN_KEY, or is made and printed once."""
    from apiary.gateway.server import run

    settings = Settings(
        folder=server_folder(database, folder),
        database=database,
        address=host,
        port=port,
        admin_key=os.environ.get("APIARY_ADMIN_KEY") or None,
        anonymous_calls=anonymous_calls,
        max_request_bytes=max_request_bytes,
        max_waiting_calls=max_waiting_calls,
        host_memory_bytes=host_memory_mb * 1024 * 1024,
        lease_seconds=lease_seconds,
        keep_workflows_days=keep_workflows_days,
        recording=os.environ.get("APIARY_UNSAFE_NO_RECORD") != "1",
        capture=capture,
    )

    def ready(platform: Platform) -> None:
        platform.watch(tell)
        chosen = platform.settings
        if platform.new_admin_key:
            say(f"the admin key of this new platform, shown once: {platform.new_admin_key}")
        say(f"serving {chosen.url} (process {os.getpid()}, {platform.description})")

    run(settings, ready)


@app.command()
def dev(
    path: Annotated[Path, typer.Argument(help="The app: a file, a package, or a folder.")],
    database: Annotated[Optional[str], typer.Option("--database", help="sqlite:///FOLDER or postgresql://…")] = None,  # noqa: UP045
    port: Annotated[
        int, typer.Option("--port", envvar="APIARY_PORT", min=0, max=65535, help="The port; 0 for any.")
    ] = 8000,
) -> None:
    """Serve an app while you write it: deploy, watch, reload, show calls as they happen. Takes calls without a key."""
    from apiary.cli.dev import develop

    develop(path, database, port)


@app.command()
def deploy(
    path: Annotated[Path, typer.Argument(help="The app: a file, a package, or a folder.")],
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Deploy an app: new calls use it, calls in flight finish on the version before."""
    bundle = make_bundle(path)
    http = Http(url, key, timeout=600 + MIGRATE_SECONDS)
    with waits_told(url, key):
        result = http.json("POST", "/api/v1/apps", params={"module": bundle.module}, content=bundle.content)
    for name in result["migrations"]:
        say(f"applied the migration {name}")
    say(f"{result['app']} {result['version']} serves; its docs are at {url}/apps/{result['app']}/docs")
    show(result)


@app.command(context_settings={"ignore_unknown_options": True})
def call(
    app_name: Annotated[str, typer.Argument(metavar="APP")],
    function: Annotated[str, typer.Argument(metavar="FUNCTION")],
    arguments: Annotated[Optional[list[str]], typer.Argument(metavar="[NAME=VALUE]...")] = None,  # noqa: UP045
    idempotency_key: Annotated[Optional[str], typer.Option(help="Repeat a call safely.")] = None,  # noqa: UP045
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Start a workflow, and print its id.")] = False,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Call a function. A value is JSON where it can be read as such, else text: `user=7 name=bee tags='["a"]'`."""
    headers = {"Content-Type": "application/json", "Prefer": f"respond-async{', handling=strict' if no_wait else ''}"}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = str(given_key(idempotency_key))
    body = json.dumps(arguments_of(arguments or [])).encode()
    http = Http(url, key)
    response = http.post(f"/apps/{quote(app_name, safe='')}/{quote(function, safe='')}", body, headers)
    if response.status_code == workflow_commands.ACCEPTED and not no_wait:
        workflow_commands.print_result(http, response.json()["id"])
    else:
        show(response.json())


@app.command()
def versions(app_name: Annotated[str, typer.Argument(metavar="APP")], url: Url = LOCAL, key: Key = None) -> None:
    """The versions of an app, the latest activated first."""
    found = Http(url, key).json("GET", f"/api/v1/apps/{app_name}/versions")
    rows = [
        (version["version"], "serving" if version["active"] else "", version["activated"], version["created_by"])
        for version in found
    ]
    table(f"versions of {app_name}", ("version", "", "activated", "by"), rows, found)


@app.command()
def rollback(
    app_name: Annotated[str, typer.Argument(metavar="APP")],
    version: Annotated[Optional[str], typer.Argument(help="Default: the version before the present.")] = None,  # noqa: UP045
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Let an older version serve again. The database stays as it is: migrations are not undone."""
    result = Http(url, key).json(
        "POST", f"/api/v1/apps/{app_name}/rollback", params={"version": version} if version else {}
    )
    say(f"{result['app']} serves {result['version']} again")
    show(result)


@app.command()
def servers(url: Url = LOCAL, key: Key = None) -> None:
    """The servers that share the database, and what they run."""
    found = Http(url, key).json("GET", "/api/v1/servers")
    rows = []
    for server in found:
        state = "lost" if server["lost"] else f"gave a sign of life {server['silent_seconds']:.1f} s ago"
        hosts = [f"{host['app']} {host['version']}{' (ended)' * bool(host['lost'])}" for host in server["hosts"]]
        rows.append((server["id"], server["description"], server["started"], state, "\n".join(hosts)))
    table("servers", ("server", "", "started", "", "hosts"), rows, found)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="The file to write (tar).")], url: Url = LOCAL, key: Key = None
) -> None:
    """Write all databases of a running server into one file."""
    if target.exists():
        raise WrongArguments(f"{target} exists already", hint="name a new file")
    unfinished = target.with_name(f"{target.name}.part")
    with Http(url, key, timeout=3600).stream("GET", "/api/v1/backup") as response:
        try:
            with unfinished.open("wb") as file:
                for part in response.iter_bytes():
                    file.write(part)
            unfinished.rename(target)
        finally:
            unfinished.unlink(missing_ok=True)
    show({"file": str(target), "bytes": target.stat().st_size})


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A file that `apiary backup` wrote.")],
    database: Annotated[Optional[str], typer.Option("--database", help="sqlite:///FOLDER, a new one.")] = None,  # noqa: UP045
) -> None:
    """Put a backup into a new folder, from which a server can then be started."""
    if database is not None and database.startswith(POSTGRESQL):
        raise WrongArguments(
            "a backup is restored into a folder", hint="a platform on PostgreSQL is restored with pg_restore or psql"
        )
    show({"folder": str(offline.restore(source, database_folder(database)))})


@app.command()
def doctor(
    database: Annotated[
        Optional[str],  # noqa: UP045 - typer
        typer.Option(
            "--database", envvar="APIARY_DATABASE", help="sqlite:///FOLDER or postgresql://…; default: .apiary/"
        ),
    ] = None,
) -> None:
    """Look at this machine and at a database: is everything as it must be? Changes nothing."""
    checks = offline.examine(database, database_folder(database))
    rows = [(check.name, _verdict(check), check.found, check.advice) for check in checks]
    table("doctor", ("check", "", "found", "what to do"), rows, [check.as_json() for check in checks])
    if not all(check.good for check in checks):
        raise typer.Exit(1)


def _verdict(check: Check) -> Text:
    if not check.good:
        return Text("problem", "red")
    return Text("note", "yellow") if check.advice else Text("ok", "green")


def main() -> None:
    """Run the command line."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    if len(arguments) < len(sys.argv) - 1:
        arguments.insert(0, "--json")
    try:
        app(arguments, prog_name="apiary")
    except Error as error:
        sys.exit(fail(error).exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read the output has enough of it
        sys.exit(141)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(fail(WrongArguments(f"{place}{error.strerror or error}")).exit_code)
