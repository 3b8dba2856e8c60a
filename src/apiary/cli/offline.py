"""Commands that need no server: a new app, restoring a backup, a look at the machine."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from apiary.config import POSTGRESQL
from apiary.engine.health import Check
from apiary.engine.sqlite import health
from apiary.runtime.declaration import NAME
from apiary.runtime.errors import WrongArguments

TEMPLATE = {
    "README.md.txt": "README.md",
    "app.py.txt": "NAME.py",
    "001-create-notes.sql": "migrations/001-create-notes.sql",
    "test_app.py.txt": "tests/test_NAME.py",
}
"""The files of a new app, by their names in `template/`. `NAME` stands for the name of the app."""
POSTGRESQL_HEALTH = "apiary.engine.postgres.health"
"""Imported when a URL asks for it: its driver is heavy."""


def new_app(directory: Path) -> str:
    """Write the files of a new app; returns its name."""
    name = directory.resolve().name.lower().replace("-", "_")
    if not NAME.match(name):
        raise WrongArguments(f"{directory.name!r} cannot name an app", hint="lower-case letters, digits and _")
    if name in sys.stdlib_module_names:
        raise WrongArguments(f"{name} is the name of a module of Python's own", hint="give the app another name")
    if directory.exists() and any(directory.iterdir()):
        raise WrongArguments(f"{directory} is not empty")
    template = files("apiary.cli").joinpath("template")
    texts = {path: template.joinpath(source).read_text(encoding="utf-8") for source, path in TEMPLATE.items()}
    for path, text in {**texts, ".gitignore": ".apiary/\n__pycache__/\n"}.items():
        file = directory / path.replace("NAME", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("NAME", name), encoding="utf-8")
    return name


def restore(source: Path, folder: Path) -> Path:
    """Unpack a backup into a new folder."""
    if folder.exists() and any(folder.iterdir()):
        raise WrongArguments(f"{folder} is not empty", hint="restore into a new folder: --database sqlite:///FOLDER")
    if not source.is_file():
        raise WrongArguments(f"there is no file {source}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        try:
            _unpack_backup(source, Path(fresh))
        except (tarfile.TarError, EOFError) as error:
            why = str(error).partition(":")[0]
            raise WrongArguments(f"{source} is no whole backup: {why}", hint="nothing was restored") from None
        folder.mkdir(exist_ok=True)
        for file in list(Path(fresh).iterdir()):
            file.rename(folder / file.name)
    return folder


def _unpack_backup(source: Path, folder: Path) -> None:
    with tarfile.open(source) as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            if content is None or "/" in entry.name or not entry.name.endswith(".db"):
                raise WrongArguments(f"{source} is no backup: it holds {entry.name!r}")
            with (folder / entry.name).open("wb") as target:
                shutil.copyfileobj(content, target)
            if (folder / entry.name).stat().st_size != entry.size:
                raise tarfile.ReadError(f"it ends within {entry.name}")


def examine(url: str | None, folder: Path) -> list[Check]:
    """Look at this machine, and at the database that a URL names: a server, or a folder, which must be there then."""
    python = sys.version_info
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free
    checks = [
        Check("Python 3.11 or newer", python >= (3, 11), ".".join(map(str, python[:3]))),
        Check("free disk", free > 100 * 2**20, f"{free // 2**20} MiB at {place}"),
    ]
    if url is not None and url.startswith(POSTGRESQL):
        found: list[Check] = import_module(POSTGRESQL_HEALTH).examine(url)
        return checks + found
    version = health.sqlite_version()
    checks.append(Check("SQLite 3.44 or newer", version >= (3, 44), ".".join(map(str, version))))
    if url is not None and not folder.is_dir():
        advice = "name the folder of a server: --database sqlite:///FOLDER"
        checks.append(Check("databases", False, f"there is no folder {folder}", advice))
    for file in sorted(set(folder.glob("*.db")) - set(folder.glob("*.log.db"))):
        checks.append(Check(file.name, *health.examine(file)))
    return checks
