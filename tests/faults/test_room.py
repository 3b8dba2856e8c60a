"""A table that has no room to grow: calls are refused, nothing of them is kept, and they go on when it has."""

import subprocess
from collections.abc import Callable, Iterator

import pytest
from tests.faults.conftest import eventually, loaded, new_key

BALLAST = "insert into effects (key, call) select repeat('x', 1980), '' from generate_series(1, 10000)"
"""More than a segment of the write-ahead log, which shall have room; its pages have none left for the row of a call."""
PAGE_BYTES = 8192


def limited(postgres, most: int | str) -> None:
    """Let no file of the server grow beyond so many bytes. Its own user may do that, and undo it."""
    for pid in postgres.pids():  # the first is that of all others
        argv = [*postgres.prefix, "prlimit", f"--pid={pid}", f"--fsize={most}:"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 0 or "No such process" in done.stderr, done.stderr


@pytest.fixture
def room(world, private_postgres) -> Iterator[Callable[[], None]]:
    """The table of effects cannot grow, until this is called. What is written beyond a limit ends within a page."""
    world.look(BALLAST)
    size = world.look("select pg_relation_size('effects')")[0][0]

    def make() -> None:
        limited(private_postgres, "unlimited")
        world.look("delete from effects where key like 'xxx%'")

    limited(private_postgres, size + PAGE_BYTES // 2)
    eventually(lambda: world.run("effect", key=new_key()).error)
    yield make
    make()


def test_calls_are_refused_where_a_table_has_no_room_and_go_on_when_it_has(world, room):
    with loaded(world) as load:
        eventually(lambda: load.refused > 20)
        refused = eventually(lambda: world.run("effect", key=new_key()).error)
        assert refused["code"] == "database_unavailable"
        assert "the disk of the database is full" in refused["detail"]
        assert "make room" in refused["hint"]
        assert world.run("effects", key="any").error is None
        assert world.run("act", key="any").error is None
        room()
        before = len(load.answers)
        eventually(lambda: len(load.answers) > before + 20)
    world.works()


def test_what_is_queued_waits_for_room(world, room):
    key = new_key()
    assert world.run("later", key=key).error is None
    for _ in range(3):
        assert world.run("effect", key=key).error is not None
    assert world.look("select function from apiary_faults.queue") == [("effect",)]
    room()
    eventually(lambda: len(world.numbers(key)) == 1)
    world.works()
