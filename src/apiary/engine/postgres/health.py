"""A look at a PostgreSQL from outside, for `apiary doctor`: is it as the platform needs it? Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from apiary.engine.health import Check
from apiary.engine.postgres.connection import CONNECT_SECONDS
from apiary.engine.postgres.engine import READERS, WRITERS
from apiary.engine.postgres.install import OLDEST, UNREACHABLE_HINT, schema_files
from apiary.engine.postgres.placement import find_placement
from apiary.engine.statements import load_statements

SQL = load_statements("apiary.engine.postgres", "health.sql")

SERVER_CONNECTIONS = 5
"""Of a server itself: the installer's, one that keeps its lease, and three for its registry."""
HOST_CONNECTIONS = WRITERS + READERS + 2
"""Of a host: its lanes, one to look calls up, one that listens. Twice the lanes where an app has functions both inside
the database and beside it."""
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
MIN_FREE_BYTES = 100 << 20
MAX_LOCKED_SECONDS = 5
MAX_KEPT = 1 << 30
"""Bytes of the write-ahead log that a slot without a reader may keep."""
MAX_TRANSACTION_SECONDS = 3600
MAX_TRANSACTIONS = 1_000_000_000
"""So old may the oldest transaction id be, half of what there are; autovacuum is far behind then."""


def examine(url: str) -> list[Check]:
    """Look at the database that a URL names."""
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS)
    except psycopg.Error as error:
        return [Check("database", False, _words(error), UNREACHABLE_HINT)]
    with connection:
        look = Look(connection)
        checks = list(look.server())
        for part in (look.connection, look.primary, look.rights, look.placement, look.durable, look.room, look.apart,
                     look.locks, look.age, look.platform, look.servers, look.apps):  # fmt: skip
            checks += _tried(part)
    return checks


def _tried(part: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks of a part; where the server refuses an answer, that is one."""
    try:
        yield from part()
    except psycopg.Error as error:
        yield Check(part.__name__, False, f"the server does not tell: {_words(error)}")


class Look:
    """The questions, over one connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._cursor = psycopg.RawCursor(connection, row_factory=dict_row)
        self._ask("patience")
        self._apps = self._ask("apps")
        self._servers: list[dict[str, Any]] = []
        with suppress(psycopg.Error):  # there is no platform yet, or another role's
            self._servers = self._ask("servers")

    def server(self) -> Iterator[Check]:
        """What it is."""
        info = self._connection.info
        version = info.parameter_status("server_version")
        where = f"{info.dbname} at {info.host or 'this machine'}:{info.port}"
        good = info.server_version >= OLDEST
        yield Check(f"PostgreSQL {OLDEST // 10000} or newer", good, f"{version}, {where}")

    def connection(self) -> Iterator[Check]:
        """Whether it is the server that answers, and no pooler, which would hand sessions around."""
        direct = self._one("backend")["pg_backend_pid"] == self._connection.info.backend_pid
        found = "the server itself" if direct else "a pooler is between"
        yield Check("direct connection", direct, found, "" if direct else "name the server itself in the URL")

    def primary(self) -> Iterator[Check]:
        """Whether it takes writes."""
        state = self._one("primary")
        if state["standby"]:
            yield Check("takes writes", False, "it is a standby", "name the primary in the URL")
        elif state["read_only"]:
            yield Check("takes writes", False, "default_transaction_read_only is on", "set it to off")
        else:
            yield Check("takes writes", True, "a primary")

    def rights(self) -> Iterator[Check]:
        """Whether the role of the URL may prepare the database."""
        role = self._one("rights")
        name = role["role"]
        if role["superuser"]:
            yield Check("rights of the role", True, f"{name} is a superuser")
            return
        missing = [
            right
            for right, there in (("create roles", role["makes_roles"]), ("create schemas", role["makes_schemas"]))
            if not there
        ]
        advice = f'alter role "{name}" createrole; grant create on database … to "{name}"' if missing else ""
        found = f"{name} may not {' or '.join(missing)}" if missing else f"{name} may create roles and schemas"
        yield Check("rights of the role", not missing, found, advice)

    def placement(self) -> Iterator[Check]:
        """Where functions run; where they can, they tell of the disks of the server."""
        free = None
        with self._connection.transaction(force_rollback=True):
            placement = find_placement(self._connection)
            if placement.inside:
                free = self._free()
        yield Check("functions run", True, f"{placement.where}: {placement.reason}")
        if free is not None:
            good = free > MIN_FREE_BYTES
            advice = "" if good else "make room: a server whose write-ahead log has none left ends"
            yield Check("free disk of the server", good, f"{free // 2**20} MiB", advice)

    def durable(self) -> Iterator[Check]:
        """Whether what was answered outlives a crash."""
        settings = self._settings(DURABLE)
        off = [name for name, value in settings.items() if value == "off"]
        found = ", ".join(f"{name} {value}" for name, value in settings.items())
        yield Check("answers are durable", not off, found, f"turn on {' and '.join(off)}" if off else "")
        settings = self._settings(("wal_level", "archive_mode"))
        archived = settings["archive_mode"] != "off"
        advice = "" if archived else "without an archive of the log, a lost disk is restored from the last copy only"
        found = f"wal_level {settings['wal_level']}, archive_mode {settings['archive_mode']}"
        yield Check("write-ahead log", settings["wal_level"] != "minimal", found, advice)
        idle = [
            f"{row['name']} keeps {row['bytes'] >> 20} MiB" for row in self._ask("slots") if row["bytes"] > MAX_KEPT
        ]
        found = "; ".join(idle) or "none keeps much of the log"
        advice = "let somebody read from it, or drop it (pg_drop_replication_slot): it fills the disk" if idle else ""
        yield Check("replication slots", not idle, found, advice)

    def room(self) -> Iterator[Check]:
        """Whether there are connections enough, also while a version takes over from another one."""
        settings = self._settings(("max_connections", "superuser_reserved_connections"))
        there = int(settings["max_connections"]) - int(settings["superuser_reserved_connections"])
        used = self._one("connections", [app["role"] for app in self._apps])
        apps = sum(not app["app"].startswith("apiary_") for app in self._apps)
        servers = max(1, len(self._servers))
        needed = servers * (SERVER_CONNECTIONS + HOST_CONNECTIONS * (apps + 1))
        good = needed + used["others"] <= there
        who = "a server" if servers == 1 else f"{servers} servers"
        with_apps = f"{who} with {apps} app{'s' * (apps != 1)}"
        advice = "raise max_connections, or find out who has so many (pg_stat_activity)"
        found = f"{there} for all; {with_apps} may need {needed}, others have {used['others']} now"
        yield Check("connections", good, found, "" if good else advice)

    def apart(self) -> Iterator[Check]:
        """Whether apps are kept apart from each other."""
        problems = [
            f"the role {app['role']} has more rights than those to its schema"
            for app in self._apps
            if app["privileged"]
        ]
        if self._one("public_schema")["open"]:
            problems.append("everybody may create in the schema public: revoke create on schema public from public")
        if self._one("python_for_all")["open"]:
            problems.append(
                "everybody may run Python as the server's user: revoke usage on language plpython3u from public"
            )
        found = f"{len(self._apps)} roles" if self._apps else "no apps yet"
        yield Check("apps are kept apart", not problems, "; ".join(problems) or found)
        memberships = [f"{app['role']} in {', '.join(app['member_of'])}" for app in self._apps if app["member_of"]]
        if memberships:
            yield Check("memberships", True, "; ".join(memberships), "are they meant?")
        with suppress(psycopg.errors.InsufficientPrivilege):
            lines = self._one("trust")["lines"]
            advice = "whoever reaches the server there may be any role, code of apps too: ask for passwords"
            found = f"{lines} lines of pg_hba.conf ask for none" if lines else "asked of everybody"
            yield Check("passwords", True, found, advice if lines else "")

    def locks(self) -> Iterator[Check]:
        """Whether sessions wait for each other."""
        waiting = [row for row in self._ask("blocked") if (row["seconds"] or 0) >= MAX_LOCKED_SECONDS]
        found = "; ".join(
            f"process {row['pid']} has waited {row['seconds']} s for process {row['holder']} of {row['role']} "
            f"({row['name'] or 'without a name'}, {row['state']})"
            for row in waiting
        )
        advice = "end what holds it up: select pg_terminate_backend(…)" if waiting else ""
        yield Check("locks", not waiting, found or "nobody waits for long", advice)

    def age(self) -> Iterator[Check]:
        """Whether old rows and transaction ids can be cleaned away."""
        found = self._one("age")
        seconds = found["seconds"] or 0
        good = seconds < MAX_TRANSACTION_SECONDS and not found["prepared"]
        text = "none" if found["seconds"] is None else f"the oldest began {seconds} s ago"
        if found["prepared"]:
            text += f", {found['prepared']} are prepared and wait to be committed"
        advice = "" if good else f"end what is not needed (the oldest is process {found['pid']})"
        yield Check("transactions that run", good, text, advice)
        on = self._settings(("autovacuum",))["autovacuum"] == "on"
        used = found["transactions"]
        text = f"autovacuum {'on' if on else 'off'}, {used // 1_000_000} million transaction ids in use"
        yield Check("vacuum", on and used < MAX_TRANSACTIONS, text, "" if on else "turn autovacuum on")

    def platform(self) -> Iterator[Check]:
        """Whether the platform's own tables are those of this release."""
        if not self._one("has_platform")["present"]:
            yield Check("platform", True, "not there yet", "the first `apiary serve` makes it")
            return
        yield self._schema("platform", "apiary", "platform-", "")

    def servers(self) -> Iterator[Check]:
        """The servers that use the database."""
        for server in self._servers:
            apps = ", ".join(server["apps"]) or "no apps"
            found = f"{server['description']}: {apps}; gave a sign of life {server['silent']:.1f} s ago"
            lives = not server["lost"] and server["silent"] < server["lease"]
            advice = "" if lives else "it has ended, or cannot reach the database; a server that lives takes over"
            yield Check(f"server {server['id'][:8]}", True, found, advice)

    def apps(self) -> Iterator[Check]:
        """The log and the queue of each app, and the version that serves."""
        serving = {}
        with suppress(psycopg.Error):
            serving = {row["app"]: row["version"] for row in self._ask("serving")}
        for app in self._apps:
            registry = app["app"].startswith("apiary_")
            name = "registry" if registry else f"app {app['app']}"
            if not app["readable"]:
                yield Check(name, False, "this role may not look at its log")
                continue
            state = self._one("app", schema=app["log"])
            version = serving.get(app["app"])
            what = [f"{state['migrations']} migrations"]
            if not registry:
                what.append(f"version {version[:12]} serves" if version else "no version serves")
            calls = "calls are not counted yet" if state["calls"] is None else f"about {state['calls']} calls recorded"
            what.append(f"{calls}, {state['queued']} waiting in the queue")
            yield self._schema(name, app["log"], "app-", ", ".join(what))

    def _schema(self, name: str, schema: str, prefix: str, more: str) -> Check:
        """Compare the number of system tables' files that were applied with those that there are."""
        number, known = self._one("schema_number", schema=schema)["number"], len(schema_files(prefix))
        found = ", ".join(part for part in (f"system tables {number}", more) if part)
        if number > known:
            return Check(name, False, f"{found}: made by a newer release than this ({known})", "use that release")
        advice = (
            "" if number == known else f"this release has {known}; the next start of a server brings them up to date"
        )
        return Check(name, True, found, advice)

    def _free(self) -> int | None:
        """Bytes of the fullest disk, if this role may know."""
        try:
            with self._connection.transaction():
                self._ask("make_free")
                return int(self._one("free")["bytes"])
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ExternalRoutineException):
            return None

    def _settings(self, names: tuple[str, ...]) -> dict[str, str]:
        found = {row["name"]: row["setting"] for row in self._ask("settings", list(names))}
        return {name: found[name] for name in names}

    def _one(self, name: str, *values: Any, schema: str | None = None) -> dict[str, Any]:
        return self._ask(name, *values, schema=schema)[0]

    def _ask(self, name: str, *values: Any, schema: str | None = None) -> list[dict[str, Any]]:
        text = SQL[name]
        if schema is not None:
            quoted = sql.Identifier(schema).as_string(self._connection)
            text = text.replace("{schema}", quoted)
        cursor = self._cursor.execute(text.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def _words(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
