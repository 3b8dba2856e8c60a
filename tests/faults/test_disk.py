"""The whole disk of the database is full, for its write-ahead log too: it ends, and goes on when it has room again."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from bench.postgres import Postgres
from tests.faults.conftest import eventually, loaded

pytestmark = pytest.mark.soak

DISK_MEBIBYTES = 224
SETTINGS = {"max_connections": "20", "shared_buffers": "16MB", "min_wal_size": "32MB", "max_wal_size": "48MB"}


class SmallDisk:
    """A file system in memory. Only root may have one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEBIBYTES}m,mode=755", "tmpfs", str(folder)]
        subprocess.run(argv, check=True)

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("wb") as ballast:
            end = 0
            for step in (1 << 20, os.statvfs(self.folder).f_frsize):
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(ballast.fileno(), end, step)
                        end += step

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    with tempfile.TemporaryDirectory(prefix="apiary-disk-") as folder:
        disk = SmallDisk(Path(folder))
        try:
            yield disk
        finally:
            disk.close()


@pytest.fixture(scope="module")
def private_postgres(disk: SmallDisk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server on that disk."""
    server = Postgres(disk.folder, tmp_path_factory.mktemp("log") / "postgres.log", SETTINGS)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_nothing_is_lost_on_a_full_disk(world, disk, private_postgres, impatient):
    """Tables have no room, then the write-ahead log; when they have some, calls go on."""
    with loaded(world) as load:
        eventually(lambda: len(load.answers) > 20)
        for full in (refuses, ends):
            disk.fill()
            full(world, load, private_postgres)
            disk.make_room()
            before = len(load.answers)
            eventually(lambda before=before: kept_running(private_postgres) and len(load.answers) > before + 20)
    world.works()


def refuses(world, load, postgres: Postgres) -> None:
    before = load.refused
    eventually(lambda: load.refused > before + 20)


def ends(world, load, postgres: Postgres) -> None:
    """Files of the log that were made in advance are used up, and the server with them."""
    before = postgres.log.read_text().count("PANIC")
    with suppress(psycopg.Error), world.look_open() as connection:
        for _ in range(20):
            connection.execute("select pg_logical_emit_message(true, 'log', 'grows'), pg_switch_wal()")
    eventually(lambda: postgres.log.read_text().count("PANIC") > before)


def kept_running(postgres: Postgres) -> bool:
    """Start the server where it has ended, as systemd would."""
    if not postgres.running:
        postgres.start()
    return True
