"""What an app can reach through SQL: its own schema, and nothing of other apps, of the platform or of the server.

Each attempt is made twice: as a statement of a function, where the platform looks at it, and inside a function of the
database, where nobody does and only the rights of the app's role count.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from apiary import OpenApp
from apiary.bundle import load_from
from apiary.codec import convert_rows
from apiary.embedded import LOCAL_VERSION
from apiary.engine.places import Source
from apiary.engine.postgres.archive import folder_archive
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.runtime.errors import BundleRefused, Error

APP = """
from apiary import App, Transaction

app = App({name!r})


@app.transaction
def ask(tx: Transaction, statement: str) -> list[str]:
    return [str(tuple(row)) for row in tx.execute(statement)]


@app.transaction
def ask_behind(tx: Transaction, statement: str) -> list[str]:
    return [str(tuple(row)) for row in tx.execute("select behind(:statement)", statement=statement)]


@app.transaction
def who(tx: Transaction) -> list[str]:
    return list(tx.execute("select session_user::text, current_user::text, pg_backend_pid()::text").one())


@app.transaction
def keep(tx: Transaction, secret: str) -> None:
    tx.execute("insert into kept (secret) values (:secret)", secret=secret)
"""
BEHIND = """
create table kept (secret text not null);
create function behind(statement text) returns setof text language plpgsql as $$
declare
    found record;
begin
    if statement ~ '^(select|with|table|show)' then
        for found in execute statement loop
            return next found::text;
        end loop;
    else
        execute statement;
    end if;
end $$;
"""
SECRET = "the-secret-of-victim"
NAMES = ("intruder", "victim")
ATTEMPTS = [
    # to read
    "select * from victim.kept",
    'select * from "victim"."kept"',
    "select query_to_xml('table victim.kept', true, false, '')",
    "select * from pg_statistic",
    "create table stolen as select * from victim.kept",
    "create view stolen as select * from victim.kept",
    "select * from apiary_victim.calls",
    "select * from apiary_victim.queue",
    "select * from apiary_victim.find(null, null)",
    "select * from apiary_victim.waiting(null, 0, 10)",
    "select * from apiary_victim.migrations",
    "select * from apiary_intruder.calls",
    "select * from apiary_registry.keys",
    "select * from apiary.secrets",
    "select * from pg_authid",
    "select * from pg_shadow",
    "select * from pg_user_mapping",
    "select apiary.call('{program of victim}:ask:recorded', '', 'me', 'none')",
    "select apiary.run('{program of victim}', '')",
    "select * from pg_largeobject",
    "select pg_read_file('PG_VERSION')",
    "select pg_read_binary_file('/etc/passwd')",
    "select * from pg_ls_dir('.')",
    "select lo_import('/etc/passwd')",
    "select current_setting('data_directory')",
    "select * from pg_hba_file_rules",
    "select * from pg_ls_waldir()",
    "select pg_create_logical_replication_slot('stolen', 'pgoutput')",
    # to change what others have
    "insert into victim.kept values ('forged')",
    "truncate victim.kept",
    "drop table victim.kept",
    "lock table victim.kept in access share mode",
    "delete from apiary_victim.calls",
    "insert into apiary_victim.queue select gen_random_uuid(), 'keep', '{}', 'me', null, 0",
    "delete from apiary_intruder.calls",
    "update apiary_intruder.calls set caller = 'another'",
    "select apiary_victim.dequeue(id) from (select gen_random_uuid() as id) one",
    "insert into apiary.programs select '', '', '', '', '', '{}'",
    "update apiary.archives set content = ''",
    "update apiary.secrets set value = ''",
    "create or replace function apiary.run(program text, batch bytea) returns bytea language sql as 'select batch'",
    "create function victim.keep() returns int language sql as 'select 1'",
    "create table victim.mine (a int)",
    "create function public.lower(kept) returns text language sql as 'select null::text'",
    "create table public.kept (secret text)",
    "create schema mine",
    "alter schema victim owner to current_user",
    "alter schema victim rename to mine",
    # to get more rights
    "alter system set fsync = off",
    'alter database "{database}" set search_path = intruder',
    'alter role "{victim}" set search_path = intruder',
    """alter role "{victim}" password 'known'""",
    """alter role "{superuser}" password 'known'""",
    'alter role "{intruder}" superuser',
    'alter role "{intruder}" bypassrls',
    'alter role "{intruder}" createrole',
    'grant "{victim}" to "{intruder}"',
    'grant pg_read_all_data to "{intruder}"',
    'grant all on victim.kept to "{intruder}"',
    "create role mine login superuser",
    'set role "{victim}"',
    'set session authorization "{superuser}"',
    "select set_config('role', '{victim}', false)",
    "select set_config('session_authorization', '{superuser}', false)",
    'reassign owned by "{victim}" to "{intruder}"',
    'drop owned by "{victim}"',
    "select set_config('session_replication_role', 'replica', false)",
    # to reach the machine, other servers, other sessions
    "copy kept from program 'id'",
    "copy kept to '/tmp/apiary-stolen'",
    "copy kept from '/etc/passwd'",
    "create function mine() returns int language plpython3u as 'return 1'",
    "create function mine() returns int as '/lib/x86_64-linux-gnu/libc.so.6', 'getpid' language c",
    "create extension dblink",
    "create extension pgcrypto",
    "create server elsewhere foreign data wrapper postgres_fdw",
    "create foreign data wrapper mine",
    "create event trigger mine on ddl_command_end execute function behind()",
    "create publication mine for all tables",
    "create subscription mine connection 'dbname=postgres' publication mine with (connect = false)",
    "create database mine",
    "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{victim}'",
    "select pg_reload_conf()",
    "alter table victim.kept enable row level security",
    "comment on schema victim is 'mine'",
    "load '/lib/x86_64-linux-gnu/libm.so.6'",
]
EMPTY = {
    "a program": "select * from apiary.program('{program of victim}')",
    "programs": "select * from apiary.programs where app = 'victim'",
    "code": "select hash from apiary.archives where hash not in "
    "(select unnest(archives) from apiary.program('{program of intruder}'))",
    "one archive": "select length(content) from apiary.archives where hash = '{code of victim}'",
    "statistics": "select * from pg_stats where schemaname = 'victim'",
}
REFUSALS = ("apiary.runtime.errors.RuleBroken:", "apiary.runtime.errors.DatabaseError:")


class Neighbours:
    """Two apps on one database, with their functions in one placement. `intruder` asks, `victim` has what to hide."""

    def __init__(self, url: str, folder: Path, placement: str, stack: ExitStack) -> None:
        self.look = stack.enter_context(psycopg.connect(url, autocommit=True))
        installer = Installer(url)
        stack.callback(installer.close)
        installer.registry()
        self.names = {"superuser": self.look.info.user, "database": self.look.info.dbname}
        self.opened: dict[str, OpenApp] = {}
        self.roles: dict[str, str] = {}
        for name in NAMES:
            module = f"{name}_{placement}"
            code = folder / module
            (code / "migrations").mkdir(parents=True)
            (code / f"{module}.py").write_text(APP.format(name=name))
            (code / "migrations" / "001-tables.sql").write_text(BEHIND)
            target = installer.app(name)
            program = installer.program(name, target.log, Source(module, LOCAL_VERSION, (code,)))
            self.roles[name] = self.names[name] = str(conninfo_to_dict(target.conninfo)["user"])
            self.names |= {f"program of {name}": program, f"code of {name}": folder_archive(code).hash}
            target = replace(target, program=program if placement == "inside" else None)
            engine = PostgresEngine(target, convert_rows, writers=1, readers=1)
            self.opened[name] = stack.enter_context(OpenApp(load_from(code), engine))
        self.opened["victim"].call("keep", SECRET)
        self.look.execute("analyze victim.kept")

    def written(self, statement: str) -> str:
        """A statement with the names of roles and of the database in their places."""
        return re.sub(r"\{([\w ]+)\}", lambda found: self.names[found[1]], statement)

    def last_error(self) -> str:
        """The last line of the traceback of the last call of the intruder."""
        last = "select error::json ->> 'traceback' from apiary_intruder.calls order by seq desc limit 1"
        return str(self.look.execute(last).fetchone()[0]).strip().rpartition("\n")[2]

    def state(self) -> list[Any]:
        """All that none of the attempts may change."""
        questions = (
            "select rolname, rolsuper, rolcreaterole, rolbypassrls, rolpassword from pg_authid order by 1",
            "select roleid, member from pg_auth_members order by 1, 2",
            "select setdatabase, setrole, setconfig from pg_db_role_setting order by 1, 2",
            "select nspname, nspowner, nspacl::text from pg_namespace where nspname !~ '^pg_t' order by 1",
            "select oid, proname, prosrc, proacl::text from pg_proc where pronamespace <> 'intruder'::regnamespace",
            "select relname, relacl::text, relrowsecurity from pg_class where relnamespace <> 'intruder'::regnamespace",
            "select secret from victim.kept order by 1",
            "select id from apiary_victim.calls order by 1",
            "select id from apiary_victim.queue order by 1",
            "select datname from pg_database where datname = 'mine'",
            "select extname from pg_extension",
            "select count(*) from pg_file_settings where sourcefile like '%auto.conf'",
        )
        return [self.look.execute(question).fetchall() for question in questions]


@pytest.fixture(scope="module")
def made(
    new_postgres_database: Callable[[], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Neighbours]]:
    found: dict[str, Neighbours] = {}
    with ExitStack() as stack:

        def make(placement: str) -> Neighbours:
            if placement not in found:
                url = stack.enter_context(new_postgres_database())
                found[placement] = Neighbours(url, tmp_path_factory.mktemp(placement), placement, stack)
            return found[placement]

        yield make


@pytest.fixture(params=["inside", "beside"])
def neighbours(request: pytest.FixtureRequest, made: Callable[[str], Neighbours]) -> Neighbours:
    return made(request.param)


@pytest.mark.parametrize("way", ["ask", "ask_behind"])
def test_what_is_not_the_apps_own_cannot_be_reached(neighbours, way):
    before = neighbours.state()
    for statement in map(neighbours.written, ATTEMPTS):
        try:
            found = neighbours.opened["intruder"].call(way, statement)
        except Error:
            assert neighbours.last_error().startswith(REFUSALS), statement
            continue
        pytest.fail(f"{statement}: {found}")
    assert neighbours.state() == before


@pytest.mark.parametrize("what", EMPTY)
def test_what_belongs_to_others_looks_as_if_it_were_not_there(neighbours, what):
    statement = neighbours.written(EMPTY[what])
    assert neighbours.look.execute(statement).fetchall() != []
    assert neighbours.opened["intruder"].call("ask_behind", statement) == []


def test_an_app_reads_its_own_code(neighbours):
    own = "select length(apiary.archive(unnest(archives))) > 0 from apiary.program('{program of intruder}')"
    found = neighbours.opened["intruder"].call("ask_behind", neighbours.written(own))
    assert len(found) == 2
    assert all("(t)" in row for row in found)


def test_each_app_has_connections_of_its_own(neighbours, together):
    """As its own role, which it logged in with, and none of them is used for another app."""
    found = together(lambda name: tuple(neighbours.opened[name].call("who")), NAMES * 8)
    for name, (login, role, _) in zip(NAMES * 8, found, strict=True):
        assert (login, role) == (neighbours.roles[name], neighbours.roles[name])
    backends = {
        name: {pid for other, (*_, pid) in zip(NAMES * 8, found, strict=True) if other == name} for name in NAMES
    }
    assert not backends["intruder"] & backends["victim"]


def test_roles_of_apps_have_no_rights_but_those_to_their_schemas(neighbours):
    rights = neighbours.look.execute(
        "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolinherit and exists "
        "(select from pg_auth_members where member = r.oid) from pg_roles r where rolname = any (%s)",
        [list(neighbours.roles.values())],
    ).fetchall()
    assert rights == [(False,) * 6] * 2
    assert neighbours.look.execute("select rolname from pg_roles where rolsuper").fetchall() == [("postgres",)]


def test_roles_of_apps_of_different_databases_are_different(postgres, postgres_database):
    """The app `b_c` of the database `a` is not the app `c` of `a_b`."""
    name = conninfo_to_dict(postgres_database)["dbname"]
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"create database {name}_b")
        try:
            roles = [role_of(postgres.url(name), "b_c"), role_of(postgres.url(f"{name}_b"), "c")]
        finally:
            connection.execute(f"drop database {name}_b with (force)")
    assert len(set(roles)) == 2


def test_an_app_keeps_its_role_where_its_database_gets_another_name(postgres, postgres_database):
    before = role_of(postgres_database, "shop")
    name = conninfo_to_dict(postgres_database)["dbname"]
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"alter database {name} rename to {name}_renamed")
        try:
            assert role_of(postgres.url(f"{name}_renamed"), "shop") == before
        finally:
            connection.execute(f"alter database {name}_renamed rename to {name}")


@pytest.mark.parametrize("name", ["registry", "registry_log", "apiary", "apiary_x", "pg_x", "public"])
def test_names_that_would_be_the_platforms_are_refused(postgres_database, name):
    with pytest.raises(BundleRefused, match=name):
        role_of(postgres_database, name)


def test_a_role_that_is_there_and_has_rights_is_not_taken(postgres_database):
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        role = f'"apiary_{connection.info.dbname}.shop"'
        connection.execute(f"create role {role} superuser")
        try:
            with pytest.raises(BundleRefused, match="has rights that no app may have"):
                role_of(postgres_database, "shop")
            connection.execute(f"alter role {role} nosuperuser")
            assert f'"{role_of(postgres_database, "shop")}"' == role
        finally:
            connection.execute(f"drop owned by {role} cascade")
            connection.execute(f"drop role {role}")


def test_a_schema_of_somebody_else_is_not_taken(postgres_database):
    """Not even where its owner has a name like those of the platform."""
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        role = f"apiary_installer_{connection.info.dbname}"
        connection.execute(f"create role {role}")
        try:
            connection.execute(f"create schema shop authorization {role}")
            connection.execute(f"create schema apiary_shop authorization {role}")
            with pytest.raises(BundleRefused, match=f"belongs to {role}"):
                role_of(postgres_database, "shop")
        finally:
            connection.execute(f"drop owned by {role} cascade")
            connection.execute(f"drop role {role}")


def role_of(url: str, app: str) -> str:
    """The role of an app, as a server makes it."""
    installer = Installer(url)
    try:
        return str(conninfo_to_dict(installer.app(app).conninfo)["user"])
    finally:
        installer.close()
