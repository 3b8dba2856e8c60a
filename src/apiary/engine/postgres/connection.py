"""Connections of an app's role: opened with the settings that its transactions need, opened again when lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.types.string import TextLoader

from apiary.engine.postgres.errors import ConnectionLost

CONNECT_SECONDS = 5
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 15_000}
SETTINGS = {
    "default_transaction_isolation": "serializable",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "client_min_messages": "error",
    "idle_in_transaction_session_timeout": "0",
}
READ_AS_TEXT = (
    "inet", "cidr", "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange", "int4multirange",
    "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange",
)  # fmt: skip
"""Types that only one of the two placements would read as more than text."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one app lives: how to connect as its role, its schema, the schema of its log, and its program.

    `program` is the hash of the program that backends load; none where functions run beside the database, of which
    `why_beside` has the reason where that was not chosen.
    """

    conninfo: str
    schema: str
    log: str
    program: str | None = None
    why_beside: str | None = None

    def connect(self, *, read_only: bool = False, waiting: bool = True) -> psycopg.Connection[Any]:
        """A connection in autocommit; `ConnectionLost` where there is none to be had."""
        settings = SETTINGS | {"search_path": f'"{self.schema}",public'}
        if read_only:
            settings["default_transaction_read_only"] = "on"
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        try:
            connection = psycopg.connect(
                make_conninfo(self.conninfo, options=options, connect_timeout=CONNECT_SECONDS, **KEEPALIVE),
                autocommit=True,
                prepare_threshold=2,
            )
        except psycopg.OperationalError as error:
            raise ConnectionLost(f"the database cannot be reached: {error}", hint="is it running?") from None
        for name in READ_AS_TEXT:
            connection.adapters.register_loader(name, TextLoader)
        return connection
