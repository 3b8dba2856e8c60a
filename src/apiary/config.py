"""Settings: what `apiary serve` and `apiary.open` are told, checked once, in units that their names say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote

from apiary.runtime.errors import DeclarationError

DEFAULT_FOLDER = ".apiary"
SQLITE = "sqlite:///"
LEASE_SECONDS = 3.0
MIN_LEASE_SECONDS = 0.3
MIGRATE_SECONDS = 3600.0
"""What the migrations of a deploy may take."""
POSTGRESQL = ("postgresql://", "postgres://")
ALWAYS_REPLAY = "APIARY_ALWAYS_REPLAY"


class ConfigurationError(DeclarationError):
    """A setting that cannot be."""

    code = "configuration"


class Capturing(StrEnum):
    """Which effects of calls are kept with their records. `strict`: both, and a query's before its answer."""

    OFF = "off"
    READS = "reads"
    WRITES = "writes"
    BOTH = "both"
    STRICT = "strict"

    @property
    def reads(self) -> bool:
        """Whether what was read is kept."""
        return self not in (Capturing.OFF, Capturing.WRITES)

    @property
    def writes(self) -> bool:
        """Whether what was written is kept."""
        return self not in (Capturing.OFF, Capturing.READS)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server is told. `folder` has what belongs to this machine and, unless `database` says else, the data."""

    folder: Path
    database: str | None = None
    address: str = "127.0.0.1"
    port: int = 8000
    admin_key: str | None = None
    anonymous_calls: bool = False
    max_request_bytes: int = 1024 * 1024
    max_waiting_calls: int = 1024
    host_memory_bytes: int = 1024 * 1024 * 1024
    lease_seconds: float = LEASE_SECONDS
    keep_workflows_days: float | None = None
    recording: bool = True
    capture: Capturing = Capturing.BOTH

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://[{self.address}]:{self.port}" if ":" in self.address else f"http://{self.address}:{self.port}"


def always_replay() -> bool:
    """Whether each step of a workflow is a run of its own, which shows at once what does not replay."""
    return os.environ.get(ALWAYS_REPLAY) == "1"


def database_folder(url: str | None) -> Path:
    """The folder of a server, from `sqlite:///FOLDER`; by default, and beside PostgreSQL, `.apiary`."""
    if url is None or url == SQLITE or url.startswith(POSTGRESQL):
        return Path(DEFAULT_FOLDER)
    folder = Path(_sqlite(url))
    if folder.is_file():
        raise ConfigurationError(
            f"{folder} is a file: a server keeps one file for each app, in a folder",
            hint=f"name the folder: sqlite:///{folder.parent}/",
        )
    return folder


def server_folder(url: str | None, named: Path | None) -> Path:
    """The folder of this machine for a server: the `named` one beside PostgreSQL; with SQLite, where the data lies."""
    if named is None:
        return database_folder(url)
    if url is None or not url.startswith(POSTGRESQL):
        raise ConfigurationError(
            "a server with SQLite has one folder, which --database names", hint="leave out --folder"
        )
    return named


def database_path(url: str, app: str) -> Path:
    """The file of one app, from `sqlite:///FILE`; where that is a folder, `FOLDER/APP.db`."""
    path = Path(_sqlite(url))
    return path / f"{app}.db" if path.is_dir() or url.endswith("/") else path


def _sqlite(url: str) -> str:
    if not url.startswith(SQLITE):
        kind = url.split(":", 1)[0]
        raise ConfigurationError(
            "a URL of the embedded engine has three slashes"
            if kind == "sqlite"
            else f"there is no engine for {kind}: URLs here",
            hint="write sqlite:///path (four slashes for an absolute one), or for a server postgresql://…",
        )
    path = unquote(url.removeprefix(SQLITE)) or "."
    if path == ":memory:":
        raise ConfigurationError("a database in memory would forget what it promised", hint="write sqlite:///path")
    return path
