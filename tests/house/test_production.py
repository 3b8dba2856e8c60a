"""What docs/production.md and docs/choosing-an-engine.md say is what there is: numbers, options, metrics, rights."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from markdown_it import MarkdownIt
from psycopg import sql
from tests.house.test_command_page import declared

from apiary import App, OpenApp, Transaction
from apiary.codec import MAX_RESULT_BYTES, convert_rows
from apiary.engine.places import Source, open_places
from apiary.engine.postgres import engine, health, lane
from apiary.engine.postgres.connection import Target
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.sqlite.engine import SqliteEngine

OPTION = re.compile(r"(?<![\w-])--[a-z-]+")
METRIC = re.compile(r"apiary_[a-z_]+(?=[{\[) ])")
SUFFIXES = re.compile(r"_(total|bucket|count|sum)\Z")
IN_USE = re.compile(r"\bapiary\b")


@pytest.fixture(scope="module")
def production() -> str:
    return read("production.md")


def read(name: str) -> str:
    return (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    fences = (token for token in MarkdownIt().parse(text) if token.type == "fence")
    return [token.content for token in fences if token.info.startswith(language)]


def test_the_numbers_of_the_choice_are_those_of_the_code() -> None:
    batch = PostgresEngine.max_batch
    both = "| {0} for each app and server | {0} for each app and server |"
    rows = [
        f"| transactions at the same time | {SqliteEngine.writers} {both.format(engine.WRITERS)}",
        f"| queries at the same time | {SqliteEngine.readers} {both.format(engine.READERS)}",
        f"| calls that share a commit | at most {SqliteEngine.max_batch} | at most {batch} | at most {batch} |",
    ]
    lines = read("choosing-an-engine.md").splitlines()
    assert not [row for row in rows if row not in lines]


def test_the_numbers_of_production_are_those_of_the_code(production: str) -> None:
    text = " ".join(production.split())
    own, host = health.SERVER_CONNECTIONS, health.HOST_CONNECTIONS
    assert f"A server takes {own}; a process of an app takes {host}, and twice that while a deploy takes over" in text
    assert f"calls wait for it for {lane.RIDE_OUT_SECONDS:g} s, and are answered with 503" in text
    assert f"| calls wait for {lane.RIDE_OUT_SECONDS:g} s, then 503 |" in text
    assert f"a deploy says after {engine.MIGRATION_LOCK_SECONDS:g} s which process" in text
    assert f"a result is at most {MAX_RESULT_BYTES >> 20} MiB" in text


def test_containers_and_units_start_what_there_is(production: str) -> None:
    compose, _ = map(yaml.safe_load, blocks(production, "yaml"))
    unit = next(line for line in blocks(production, "ini")[0].splitlines() if line.startswith("ExecStart"))
    commands = [" ".join(compose["services"]["apiary"]["command"]), unit]
    known = declared()["apiary serve"]
    assert all("apiary serve " in command for command in commands)
    assert {option for command in commands for option in OPTION.findall(command)} <= known
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert set(service.get("secrets", ())) <= compose["secrets"].keys()
        named = {volume.partition(":")[0] for volume in service.get("volumes", ()) if not volume.startswith(".")}
        assert named <= compose["volumes"].keys()


def test_alerts_ask_for_metrics_that_there_are(production: str) -> None:
    _, alerts = map(yaml.safe_load, blocks(production, "yaml"))
    asked = {name for rule in alerts["groups"][0]["rules"] for name in METRIC.findall(rule["expr"])}
    listed = set(re.findall(r"^\| `(apiary_\w+)`", read("operations.md"), re.MULTILINE))
    assert len(asked) > 3
    assert {SUFFIXES.sub("", name) for name in asked} <= {SUFFIXES.sub("", name) for name in listed}


APP = """
from apiary import App, Transaction

app = App("lent")


@app.transaction
def where(tx: Transaction) -> list[int]:
    import os

    return [os.getpid(), tx.execute("select pg_backend_pid()").scalar()]
"""


@pytest.fixture
def lent(postgres: Any, production: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database and a role that an administrator has made as the document says; the URL of that role."""
    name = f"lent_{abs(hash(request.node.name)) % 10**8}"
    first, second = (IN_USE.sub(name, block) for block in blocks(production, "sql")[:2])
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        for statement in filter(str.strip, first.split(";")):
            connection.execute(statement.encode())
        try:
            with psycopg.connect(postgres.url(name), autocommit=True) as inside:
                inside.execute(second.encode())
            yield postgres.url(name, name)
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            roles = connection.execute("select rolname from pg_roles where rolname like %s", [f"apiary\\_{name}.%"])
            for (role,) in [*roles.fetchall(), (name,)]:
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def test_a_role_may_make_functions_where_an_administrator_lets_it(lent: str, tmp_path: Path) -> None:
    (tmp_path / "lent.py").write_text(APP)
    app = App("lent")

    @app.transaction
    def where(tx: Transaction) -> list[int]:
        raise AssertionError("it runs in a backend")

    with closing(open_places(lent, tmp_path)) as places:
        assert "inside the database" in places.description
        place = places.make("lent", Source("lent", "1", (tmp_path,)))
        target = Target(**{name: value for name, value in place.items() if name != "kind"})
        with OpenApp(app, PostgresEngine(target, convert_rows, writers=1, readers=1)) as opened:
            process, backend = opened.call("where")
            assert process == backend
    assert {check.name for check in health.examine(lent) if not check.good} <= {"connections"}
    with psycopg.connect(target.conninfo) as app_role, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app_role.execute("create function lent.f() returns int language plpython3u as 'return 1'")
