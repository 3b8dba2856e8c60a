"""`apiary dev`: a server for one app while it is written. Watches its files, and shows what happens."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

from rich.text import Text
from watchfiles import awatch

from apiary.bundle import locate, make_bundle
from apiary.cli.output import errors, fail, milliseconds
from apiary.config import Settings, database_folder
from apiary.events import Activated, CallEnded, Event, HostDied
from apiary.gateway.server import run
from apiary.platform.platform import Caller, Platform
from apiary.runtime.errors import Error
from apiary.runtime.ids import id_text

DEVELOPER = Caller("developer", ("admin",))


def develop(path: Path, database: str | None, port: int) -> None:
    """Serve the app at `path` until interrupted."""
    locate(path)
    settings = Settings(folder=database_folder(database), port=port)
    tasks: set[asyncio.Task[None]] = set()

    async def prepare(platform: Platform) -> None:
        platform.watch(lambda event: _print(event, platform))
        await _deploy(path, platform)

    def ready(platform: Platform) -> None:
        address = f"http://{platform.settings.address}:{platform.settings.port}"
        errors.print(f"serving {address} without keys, on this machine only; watching {path} (Ctrl-C ends)")
        for name in platform.apps:
            errors.print(f"try it at {address}/apps/{name}/docs")
        tasks.add(asyncio.get_running_loop().create_task(_follow(path, platform)))

    run(settings, ready, prepare=prepare, trusting=True)


async def _follow(path: Path, platform: Platform) -> None:
    folder = locate(path)[0]
    async for _ in awatch(folder if path.is_dir() else path, debounce=200, step=50):
        await _deploy(path, platform)


async def _deploy(path: Path, platform: Platform) -> None:
    try:
        await platform.deploy(await asyncio.to_thread(make_bundle, path), DEVELOPER)
    except Error as error:
        fail(error)
        errors.print(Text("not deployed; the version before serves on", "yellow"))


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
    elif isinstance(event, Activated):
        errors.print(Text(f"{now} {event.app} {event.version} serves", "bold"))
        for name in event.migrations:
            errors.print(Text(f"         applied {name}"))
    elif isinstance(event, HostDied):
        errors.print(Text(f"{now} the host of {event.app} died: {event.reason}; starting it again", "red"))


async def _print_traceback(event: CallEnded, platform: Platform) -> None:
    found = await platform.app(event.app).ask("show", call=id_text(event.call_id))
    errors.print(Text(str((found["error"] or {}).get("traceback", "")).rstrip(), "red"))
