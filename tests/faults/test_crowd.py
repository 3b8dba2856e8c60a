"""Others have all connections of the server: lanes share what they have, calls are refused where there is none."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.postgres import Postgres
from tests.conftest import crowd
from tests.faults.conftest import eventually, loaded

from apiary.engine.postgres.health import examine

CONNECTIONS = 16
OURS = "where datname = current_database() and usename like 'apiary%'"


@pytest.fixture(scope="module")
def private_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server with few connections."""
    log = tmp_path_factory.mktemp("few") / "postgres.log"
    server = Postgres(Path(tempfile.gettempdir()), log, {"max_connections": str(CONNECTIONS)})
    try:
        server.start()
        yield server
    finally:
        server.remove()


def refused_call(world):
    """End the app's sessions, and call; the error where the crowd was faster than the lanes."""
    world.look(f"select pg_terminate_backend(pid) from pg_stat_activity {OURS}")
    return world.run("effects", key="any").error


def test_lanes_share_their_connections_when_there_are_no_more(world, private_postgres):
    """One loses its own, and somebody else has it now: no call notices."""
    with loaded(world) as load:
        eventually(lambda: len(load.answers) > 20)
        with crowd(private_postgres, world.url):
            world.look("select pg_terminate_backend(%s)", eventually(lambda: world.backends("active"))[0])
            before = len(load.answers)
            eventually(lambda: len(load.answers) > before + 20)
        before = len(load.answers)
        eventually(lambda: len(load.answers) > before + 20)
    assert load.refused == 0
    world.works()


def test_calls_are_refused_where_there_is_no_connection_and_go_on_when_there_is(world, private_postgres, impatient):
    with loaded(world) as load:
        eventually(lambda: len(load.answers) > 20)
        with crowd(private_postgres, world.url):
            doctor = {check.name: check for check in examine(world.url)}
            assert not doctor["connections"].good
            assert "who has so many" in doctor["connections"].advice
            refused = eventually(lambda: refused_call(world))
            eventually(lambda: refused_call(world) and load.refused > 5)
            assert (refused["code"], refused["status"]) == ("database_unavailable", 503)
        before = len(load.answers)
        eventually(lambda: len(load.answers) > before + 20)
    world.works()
