"""Locks on a server's folder, held by processes: the kernel lets them go when their process is gone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from apiary.config import ConfigurationError


def own(folder: Path) -> IO[str]:
    """Lock the folder for this process, until the file is closed: its databases have one owner."""
    file = (folder / "server.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise ConfigurationError(
            f"another server (process {file.read().strip() or 'unknown'}) is using {folder}",
            hint="stop it first, or name another folder: --database sqlite:///FOLDER; with PostgreSQL --folder FOLDER",
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


@contextmanager
def migrating(folder: Path) -> Iterator[None]:
    """Be the only process that migrates in the folder; waits for another one, also for one that is just dying.

    A process that is killed while it waits for the disk ends only after that. Before it has, nobody can tell whether
    its commit counts.
    """
    with (folder / "migrating.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait_for_migration(folder: Path) -> None:
    """Wait until no process migrates in the folder."""
    with migrating(folder):
        pass
