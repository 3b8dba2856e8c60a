"""A pooler between the platform and the server is found, and refused by its name.

The one here does what gives them away: it tells its clients of a process of its own, as PgBouncer 1.18 was seen to do.
"""

import socket
import threading
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from apiary.engine.postgres.connection import Access
from apiary.engine.postgres.errors import NotConnected
from apiary.engine.postgres.install import Installer
from apiary.runtime.errors import DatabaseUnavailable

CHUNK_BYTES = 1 << 16
KEY_DATA = b"K\0\0\0\x0c"
"""https://www.postgresql.org/docs/current/protocol-message-formats.html: the head of `BackendKeyData`."""


class Pooler:
    """Passes connections on to a server on this machine, with other keys."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(*ends, ends[0] is server), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, to_client: bool) -> None:
        with suppress(OSError), closing(source), closing(target):
            while data := source.recv(CHUNK_BYTES):
                at = data.find(KEY_DATA) if to_client else -1
                if at >= 0:
                    to_client, end = False, at + len(KEY_DATA)
                    data = data[:end] + b"\0\0\0\x01" + data[end + 4 :]
                target.sendall(data)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def pooler(private_postgres):
    found = Pooler(private_postgres.port)
    yield found
    found.close()


@pytest.fixture
def url(private_postgres, postgres_database):
    return private_postgres.url(conninfo_to_dict(postgres_database)["dbname"], tcp=True)


def test_a_platform_does_not_begin_behind_a_pooler(url, pooler):
    with pytest.raises(DatabaseUnavailable, match="a pooler is between the platform and the database"):
        Installer(make_conninfo(url, port=pooler.port))


def test_calls_do_not_run_behind_a_pooler(url, pooler):
    installer = Installer(url)
    target = installer.app("shop")
    installer.close()
    with closing(Access(target)) as access:
        access.open().close()
    with (
        closing(Access(replace(target, conninfo=make_conninfo(target.conninfo, port=pooler.port)))) as access,
        pytest.raises(NotConnected, match="a pooler is between"),
    ):
        access.open()
