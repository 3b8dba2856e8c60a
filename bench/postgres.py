"""A private PostgreSQL: a cluster of its own in a temporary folder, on loopback, gone with the process that made it.

The bench and the tests use it. `initdb` refuses root, so as root the server runs as the user `postgres`, or `nobody`.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from bench import provision
from bench.process import Server, ServerFailed, free_port, tree

READY_SECONDS = 60.0
SUPERUSER = "postgres"
SERVER_USERS = ("postgres", "nobody")
MAX_SOCKET_PATH_BYTES = 107
# What the peers of the bench are given: a small server on a machine that is not all theirs.
POSTGRES_SETTINGS = {
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "2GB",
    "max_connections": "100",
    "random_page_cost": "1.1",
}
# Durability, spelled out although it is the default.
DURABLE = MappingProxyType(
    {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "wal_sync_method": "fdatasync"}
)
# Waits until the process that holds the other end of its input is gone, then ends the server and removes the folder.
# A server of that folder is told from a stranger with the same number by where it works.
WATCHER = """
read -r _
server=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
works() { [ -n "$server" ] && [ "$(readlink "/proc/$server/cwd")" = "$1/data" ]; }
if works "$1"; then kill -QUIT "$server"; fi
while works "$1"; do sleep 0.05; done
rm -rf "$1"
"""


def as_server_user() -> tuple[list[str], int | None]:
    """A command prefix that drops root, and the user id it drops to."""
    if os.geteuid() != 0:
        return [], None
    for name in SERVER_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        drop = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
        return drop, user.pw_uid
    raise provision.Missing(f"PostgreSQL does not run as root, and there is no user {' or '.join(SERVER_USERS)}.")


class Postgres:
    """One cluster. Whoever may enter its folder needs no password; over TCP, `url(tcp=True)` has the superuser's."""

    def __init__(self, parent: Path, log: Path, settings: Mapping[str, str]) -> None:
        self.bin = provision.postgres_bin()
        self.log = log
        self.prefix, uid = as_server_user()
        self.folder = Path(tempfile.mkdtemp(prefix="apiary-pg-", dir=parent)).resolve()
        self.port = free_port()
        self.given = {**DURABLE, **settings, "listen_addresses": "127.0.0.1", "port": str(self.port)}
        if len(os.fsencode(self.folder / f".s.PGSQL.{self.port}")) > MAX_SOCKET_PATH_BYTES:
            raise ServerFailed(f"{self.folder} is too long a path for a Unix socket; set TMPDIR to a shorter one.")
        self.data = self.folder / "data"
        self.password = secrets.token_hex(16)
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        if uid is not None:
            for path in (self.folder, password_file):
                os.chown(path, uid, -1)
        self.server: Server | None = None
        watcher = ["sh", "-c", WATCHER, "apiary-pg-watcher", str(self.folder)]
        self.watcher = subprocess.Popen(watcher, stdin=subprocess.PIPE, start_new_session=True)

    def url(
        self, database: str = SUPERUSER, user: str = SUPERUSER, *, tcp: bool = False, port: int | None = None
    ) -> str:
        """Where a database is: over the Unix socket, or over TCP, where roles need their passwords.

        `port`: another way to the server, over TCP, for roles that have the superuser's password.
        """
        if not tcp and port is None:
            return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(self.folder))}&port={self.port}"
        secret = f":{self.password}" if user == SUPERUSER or port is not None else ""
        return f"postgresql://{quote(user)}{secret}@127.0.0.1:{port or self.port}/{quote(database)}"

    def start(self) -> None:
        """Start the server and wait until it answers; the first time the cluster is made."""
        if not self.data.exists():
            self.make()
        options = [part for name, value in self.given.items() for part in ("-c", f"{name}={value}")]
        argv = [*self.prefix, str(self.bin / "postgres"), "-D", str(self.data), "-k", str(self.folder), *options]
        self.server = Server(argv, self.log, {}, self.folder)
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            self.server.check()
            if time.monotonic() > deadline:
                raise ServerFailed(f"PostgreSQL is not ready after {READY_SECONDS} s.\n{self.server.tail()}")
            time.sleep(0.02)

    def make(self) -> None:
        """Make the cluster."""
        how = ["--no-sync", "--encoding=UTF8", "--locale=C", f"--username={SUPERUSER}"]
        who = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={self.folder / 'password'}"]
        argv = [*self.prefix, str(self.bin / "initdb"), "--pgdata", str(self.data), *how, *who]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=self.folder)
        if done.returncode != 0:
            raise ServerFailed(f"initdb failed: {done.stderr.strip()}")

    def ready(self) -> bool:
        argv = [self.bin / "pg_isready", "--quiet", "--host", self.folder, "--port", str(self.port)]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def psql(self, database: str, text: str) -> str:
        """Run SQL text, each statement in autocommit; the output without headers."""
        argv = [str(self.bin / "psql"), "-d", self.url(database), "-v", "ON_ERROR_STOP=1", "-qAtX"]
        done = subprocess.run(argv, input=text, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise ServerFailed(f"psql failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def settings(self) -> dict[str, str]:
        """What the server itself says of the settings we gave it, and its version."""
        names = [*self.given, "server_version", "checkpoint_timeout", "wal_level", "autovacuum"]
        return {name: self.psql(SUPERUSER, f"show {name}") for name in names}

    @property
    def running(self) -> bool:
        return self.server is not None and self.server.process.poll() is None

    def pids(self) -> list[int]:
        """The processes of the server that runs, its own first."""
        return tree(self.server.pid) if self.server is not None and self.running else []

    def stop(self) -> None:
        """End the server the quick and orderly way: sessions are cut, what is in memory is written."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End the server at once, as power does: it recovers from its log when it is started again."""
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        """End the server and remove all of it but its log."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.watcher.communicate()

    def _end(self, signal_number: int) -> None:
        if self.server is not None:
            self.server.stop(signal_number)
