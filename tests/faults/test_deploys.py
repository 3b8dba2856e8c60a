"""The network is cut at any message of a deploy and the calls after it: tried again, all is there, and once."""

import json
import shutil
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest
from bench.proxy import Direction, Kind, Proxy
from psycopg.conninfo import conninfo_to_dict
from tests.conftest import new_database
from tests.faults.conftest import PLACEMENTS, new_key

from apiary import OpenApp
from apiary.bundle import load_app, make_bundle, read_migrations
from apiary.codec import compile_program, convert_rows
from apiary.engine.places import Source, open_places
from apiary.engine.postgres.connection import Target
from apiary.engine.postgres.engine import PostgresEngine
from apiary.platform.manifest import manifest_of
from apiary.runtime.errors import DatabaseUnavailable

APP = """
from apiary import App, Transaction

app = App("cut")


@app.transaction
def put(tx: Transaction, key: str) -> int:
    return tx.execute("insert into effects (key, version) values (:key, {0}) returning id", key=key).scalar()
"""
TABLES = (
    "create table effects (id bigint generated always as identity primary key, key text not null, version integer);"
)
MANY = 1000
ATTEMPTS = 4
MODULES = count(1)


def opened_engine(place) -> PostgresEngine:
    """As a host has it, with fewer lanes: each loads the program."""
    target = Target(**{name: value for name, value in place.items() if name != "kind"})
    return PostgresEngine(target, convert_rows, writers=1, readers=1)


class Deploys:
    """Versions of an app, one after another, each with a migration; their database is reached through `proxy`."""

    def __init__(self, url: str, proxy: Proxy, folder: Path, placement: str, make_calls) -> None:
        self.url = url
        self.proxy = proxy
        self.placement = placement
        self._through = url.replace(f":{conninfo_to_dict(url)['port']}/", f":{proxy.port}/")
        self._folder = folder
        self._make_calls = make_calls
        self._version = 0
        self._module = ""

    def version(self) -> Path:
        """The sources of the next version."""
        self._version += 1
        number = self._version
        folder = self._folder / f"v{number}"
        (folder / "migrations").mkdir(parents=True)
        self._module = f"cut{next(MODULES)}"
        (folder / f"{self._module}.py").write_text(APP.format(number))
        for earlier in range(1, number + 1):
            text = f"create table t{earlier} ();" if earlier > 1 else TABLES
            (folder / "migrations" / f"{earlier:04}.sql").write_text(text)
        return folder

    def deploy(self, folder: Path, key: str):
        """What a server does for a deploy, and one call; what fails is done again, as whoever deploys does it."""
        module = self._module
        sys.path.insert(0, str(folder))
        try:
            app = load_app(module)
        finally:
            sys.path.remove(str(folder))
            del sys.modules[module]
        source = Source(module, make_bundle(folder).version, (folder,))
        for _ in range(ATTEMPTS):
            with suppress(DatabaseUnavailable):
                return self._attempt(app, source, key)
        return self._attempt(app, source, key)

    def _attempt(self, app, source: Source, key: str):
        places = open_places(self._through, self._folder)
        try:
            place = places.make(app.name, source)
            assert (place["program"] is not None) == (self.placement == "inside"), place["why_beside"]
            engine = opened_engine(place)
            try:
                engine.pending(read_migrations(app.migrations, engine.dialect))
                engine.migrate(read_migrations(app.migrations, engine.dialect), source.version)
            finally:
                engine.close()
            places.publish(place, manifest_of(app, compile_program(app, source.version)), recording=True)
            with OpenApp(app, opened_engine(place)) as opened:
                return self._make_calls(opened).run("put", json.dumps({"key": key}), key=key)
        finally:
            places.close()

    def cut(self, direction: Direction, number: int):
        """Cut the connection at a message of a deploy; all must be there, once; returns the fault."""
        folder, key = self.version(), new_key()
        fault = self.proxy.fault(Kind.CUT, direction, number)
        outcome = self.deploy(folder, key)
        self.proxy.heal()
        assert outcome.error is None, (number, outcome.error)
        with psycopg.connect(self.url) as look:
            found = look.execute("select id, version from cut.effects where key = %s", [key]).fetchall()
            assert found == [(json.loads(outcome.output), self._version)], number
            names = look.execute("select name from apiary_cut.migrations order by name").fetchall()
            assert len(names) == len(set(names)) == self._version
            if self.placement == "inside":
                assert look.execute("select cut.put('by SQL')").fetchone() is not None
        shutil.rmtree(folder)
        return fault


@pytest.fixture(params=PLACEMENTS)
def deploys(request, private_postgres, tmp_path, platform):
    with new_database(private_postgres) as local:
        name = conninfo_to_dict(local)["dbname"]
        url = private_postgres.url(name, tcp=True)
        if request.param == "beside":
            with psycopg.connect(local, autocommit=True) as connection:
                connection.execute(f"create role installer_{name} login createrole password 'secret'")
                connection.execute(f"alter database {name} owner to installer_{name}")
            url = f"postgresql://installer_{name}:secret@127.0.0.1:{private_postgres.port}/{name}"
        with Proxy("127.0.0.1", private_postgres.port) as proxy:
            yield Deploys(url, proxy, tmp_path, request.param, platform)
        if request.param == "beside":
            with psycopg.connect(local, autocommit=True) as connection:
                connection.execute(f"alter database {name} owner to current_user")


@pytest.mark.parametrize("direction", Direction, ids=["before", "after"])
def test_a_deploy_may_be_cut_at_the_first_and_at_later_messages(deploys, direction):
    deploys.cut(direction, MANY)
    messages = MANY - deploys.cut(direction, MANY).left
    assert messages > 20
    for number in (1, messages // 3, 2 * messages // 3):
        assert deploys.cut(direction, number).hit.is_set()


@pytest.mark.soak
@pytest.mark.parametrize("direction", Direction, ids=["before", "after"])
def test_a_deploy_may_be_cut_at_any_message(deploys, direction):
    deploys.cut(direction, MANY)
    for number in range(1, MANY):
        if not deploys.cut(direction, number).hit.is_set():
            break
    assert 20 < number < MANY - 1
