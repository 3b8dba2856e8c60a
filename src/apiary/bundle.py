"""Bundles: what a deploy ships. The sources of an app as one archive, the same bytes for the same sources."""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
import os
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from apiary.runtime.call import user_traceback
from apiary.runtime.declaration import App
from apiary.runtime.errors import BundleRefused, Error, MigrationRefused, PayloadTooLarge, Unavailable

MAX_BUNDLE_BYTES = 32 * 1024 * 1024
SKIPPED_FOLDERS = {"__pycache__", "node_modules", "venv", "tests", "dist", "build"}
SKIPPED_FILES = (".pyc", ".pyo", ".db", ".db-wal", ".db-shm")
REQUIREMENTS = "requirements.txt"
DISK_FAILED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
DIALECTS = {"sqlite", "postgresql"}


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of an app's `migrations/`: its name, its SQL, and the SHA-256 of that SQL."""

    name: str
    sql: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The archive of an app: `module` is what to import, `content` a tar file, `version` the hash of both."""

    module: str
    content: bytes

    def __post_init__(self) -> None:
        if self.module in sys.stdlib_module_names:  # it would be imported in place of the app
            raise BundleRefused(
                f"{self.module} is the name of a module of Python's own", hint="give the app another name"
            )

    @property
    def version(self) -> str:
        """The name of this code: the first 12 hexadecimal digits of the SHA-256 of all that it ships."""
        return hashlib.sha256(self.module.encode() + b"\0" + self.content).hexdigest()[:12]


def locate(path: Path) -> tuple[Path, str]:
    """The folder to import from and the module to import, for a file, a package, or a folder that holds one of them."""
    path = path.resolve()
    if path.is_file() and path.suffix == ".py":
        return path.parent, path.stem
    if (path / "__init__.py").is_file():
        return path.parent, path.name
    if path.is_dir():
        inside = [p for p in path.iterdir() if (p / "__init__.py").is_file() and p.name not in SKIPPED_FOLDERS]
        named = [p for p in inside if p.name == path.name] or inside
        if len(named) == 1:
            return path, named[0].name
        if not named:
            files = [p for p in path.glob("*.py") if "App(" in p.read_text(encoding="utf-8", errors="replace")]
            same = [p for p in files if p.stem == path.name] or files
            if len(same) == 1:
                return path, same[0].stem
            named = files
        if named:
            names = ", ".join(sorted(found.name for found in named))
            raise BundleRefused(f"{path} holds several that may be the app: {names}", hint="name one of them")
    raise BundleRefused(
        f"there is no app at {path}",
        hint="name a Python file that makes an App, a package, or a folder that holds one of them",
    )


def make_bundle(path: Path) -> Bundle:
    """Pack the app at `path`. Only the module, its migrations and `requirements.txt` travel; never hidden files."""
    folder, module = locate(path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, file in sorted(_files(folder, module)):
            entry = tarfile.TarInfo(name)
            entry.size = file.stat().st_size
            entry.mode = 0o644
            if buffer.tell() + entry.size > MAX_BUNDLE_BYTES:
                raise PayloadTooLarge(
                    f"the bundle is larger than {MAX_BUNDLE_BYTES // 2**20} MiB",
                    hint="keep data out of the package: load it by a function",
                )
            content = file.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return Bundle(module, buffer.getvalue())


def disk_failed(error: OSError) -> bool:
    """Whether a file could not be written for a reason of the disk, which may pass."""
    return error.errno in DISK_FAILED


def unpack(content: bytes, folder: Path) -> None:
    """Write the files of an archive into a new folder. Nothing outside of it can be written."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:  # packed archives may grow without end
            for entry in archive:
                name = PurePosixPath(entry.name)
                plain = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse() and name.parts
                if not plain or name.is_absolute() or ".." in name.parts:
                    raise BundleRefused(f"the bundle holds {entry.name!r}, which is no plain file inside it")
                source = archive.extractfile(entry)
                target = folder.joinpath(*name.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    file.write(source.read() if source else b"")
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and disk_failed(error):
            raise Unavailable(f"the files of the bundle cannot be written: {error.strerror}") from error
        raise BundleRefused(f"the bundle is no readable archive: {error}") from error


def load_app(module: str) -> App:
    """Import a module and find its `App`. `BundleRefused`, with the traceback, where that does not work."""
    try:
        imported = importlib.import_module(module)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        refused = BundleRefused(f"the module {module} cannot be imported: {error}", traceback=user_traceback(error))
        if isinstance(error, Error) and error.hint:
            refused.hint = error.hint
        raise refused from error
    apps = {id(value): value for value in vars(imported).values() if isinstance(value, App)}
    if len(apps) != 1:
        names = ", ".join(app.name for app in apps.values()) or "none"
        raise BundleRefused(f"the module {module} must have one App; it has {names}", hint='write app = App("name")')
    return next(iter(apps.values()))


def load_from(path: Path) -> App:
    """The app of a file or folder, imported into this process."""
    folder, module = locate(path)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    app = load_app(module)
    loaded = Path(sys.modules[module].__file__ or "").resolve()
    if folder not in loaded.parents:
        raise BundleRefused(
            f"{path} was not loaded, because a module named {module} is in use already: {loaded}",
            hint="give it a name of its own",
        )
    return app


def migrations_of(app: App, dialect: str, within: Path | None = None) -> list[Migration]:
    """The migrations of an app, whose folder must be there where it names one, and lie `within` what was deployed."""
    folder = app.migrations.resolve()
    if app.names_migrations and not folder.is_dir():
        raise BundleRefused(
            f"the app {app.name} names {app.migrations.name!r} as the folder of its migrations, which is not there",
            hint="correct the name; of a single file, `deploy` packs only migrations/ and web/ beside it",
        )
    if within is not None and folder.is_dir() and not folder.is_relative_to(within.resolve()):
        raise BundleRefused(
            f"the migrations of the app {app.name} lie outside of its bundle: {app.migrations}",
            hint="name the folder as it lies beside the module, or within the package",
        )
    return read_migrations(folder, dialect)


def read_migrations(folder: Path, dialect: str) -> list[Migration]:
    """The migrations in a folder, in the order of their numbers: `001-name.sql`, `002-…`.

    Where there are several of one number, `001-name.postgresql.sql` is for PostgreSQL alone, as `.sqlite.sql` is for
    SQLite, and `001-name.sql` for the databases that have none of their own.
    """
    if not folder.is_dir():
        return []
    found: dict[int, Path] = {}
    for file in sorted(folder.glob("*.sql")):
        number, only = migration_number(file.name), _only_for(file)
        if only not in (None, dialect):
            continue
        other = found.get(number)
        if other is not None and _only_for(other) == only:
            raise BundleRefused(f"two migrations have the number {number}: {other.name}, {file.name}")
        if other is None or only is not None:
            found[number] = file
    return [_read_migration(found[number]) for number in sorted(found)]


def _only_for(file: Path) -> str | None:
    """The kind of database that a migration is for, if it is not for all."""
    dialect = file.suffixes[-2][1:] if len(file.suffixes) > 1 else ""
    return dialect if dialect in DIALECTS else None


def _read_migration(file: Path) -> Migration:
    try:
        sql = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleRefused(f"the migration {file.name} is not UTF-8: {error}") from error
    return Migration(file.name, sql, hashlib.sha256(sql.encode()).hexdigest())


def migration_number(name: str) -> int:
    """The number with which the name of a migration begins; `BundleRefused` where it has none."""
    number = re.match(r"[0-9]+", name)
    if number is None:
        raise BundleRefused(f"the migration {name} has no number", hint="name it like 001-create-items.sql")
    return int(number[0])


def migrations_to_apply(migrations: Sequence[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """Those that are new, in order; `MigrationRefused` where one was changed, or comes before one that was applied."""
    for migration in migrations:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationRefused(
                f"the migration {migration.name} was changed after it had been applied",
                hint="put it back as it was, and write the change as a new migration",
            )
    new = [migration for migration in migrations if migration.name not in applied]
    last = max(applied, key=migration_number, default="")
    if new and last and migration_number(new[0].name) <= migration_number(last):
        raise MigrationRefused(
            f"the migration {new[0].name} does not come after {last}, which is applied already",
            hint="give it a higher number",
        )
    return new


def _files(folder: Path, module: str) -> Iterator[tuple[str, Path]]:
    """The files of an app, with the names that they have in the archive.

    Requirements lie beside the module or inside the package, with their wheels.
    """
    needs = folder / module if (folder / module / REQUIREMENTS).is_file() else folder
    if (folder / f"{module}.py").is_file():
        yield f"{module}.py", folder / f"{module}.py"
        yield from _walk(folder, folder / "migrations", (".sql",))
        yield from _walk(folder, folder / "web", ())
    else:
        for name, file in _walk(folder, folder / module, ()):
            if needs == folder or needs / "wheels" not in file.parents:
                yield name, file
    if (needs / REQUIREMENTS).is_file():
        yield REQUIREMENTS, needs / REQUIREMENTS
        yield from _walk(needs, needs / "wheels", (".whl",))


def _walk(base: Path, folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS and not f.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or name.endswith(SKIPPED_FILES) or (suffixes and not name.endswith(suffixes)):
                continue
            file = Path(root, name)
            if not file.is_file():  # a broken link, a socket
                continue
            if not file.resolve().is_relative_to(base):
                raise BundleRefused(
                    f"{file.relative_to(base)} leads out of the folder of the app, to {file.resolve()}",
                    hint="put the file itself there; what is deployed may be served",
                )
            yield file.relative_to(base).as_posix(), file
