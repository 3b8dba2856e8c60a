"""Commands that need no server: a new app, restoring a backup, a look at the machine."""

from __future__ import annotations

import shutil
import sys
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw

from apiary.runtime.declaration import NAME
from apiary.runtime.errors import WrongArguments

MODULE = '''"""The app {name}."""

from apiary import App, Rejected, Transaction

app = App("{name}")


@app.query
def notes(tx: Transaction) -> list[str]:
    """All notes, the latest first."""
    return tx.execute("select text from notes order by id desc").scalars()


@app.transaction
def add_note(tx: Transaction, text: str) -> int:
    """Keep a note; returns how many there are."""
    if not text.strip():
        raise Rejected("a note needs some text", code="empty_note")
    tx.execute("insert into notes (text, at) values (:text, :at)", text=text, at=tx.now)
    return tx.execute("select count(*) from notes").scalar()
'''
MIGRATION = """create table notes (
    id integer primary key,
    text text not null,
    at timestamp not null
);
"""
TEST = '''"""Tests of {name}: each has a fresh database. Run them with pytest."""

from pathlib import Path

import apiary
import pytest

APP = Path(__file__).parent.parent / "{name}.py"


def test_a_note_is_kept(apiary_app):
    app = apiary_app(APP)
    assert app.call("add_note", text="hello") == 1
    assert app.call("notes") == ["hello"]


def test_an_empty_note_is_refused(apiary_app):
    with pytest.raises(apiary.Rejected, match="needs some text"):
        apiary_app(APP).call("add_note", text=" ")
'''


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    good: bool
    found: str

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def new_app(directory: Path) -> str:
    """Write the files of a new app; returns its name."""
    name = directory.resolve().name.lower().replace("-", "_")
    if not NAME.match(name):
        raise WrongArguments(f"{directory.name!r} cannot name an app", hint="lower-case letters, digits and _")
    if directory.exists() and any(directory.iterdir()):
        raise WrongArguments(f"{directory} is not empty")
    files = {
        f"{name}.py": MODULE.format(name=name),
        "migrations/001-create-notes.sql": MIGRATION,
        f"tests/test_{name}.py": TEST.format(name=name),
        ".gitignore": ".apiary/\n__pycache__/\n",
    }
    for path, text in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return name


def restore(source: Path, folder: Path) -> Path:
    """Unpack a backup into a new folder."""
    if folder.exists() and any(folder.iterdir()):
        raise WrongArguments(f"{folder} is not empty", hint="restore into a new folder: --database sqlite:///FOLDER")
    if not source.is_file():
        raise WrongArguments(f"there is no file {source}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(source) as archive:
            for entry in archive:
                content = archive.extractfile(entry)
                if content is None or "/" in entry.name or not entry.name.endswith(".db"):
                    raise WrongArguments(f"{source} is no backup: it holds {entry.name!r}")
                with (folder / entry.name).open("wb") as target:
                    shutil.copyfileobj(content, target)
    except tarfile.TarError as error:
        raise WrongArguments(f"{source} is no backup: {error}") from None
    return folder


def examine(folder: Path) -> list[Check]:
    """Look at Python, SQLite, the disk and the databases of a folder."""
    python = sys.version_info
    checks = [
        Check("Python 3.11 or newer", python >= (3, 11), ".".join(map(str, python[:3]))),
        Check("SQLite 3.44 or newer", _sqlite() >= (3, 44), apsw.sqlite_lib_version()),
    ]
    place = folder if folder.exists() else folder.absolute().parent
    free = shutil.disk_usage(place).free
    checks.append(Check("free disk", free > 100 * 2**20, f"{free // 2**20} MiB at {place}"))
    for file in sorted(folder.glob("*.db")):
        checks.append(_database(file))
    return checks


def _sqlite() -> tuple[int, ...]:
    return tuple(map(int, apsw.sqlite_lib_version().split(".")))


def _database(file: Path) -> Check:
    try:
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        found = connection.execute("pragma quick_check(1)").fetchall()[0][0]
        calls = connection.execute("select count(*) from apiary_calls").fetchall()[0][0]
        queued = connection.execute("select count(*) from apiary_queue").fetchall()[0][0]
        connection.close()
    except apsw.Error as error:
        return Check(file.name, False, str(error))
    return Check(file.name, found == "ok", f"{found}; {calls} calls recorded, {queued} waiting in the queue")
