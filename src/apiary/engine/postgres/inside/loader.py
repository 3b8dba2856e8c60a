"""Loads programs in a backend and keeps the modules of each apart; `shim.sql` takes this source with it.

Standard library only: the platform's own code is among what it loads. A program is a list of archives: the app's
sources, then its libraries, the last being the platform. Programs with the same libraries have them in common.

Archives are unpacked below the data directory, for all sessions and databases of the server. A session has a shared
lock on each folder that it loads modules from; what nobody has locked for long is removed by one that unpacks another.
"""

import fcntl
import importlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

ROOT = os.path.join(os.getcwd(), "apiary") + os.sep
ENTRY = "apiary.engine.postgres.inside.program"
MAX_PROGRAMS = 8
"""In one session; of more, those that were used least lately are forgotten."""

KEPT_SECONDS = 3600
"""So long a folder stays after a session has begun to use it, be it in use or not."""

Modules = dict[str, ModuleType]


class Program:
    """A program of this session: its row of `apiary.program`, its folders, what the platform made of them."""

    def __init__(self, name: str, row: Any, folders: list[str]) -> None:
        self.name = name
        self.row = row
        self.folders = folders
        self.loaded: Any = None
        sources, *libraries = folders
        hidden = set(os.listdir(sources)) & {entry for folder in libraries for entry in os.listdir(folder)}
        self.libraries = name if hidden else ":".join(libraries)

    def owns(self, place: str) -> bool:
        """Whether a module that lies there is this program's alone."""
        return self.libraries == self.name or place.startswith(self.folders[0] + os.sep)

    def busy(self) -> bool:
        """Whether one of its calls runs now."""
        return self.loaded is not None and bool(self.loaded.busy())


class Loader:
    """The programs of a session. One at a time has its modules in `sys.modules`; those of the others lie aside.

    `_shared` are the names of those modules that are libraries, `_outside` of those that come from no archive. `_used`
    are the folders on which the session has a lock.
    """

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy
        self._programs: dict[str, Program] = {}
        self._aside: dict[str, Modules] = {}
        self._shared: set[str] = set()
        self._outside: set[str] = set()
        self._current: str | None = None
        self._targets: dict[str, Callable[[str, str, str], str | None]] = {}
        self._failures: list[str] = []
        self._used: dict[str, int] = {}

    def run(self, program: str, batch: bytes) -> Any:
        """Run a batch of calls of a program."""
        return self._within(program, lambda loaded: loaded.run(batch))

    def call(self, target: str, arguments: str, login: str, role: str) -> str | None:
        """Run a call from SQL. `target`: a program, a function, and `recorded` or not, with colons between.

        Returns the text of the result. `None`: it has none, or `failure` tells why not.
        """
        call = self._targets.get(target)
        if call is not None:
            return call(arguments, login, role)
        program, function, how = target.split(":")

        def first(loaded: Any) -> str | None:
            self._targets[target] = loaded.function(function, how == "recorded")
            return self._targets[target](arguments, login, role)

        found: str | None = self._within(program, first)
        return found

    def confined(self) -> None:
        """Run the body of a query of the program that runs, in the statement that asks for this."""
        if self._current is not None:
            self._programs[self._current].loaded.confined()

    def failure(self) -> str | None:
        """The failure of the last call, in JSON, if it failed."""
        return self._failures.pop() if self._failures else None

    def _within(self, program: str, work: Callable[[Any], Any]) -> Any:
        """Do something with a program. Where that is part of a call of another one, go back to that afterwards."""
        before = self._current
        if before == program:
            return work(self._programs[program].loaded)
        try:
            return work(self._enter(program).loaded)
        finally:
            around = self._programs.get(before or "")
            if around is not None and around.busy():
                self._enter(around.name)

    def _enter(self, name: str) -> Program:
        program = self._programs.pop(name, None) or self._find(name)
        self._leave(program.libraries)
        self._programs[name] = program
        self._current = name
        sys.path[:0] = program.folders
        if program.libraries != name and not self._shared:
            shared = self._aside.pop(program.libraries, {})
            self._shared.update(shared)
            sys.modules.update(shared)
        sys.modules.update(self._aside.pop(name, {}))
        try:
            if program.loaded is None:
                program.loaded = importlib.import_module(ENTRY).load(program.row, self._failures)
                self._forget()
        except BaseException:
            self._leave(None)
            del self._programs[name], self._aside[name]
            raise
        program.loaded.resume()
        return program

    def _leave(self, libraries: str | None) -> None:
        """Put the modules of the present program aside, but for `libraries`. Those of an earlier loader are dropped."""
        program = self._programs.get(self._current or "")
        own: Modules = {}
        for name in sys.modules.keys() - self._outside - self._shared:
            place = _place(sys.modules[name])
            if place is None:
                self._outside.add(name)
            elif program is None or program.owns(place):
                own[name] = sys.modules.pop(name)
            else:
                self._shared.add(name)
        if program is not None:
            self._aside[program.name] = own
            if program.libraries != libraries and self._shared:
                self._aside[program.libraries] = {
                    name: sys.modules.pop(name) for name in self._shared & sys.modules.keys()
                }
                self._shared.clear()
        sys.path[:] = [entry for entry in sys.path if not entry.startswith(ROOT)]
        self._targets.clear()
        self._current = None

    def _find(self, name: str) -> Program:
        found = self._plpy.execute(self._plpy.prepare("select * from apiary.program($1)", ["text"]), [name])
        if not found:
            self._plpy.error("there is no program " + name, sqlstate="AP404")
        return Program(name, found[0], [self._folder(archive) for archive in found[0]["archives"]])

    def _forget(self) -> None:
        idle = [name for name, program in self._programs.items() if name != self._current and not program.busy()]
        for name in idle[: max(0, len(self._programs) - MAX_PROGRAMS)]:
            libraries = self._programs.pop(name).libraries
            self._aside.pop(name, None)
            if all(program.libraries != libraries for program in self._programs.values()):
                self._aside.pop(libraries, None)
        wanted = {folder for program in self._programs.values() for folder in program.folders}
        for folder in self._used.keys() - wanted:
            os.close(self._used.pop(folder))

    def _folder(self, archive: str) -> str:
        """The folder of an archive, with a lock on it: it may be removed until there is one, and is unpacked again."""
        folder = ROOT + archive
        while folder not in self._used:
            try:
                used = _locked(folder, fcntl.LOCK_SH)
            except FileNotFoundError:
                self._unpack(archive, folder)
                continue
            if _is(folder, used):
                self._used[folder] = used
                os.utime(folder)
            else:
                os.close(used)
        return folder

    def _unpack(self, archive: str, folder: str) -> None:
        plan = self._plpy.prepare("select apiary.archive($1) as content", ["text"])
        content = self._plpy.execute(plan, [archive])[0]["content"]
        os.makedirs(ROOT, mode=0o700, exist_ok=True)
        fresh = tempfile.mkdtemp(dir=ROOT)
        with tarfile.open(fileobj=io.BytesIO(content)) as packed:
            packed.extractall(fresh)
        try:
            os.rename(fresh, folder)
        except OSError:
            shutil.rmtree(fresh)
        _remove_unused()


def _remove_unused() -> None:
    """Remove the folders that no session uses and none has begun to use for long, and what was left half unpacked."""
    for name in os.listdir(ROOT):
        folder = ROOT + name
        with suppress(OSError):  # it is in use, or gone
            if time.time() - os.stat(folder).st_mtime > KEPT_SECONDS:
                used = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    aside = tempfile.mkdtemp(dir=ROOT)
                    os.rename(folder, aside)  # whoever waits for the lock finds out
                finally:
                    os.close(used)
                shutil.rmtree(aside)


def _locked(folder: str, how: int) -> int:
    """A descriptor of a folder, with a lock that lasts until it is closed."""
    used = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(used, how)
    except OSError:
        os.close(used)
        raise
    return used


def _is(folder: str, used: int) -> bool:
    """Whether this is what the descriptor has open."""
    try:
        return os.path.samestat(os.stat(folder), os.fstat(used))
    except FileNotFoundError:
        return False


def _place(module: ModuleType) -> str | None:
    """Where a module was loaded from, if that is one of the archives."""
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return next((place for place in places if place is not None and place.startswith(ROOT)), None)
