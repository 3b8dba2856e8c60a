"""`apiary dev`: a server for one app while it is written. Watches its files, and shows what happens."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

from rich.text import Text
from watchfiles import Change, awatch

from apiary.bundle import locate, make_bundle
from apiary.cli.output import errors, explain, milliseconds, say
from apiary.config import Settings, database_folder
from apiary.events import Activated, CallEnded, Event, HostDied, Migrating
from apiary.gateway.server import run
from apiary.platform.platform import Caller, Platform
from apiary.runtime.errors import BundleRefused, Error
from apiary.runtime.ids import id_text

DEVELOPER = Caller("developer", ("admin",))


def develop(path: Path, database: str | None, port: int) -> None:
    """Serve the app at `path` until interrupted."""
    locate(path)
    settings = Settings(folder=database_folder(database), port=port)
    tasks: set[asyncio.Task[None]] = set()
    first: list[str | None] = []

    async def prepare(platform: Platform) -> None:
        platform.watch(lambda event: _print(event, platform))
        first.append(await _deploy(path, platform, None))

    def ready(platform: Platform) -> None:
        url = platform.settings.url
        say(f"serving {url} without keys, on this machine only; watching {path} (Ctrl-C ends)")
        for name in platform.apps:
            say(f"try it at {url}/apps/{name}/docs")
        tasks.add(asyncio.get_running_loop().create_task(_follow(path.resolve(), platform, first[0])))

    run(settings, ready, prepare=prepare, trusting=True)


async def _follow(path: Path, platform: Platform, last: str | None) -> None:
    """Deploy whatever changes. A file is watched by its folder, because editors replace files by new ones."""
    watched = [path]
    if path.is_file():
        watched = [
            path.parent,
            *(path.parent / name for name in ("migrations", "web") if (path.parent / name).is_dir()),
        ]

    def visible(change: Change, file: str) -> bool:
        parts = Path(file).relative_to(path if path.is_dir() else path.parent).parts
        return not any(part.startswith(".") or part == "__pycache__" for part in parts)

    async for _ in awatch(*watched, watch_filter=visible, recursive=path.is_dir(), debounce=200, step=50):
        last = await _deploy(path, platform, last)


async def _deploy(path: Path, platform: Platform, last: str | None) -> str | None:
    """Deploy the app, unless it is what was deployed last; returns its version, or none where it cannot be read."""
    version = None
    try:
        bundle = await asyncio.to_thread(make_bundle, path)
        version = bundle.version
        if version != last:
            await platform.deploy(bundle, DEVELOPER)
    except (Error, OSError) as error:
        explain(error if isinstance(error, Error) else BundleRefused(f"the app cannot be read: {error}"))
        errors.print(Text("not deployed; the version before serves on", "yellow"))
    return version


def _print(event: Event, platform: Platform) -> None:
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    if isinstance(event, CallEnded):
        code = "ok" if event.problem is None else str(event.problem.get("code"))
        style = "green" if code == "ok" else "red" if code == "internal_error" else "yellow"
        queued = " (queued)" if event.queued else ""
        errors.print(
            Text.assemble(
                (f"{now} ", "dim"),
                f"{event.app}.{event.function}{queued} ",
                (code, style),
                (f" {milliseconds(event.duration)} {id_text(event.call_id)}", "dim"),
            )
        )
        if code == "internal_error":
            task = asyncio.get_running_loop().create_task(_print_traceback(event, platform))
            task.add_done_callback(lambda done: done.exception())
        elif event.problem is not None:
            errors.print(Text(f"         {event.problem.get('detail')}", style))
    elif isinstance(event, Migrating):
        names = ", ".join(event.migrations)
        errors.print(Text(f"{now} {event.app} {event.version} applies {names}", "dim"))
    elif isinstance(event, Activated):
        errors.print(Text(f"{now} {event.app} {event.version} serves", "bold"))
        for name in event.migrations:
            errors.print(Text(f"         applied {name}"))
    elif isinstance(event, HostDied):
        errors.print(Text(f"{now} the host of {event.app} died: {event.reason}; starting it again", "red"))


async def _print_traceback(event: CallEnded, platform: Platform) -> None:
    found = await platform.app(event.app).ask("show", call=id_text(event.call_id))
    errors.print(Text(str((found["error"] or {}).get("traceback", "")).rstrip(), "red"))
