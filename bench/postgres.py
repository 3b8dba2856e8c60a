"""A private PostgreSQL: a fresh cluster in a temporary folder, on a Unix socket, durable, ended with the bench.

`initdb` refuses root, so a bench that runs as root runs the server as the user `postgres`.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from bench import provision
from bench.process import Server, ServerFailed

READY_SECONDS = 30.0
# All else is PostgreSQL's default. The first four are durability, spelled out.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_sync_method": "fdatasync",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "2GB",
    "max_connections": "100",
    "random_page_cost": "1.1",
    "listen_addresses": "",
}


def as_server_user() -> tuple[list[str], int | None]:
    """A command prefix that drops root, and the user id it drops to."""
    if os.geteuid() != 0:
        return [], None
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise provision.Missing("PostgreSQL does not run as root, and there is no user `postgres`.") from None
    drop = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    return drop, user.pw_uid


class Postgres:
    """One cluster; `dsn` connects to its database `bench`."""

    def __init__(self, parent: Path) -> None:
        self.bin = provision.postgres_bin()
        self.prefix, uid = as_server_user()
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=parent))
        if uid is not None:
            os.chown(self.folder, uid, -1)
            parent.chmod(parent.stat().st_mode | 0o011)  # the server's user walks through to its own folder
        self.data = self.folder / "data"
        self.server: Server | None = None

    @property
    def dsn(self) -> str:
        return f"postgresql://bench@/bench?host={self.folder}"

    def start(self) -> None:
        """Make the cluster and its database, start the server and wait until it answers."""
        self.run(
            "initdb", "--pgdata", str(self.data), "--username=bench", "--auth=trust", "--encoding=UTF8", "--locale=C"
        )
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        argv = [*self.prefix, str(self.bin / "postgres"), "-D", str(self.data), "-k", str(self.folder), *options]
        self.server = Server(argv, self.folder.parent / f"{self.folder.name}.log", {}, self.folder)
        deadline = time.monotonic() + READY_SECONDS
        while self.try_run("pg_isready", "--quiet", "--host", str(self.folder)) != 0:
            self.server.check()
            if time.monotonic() > deadline:
                raise ServerFailed(f"PostgreSQL is not ready after {READY_SECONDS} s.\n{self.server.tail()}")
            time.sleep(0.05)
        self.psql("postgres", "create database bench")

    def psql(self, database: str, text: str) -> str:
        """Run SQL text, each statement in autocommit; the output without headers."""
        argv = ["psql", "-h", str(self.folder), "-U", "bench", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtX"]
        done = subprocess.run(
            [str(self.bin / argv[0]), *argv[1:]], input=text, check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise ServerFailed(f"psql failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def settings(self) -> dict[str, str]:
        """What the server itself says of the settings we gave it, and its version."""
        names = [*SETTINGS, "server_version", "checkpoint_timeout", "wal_level", "autovacuum"]
        return {name: self.psql("bench", f"show {name}") for name in names}

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop(signal.SIGINT)  # the "fast" shutdown
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> None:
        argv = [*self.prefix, str(self.bin / program), *arguments]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=self.folder)
        if done.returncode != 0:
            raise ServerFailed(f"{program} failed: {done.stderr.strip()}")

    def try_run(self, program: str, *arguments: str) -> int:
        return subprocess.run([str(self.bin / program), *arguments], check=False, capture_output=True).returncode
