"""The PostgreSQL of the tests: real, durable, new databases for all, and gone with its session."""

import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

GONE_SECONDS = 20.0
GIVEN: list[str] = []

# A session that has a server, says where it is, and waits.
SESSION = """
import sys
from pathlib import Path
from bench.postgres import Postgres
server = Postgres(Path("/tmp"), Path(sys.argv[1]), {})
server.start()
print(server.folder, server.server.pid, flush=True)
sys.stdin.read()
"""


def ask(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchone()


def test_it_is_durable_and_decodes_its_log(postgres):
    wanted = {"fsync": "on", "synchronous_commit": "on", "wal_level": "logical", "max_connections": "200"}
    assert {name: ask(postgres.url(), f"show {name}")[0] for name in wanted} == wanted


def test_it_runs_python(postgres_database):
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("create extension plpython3u")
        connection.execute("create function six() returns int language plpython3u as 'return len(\"apiary\")'")
        assert connection.execute("select six()").fetchone() == (6,)


@pytest.mark.parametrize("turn", [1, 2])
def test_a_database_is_new_and_dropped_after_its_test(postgres, postgres_database, turn):
    assert ask(postgres_database, "select count(*) from pg_class where relnamespace = 'public'::regnamespace") == (0,)
    with psycopg.connect(postgres_database) as connection:
        connection.execute("create table left_over ()")
        name = connection.info.dbname
    there = f"select array_agg(datname) from pg_database where datname = any('{{{','.join([*GIVEN, name])}}}')"
    assert ask(postgres.url(), there) == ([name],)
    GIVEN.append(name)


def test_over_tcp_it_wants_a_password(private_postgres):
    url = private_postgres.url(tcp=True)
    assert ask(url, "select current_user") == ("postgres",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(url.replace(private_postgres.password, "a-guess"), "select 1")


def test_what_was_committed_outlives_a_crash(postgres, postgres_database):
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("create table numbers as select 1 as number")
        before = postgres.pids()
        postgres.crash()
        assert postgres.pids() == []
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    postgres.start()
    assert ask(postgres_database, "select number from numbers") == (1,)
    assert not set(before) & set(postgres.pids())


def test_a_server_ends_with_a_session_that_is_killed(root, tmp_path):
    argv = [sys.executable, "-c", SESSION, str(tmp_path / "log")]
    session = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    folder, pid = session.stdout.readline().split()
    assert os.path.exists(f"/proc/{pid}")
    session.send_signal(signal.SIGKILL)
    session.communicate()
    end = time.monotonic() + GONE_SECONDS
    while os.path.exists(folder) or os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < end, f"{folder} or process {pid} is left"
        time.sleep(0.01)
