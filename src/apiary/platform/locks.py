"""Locks on a server's folder, held by processes: the kernel lets them go when their process is gone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from apiary.config import ConfigurationError

OTHER = "name another folder: --database sqlite:///FOLDER; with PostgreSQL --folder FOLDER"


def own(folder: Path) -> IO[str]:
    """Make the folder and lock it for this process, until the file is closed: its databases have one owner."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "server.lock").open("a+")
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} cannot be written: {error.strerror}", hint=OTHER) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise ConfigurationError(
            f"another server (process {file.read().strip() or 'unknown'}) is using {folder}",
            hint=f"stop it first, or {OTHER}",
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


@contextmanager
def migrating(folder: Path, app: str) -> Iterator[None]:
    """Be the only process that migrates an app in the folder; waits for another one, also for one that is just dying.

    A process that is killed while it waits for the disk ends only after that. Before it has, nobody can tell whether
    its commit counts.
    """
    with (folder / f"{app}.migrating.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait_for_migration(folder: Path, app: str) -> None:
    """Wait until no process migrates the app in the folder."""
    with migrating(folder, app):
        pass
