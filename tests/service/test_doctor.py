"""`apiary doctor` before a PostgreSQL: what it tells, and what it calls a problem."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from apiary.cli.offline import examine
from apiary.engine.health import Check
from apiary.engine.postgres import health
from apiary.engine.postgres.engine import READERS, WRITERS
from apiary.engine.postgres.install import Installer, schema_files

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def admin(postgres_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def look(postgres_database: str, tmp_path: Path) -> Any:
    """The checks, by name."""
    return lambda url=postgres_database: {check.name: check for check in examine(url, tmp_path)}


@pytest.fixture
def platform_made(postgres_database: str) -> str:
    """A database as a server prepares it, with one app; returns the role of the app."""
    installer = Installer(postgres_database)
    installer.registry()
    target = installer.app("shop")
    installer.close()
    return str(conninfo_to_dict(target.conninfo)["user"])


def bad(checks: dict[str, Check]) -> list[str]:
    return [check.name for check in checks.values() if not check.good]


def test_a_new_database_is_well_and_stays_empty(look, admin):
    checks = look()
    assert bad(checks) == []
    assert checks["functions run"].found.startswith("inside the database: the server has plpython3u with Python 3.")
    assert checks["answers are durable"].found == "fsync on, full_page_writes on, synchronous_commit on"
    assert checks["platform"].found == "not there yet"
    assert "wal_level logical" in checks["write-ahead log"].found
    assert admin.execute("select extname from pg_extension where extname <> 'plpgsql'").fetchall() == []
    assert admin.execute("select nspname from pg_namespace where nspname like 'apiary%'").fetchall() == []


def test_the_platform_and_its_apps_are_told(look, platform_made, admin):
    admin.execute("insert into apiary_shop.queue values (gen_random_uuid(), 'f', '{}', 'me', null, 0)")
    checks = look()
    assert bad(checks) == []
    assert checks["platform"].found == f"system tables {len(schema_files('platform-'))}"
    assert checks["app shop"].found == (
        f"system tables {len(schema_files('app-'))}, 0 migrations, no version serves, "
        "calls are not counted yet, 1 waiting in the queue"
    )
    assert "registry" in checks
    needed = 5 + 2 * (WRITERS + READERS + 2)
    assert f"a server with 1 app may need {needed}" in checks["connections"].found


def test_the_command_answers_in_json_and_by_its_status(postgres_database, tmp_path):
    command = [sys.executable, "-m", "apiary", "doctor", "--database"]
    done = [
        subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        for url in (postgres_database, NOWHERE)
    ]
    assert [one.returncode for one in done] == [0, 1], done
    assert all(set(check) == {"name", "good", "found", "advice"} for check in json.loads(done[0].stdout))
    unreachable = json.loads(done[1].stdout)[-1]
    assert (unreachable["name"], unreachable["good"]) == ("database", False)
    assert "Connection refused" in unreachable["found"]


def test_settings_that_lose_what_was_answered_are_a_problem(look, admin):
    database = sql.Identifier(admin.info.dbname)
    admin.execute(sql.SQL("alter database {} set synchronous_commit = off").format(database))
    checks = look()
    assert bad(checks) == ["answers are durable"]
    assert checks["answers are durable"].advice == "turn on synchronous_commit"


def test_a_database_that_only_reads_is_a_problem(look, admin):
    database = sql.Identifier(admin.info.dbname)
    admin.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(database))
    checks = look()
    assert bad(checks) == ["takes writes"]
    assert checks["functions run"].found.startswith("beside the database")


@pytest.fixture
def role(admin: psycopg.Connection[Any]) -> Iterator[str]:
    """A role without rights."""
    name = f"plain_{admin.info.dbname}"
    admin.execute(f"create role {name} login password 'secret'")
    yield name
    admin.execute(f"drop owned by {name} cascade")
    admin.execute(f"drop role {name}")


def test_the_rights_that_a_server_needs_are_asked_for(look, admin, role, postgres):
    url = postgres.url(admin.info.dbname, role)
    checks = look(url)
    assert bad(checks) == ["rights of the role"]
    assert checks["rights of the role"].found == f"{role} may not create roles or create schemas"
    assert "only a superuser" in checks["functions run"].found
    assert "passwords" not in checks
    admin.execute(f"alter role {role} createrole")
    admin.execute(f"grant create on database {admin.info.dbname} to {role}")
    assert bad(look(url)) == []


def test_logs_that_a_role_may_not_read_are_told(look, admin, role, postgres, platform_made):
    checks = look(postgres.url(admin.info.dbname, role))
    assert {"rights of the role", "registry", "app shop"} <= set(bad(checks))
    assert "may not look" in checks["app shop"].found


def test_what_lets_apps_reach_each_other_is_a_problem(look, admin, platform_made):
    app = sql.Identifier(platform_made)
    admin.execute("grant create on schema public to public")
    admin.execute(sql.SQL("alter role {} createdb").format(app))
    checks = look()
    assert bad(checks) == ["apps are kept apart"]
    assert platform_made in checks["apps are kept apart"].found
    assert "revoke create on schema public" in checks["apps are kept apart"].found
    admin.execute("revoke create on schema public from public")
    admin.execute(sql.SQL("alter role {} nocreatedb").format(app))
    admin.execute(sql.SQL("grant pg_monitor to {}").format(app))
    checks = look()
    assert bad(checks) == []
    assert f"{platform_made} in pg_monitor" in checks["memberships"].found


def test_tables_of_a_newer_release_are_a_problem(look, admin, platform_made):
    admin.execute("insert into apiary_shop.schema values (99, 'app-099.sql')")
    checks = look()
    assert bad(checks) == ["app shop"]
    assert "made by a newer release" in checks["app shop"].found


def test_a_transaction_that_was_forgotten_is_a_problem(look, postgres_database, monkeypatch):
    monkeypatch.setattr(health, "MAX_TRANSACTION_SECONDS", 0)
    with psycopg.connect(postgres_database) as connection:
        connection.execute("select 1")
        checks = look()
    assert bad(checks) == ["transactions that run"]
    assert "is process " in checks["transactions that run"].advice


def test_sessions_that_wait_for_each_other_are_a_problem(look, postgres_database, admin, monkeypatch):
    assert look()["locks"].found == "nobody waits for long"
    monkeypatch.setattr(health, "MAX_LOCKED_SECONDS", 0)
    admin.execute("create table rows ()")
    with (
        psycopg.connect(postgres_database, application_name="a window") as holder,
        psycopg.connect(postgres_database) as waiting,
        ThreadPoolExecutor(1) as pool,
    ):
        holder.execute("lock table rows")
        pid = holder.info.backend_pid
        lock = pool.submit(waiting.execute, "lock table rows")
        blocked = "select pid from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0"
        while not admin.execute(blocked).fetchall():
            pass
        checks = look()
        holder.rollback()
        lock.result()
    assert bad(checks) == ["locks"]
    assert f"for process {pid} of postgres (a window, idle in transaction)" in checks["locks"].found


def test_a_disk_of_the_server_without_room_is_a_problem(look, monkeypatch):
    assert look()["free disk of the server"].good
    monkeypatch.setattr(health, "MIN_FREE_BYTES", 1 << 60)
    checks = look()
    assert bad(checks) == ["free disk of the server"]
    assert "make room" in checks["free disk of the server"].advice


def test_a_replication_slot_that_nobody_reads_is_a_problem(look, admin, monkeypatch):
    name = f"idle_{admin.info.dbname}"
    admin.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    try:
        assert look()["replication slots"].good
        monkeypatch.setattr(health, "MAX_KEPT", -1)
        checks = look()
        assert bad(checks) == ["replication slots"]
        assert f"{name} keeps" in checks["replication slots"].found
    finally:
        admin.execute("select pg_drop_replication_slot(%s)", [name])


def test_python_for_everybody_is_a_problem(look, admin):
    admin.execute("create extension plpython3u")
    admin.execute("update pg_language set lanpltrusted = true where lanname = 'plpython3u'")
    checks = look()
    assert bad(checks) == ["apps are kept apart"]
    assert "revoke usage on language plpython3u" in checks["apps are kept apart"].found
    admin.execute("revoke usage on language plpython3u from public")
    assert bad(look()) == []


def test_an_address_that_is_wrong_is_told_in_words(look):
    for url in (NOWHERE, "postgresql://?nonsense=1"):
        checks = look(url)
        assert bad(checks) == ["database"]
        assert checks["database"].advice
