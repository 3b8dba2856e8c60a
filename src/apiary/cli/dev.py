"""`apiary dev`: a server for one app while it is written. Watches its files, and shows what happens."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from pathlib import Path

from rich.text import Text
from watchfiles import Change, awatch

from apiary.bundle import locate, make_bundle
from apiary.cli.output import errors, explain, milliseconds, say
from apiary.config import POSTGRESQL, Settings, database_folder
from apiary.events import Activated, CallEnded, Event, HostDied, Migrating, WorkflowBegun, WorkflowBlocked
from apiary.gateway.server import run
from apiary.platform.platform import Caller, Platform
from apiary.runtime.errors import BundleRefused, Error, MigrationRefused
from apiary.runtime.ids import id_text

DEVELOPER = Caller("developer", ("admin",))
NEWS_MILLISECONDS = 500


def develop(path: Path, database: str | None, port: int) -> None:
    """Serve the app at `path` until interrupted."""
    settings = Settings(folder=database_folder(database), database=database, port=port)
    session = Session(path, settings)
    run(settings, session.ready, prepare=session.prepare, trusting=True)


class Session:
    """The app that is written, at `path`, and the platform on which it is deployed again and again."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._folder = folder = settings.folder
        self._disposable = not (settings.database or "").startswith(POSTGRESQL)
        self._sources, _ = locate(path)
        self._copies = re.compile(re.escape(str((folder / "code").resolve())) + "/[0-9a-f]+(?=/)")
        self._version: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._platform: Platform

    async def prepare(self, platform: Platform) -> None:
        """Deploy the app for the first time."""
        self._platform = platform
        platform.watch(self._show)
        await self._deploy()

    def ready(self, platform: Platform) -> None:
        """Say where the app is served, and begin to watch its files."""
        url = platform.settings.url
        say(f"serving {url} without keys, on this machine only; watching {self._path} (Ctrl-C ends)")
        for name in platform.apps:
            say(f"try it at {url}/apps/{name}/docs")
        self._tasks.add(asyncio.get_running_loop().create_task(self._follow(self._path.resolve())))

    async def _follow(self, path: Path) -> None:
        """Deploy whatever changes. What changed while a new folder was not watched yet is seen at the first timeout."""
        top = path if path.is_dir() else path.parent

        def visible(change: Change, file: str) -> bool:
            parts = Path(file).relative_to(top).parts
            return not any(part.startswith(".") or part == "__pycache__" for part in parts)

        while True:
            watched, first = _watched(path), True
            async for changes in awatch(
                *watched,
                watch_filter=visible,
                recursive=path.is_dir(),
                debounce=200,
                step=50,
                rust_timeout=NEWS_MILLISECONDS,
                yield_on_timeout=True,
            ):
                if changes or first:
                    first = first and bool(changes)
                    await self._deploy()
                if _watched(path) != watched:
                    break

    async def _deploy(self) -> None:
        """Deploy the app, unless it is what was deployed last."""
        last, self._version = self._version, None
        try:
            bundle = await asyncio.to_thread(make_bundle, self._path)
            self._version = bundle.version
            if bundle.version != last:
                await self._platform.deploy(bundle, DEVELOPER)
        except (Error, OSError) as error:
            refused = error if isinstance(error, Error) else BundleRefused(f"the app cannot be read: {error}")
            if "traceback" in refused.details:
                refused.details["traceback"] = self._own(str(refused.details["traceback"]))
            explain(refused)
            if refused.code == MigrationRefused.code and self._disposable:
                errors.print(Text(f"to begin anew with an empty database: end this, and remove {self._folder}/", "dim"))
            others = "the version before serves on" if self._platform.apps else "nothing serves until that is mended"
            errors.print(Text(f"not deployed; {others}", "yellow"))

    def _own(self, traceback: str) -> str:
        """A traceback through the copy that was deployed, as one through the files of the developer."""
        return self._copies.sub(lambda _: str(self._sources), traceback)

    def _show(self, event: Event) -> None:
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        if isinstance(event, CallEnded):
            self._show_call(event, now)
        elif isinstance(event, WorkflowBegun):
            self._show_workflow(event, now, "begun", "cyan")
        elif isinstance(event, WorkflowBlocked):
            self._show_workflow(event, now, "blocked", "red")
            errors.print(Text(f"         {event.problem.get('detail')}", "red"))
        elif isinstance(event, Migrating):
            names = ", ".join(event.migrations)
            errors.print(Text(f"{now} {event.app} {event.version} applies {names}", "dim"))
        elif isinstance(event, Activated):
            errors.print(Text(f"{now} {event.app} {event.version} serves", "bold"))
            for name in event.migrations:
                errors.print(Text(f"         applied {name}"))
        elif isinstance(event, HostDied):
            errors.print(Text(f"{now} the host of {event.app} died: {event.reason}; starting it again", "red"))

    def _show_workflow(self, event: WorkflowBegun | WorkflowBlocked, now: str, what: str, style: str) -> None:
        name, identifier = f"{event.app}.{event.function} ", f" {id_text(event.call_id)}"
        errors.print(Text.assemble((f"{now} ", "dim"), name, (what, style), (identifier, "dim")))

    def _show_call(self, event: CallEnded, now: str) -> None:
        code = "ok" if event.problem is None else str(event.problem.get("code"))
        style = "green" if code == "ok" else "red" if code == "internal_error" else "yellow"
        functions = self._platform.apps[event.app].manifest.get("functions", {}) if event.queued else {}
        kind = functions.get(event.function, {}).get("kind", "")
        queued = f" ({'workflow' if kind == 'workflow' else 'queued'})" if event.queued else ""
        errors.print(
            Text.assemble(
                (f"{now} ", "dim"),
                f"{event.app}.{event.function}{queued} ",
                (code, style),
                (f" {milliseconds(event.duration)} {id_text(event.call_id)}", "dim"),
            )
        )
        if code == "internal_error":
            task = asyncio.get_running_loop().create_task(self._show_traceback(event))
            task.add_done_callback(lambda done: done.exception())
        elif event.problem is not None:
            errors.print(Text(f"         {event.problem.get('detail')}", style))

    async def _show_traceback(self, event: CallEnded) -> None:
        found = await self._platform.ask_log(event.app, "show", call=id_text(event.call_id))
        traceback = str((found["error"] or {}).get("traceback", ""))
        errors.print(Text(self._own(traceback).rstrip(), "red"))


def _watched(path: Path) -> list[Path]:
    """What to watch for an app. A file is watched by its folder, because editors replace files by new ones."""
    if path.is_dir():
        return [path]
    beside = [path.parent / name for name in ("migrations", "web")]
    inside = [found for folder in beside for found in folder.rglob("*")]
    return [path.parent, *sorted(found for found in [*beside, *inside] if found.is_dir())]
