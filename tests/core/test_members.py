"""Servers that share one PostgreSQL: leases, who is lost, and that a lost host commits nothing any more."""

import queue
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from apiary.engine.members import Beat, Changed
from apiary.engine.postgres.connection import Access
from apiary.engine.postgres.errors import NotConnected
from apiary.engine.postgres.install import Installer
from apiary.engine.postgres.members import PostgresMembers

LEASE_SECONDS = 3.0
LONG = 600.0
WAIT_SECONDS = 30.0


class Member:
    """One server of the database, and what it hears."""

    def __init__(self, url: str, lease_seconds: float) -> None:
        self.installer = Installer(url)
        self.members = PostgresMembers(self.installer, url, lease_seconds)
        self.heard: queue.SimpleQueue[Beat | Changed] = queue.SimpleQueue()

    def join(self) -> "Member":
        self.members.join("a server of the tests", self.heard.put)
        return self

    def beat(self, wanted: Callable[[Beat], Any] = lambda beat: True) -> Beat:
        """The next sign of life of which this holds."""
        while True:
            news = self.heard.get(timeout=WAIT_SECONDS)
            if isinstance(news, Beat) and wanted(news):
                return news

    def hurried(self) -> Beat:
        """A sign of life that is given now."""
        self.members.hurry()
        return self.beat()

    def host(self, app: str = "zoo") -> uuid.UUID:
        host = uuid.uuid4()
        assert self.members.add_host(self.members.server, host, app, "v")
        return host


@pytest.fixture
def server(postgres_database) -> Iterator[Callable[..., Member]]:
    """Makes servers of one database."""
    made = []

    def make(lease_seconds: float = LEASE_SECONDS) -> Member:
        made.append(Member(postgres_database, lease_seconds))
        return made[-1]

    yield make
    for member in made:
        member.members.leave()
        member.installer.close()


@pytest.fixture
def database(postgres_database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        yield connection


def silent(member: Member, lease_seconds: float = 0.2) -> Member:
    """A server that is in the list and gives no sign of life."""
    values = (member.members.server, "silent", lease_seconds)
    member.members._ask("join", *values)
    return member


def test_a_server_that_is_silent_is_lost_and_its_hosts_are_left_until_somebody_has_them(server, database):
    lost = silent(server())
    host = lost.host("zoo")
    one, two = server().join(), server().join()
    for member in (one, two):
        left = member.beat(lambda beat: beat.left).left
        assert [(each.host, each.app, each.ended) for each in left] == [(host, "zoo", True)]
    one.members.forget([host])
    one.beat(lambda beat: not beat.left)
    one.beat()
    there = {row[0] for row in database.execute("select id::text from apiary.servers")}
    assert there == {one.members.server, two.members.server}


def test_a_server_that_lives_loses_nobody_who_lives(server, database):
    one, two = server().join(), server().join()
    for _ in range(50):
        assert not one.hurried().expelled
        assert not two.hurried().expelled
    assert one.hurried().others == {two.members.server}
    assert two.hurried().others == {one.members.server}
    assert not database.execute("select count(*) from apiary.servers where lost is not null").fetchone()[0]


def test_nobody_is_lost_because_the_database_stood_still(server, database):
    """As after a stop of the database, all leases have run out when the first server gives a sign of life."""
    one, two = server().join(), server().join()
    one.hurried()
    two.hurried()
    database.execute("update apiary.servers set beat = beat - interval '1 hour', since = since - interval '1 hour'")
    for _ in range(5):
        assert not one.hurried().expelled
        assert not two.hurried().expelled


def test_a_server_that_was_declared_lost_goes_on_under_a_new_identity(server, database):
    slow = server().join()
    host, before = slow.host(), slow.members.server
    database.execute("update apiary.servers set lost = clock_timestamp()")
    beat = slow.beat(lambda beat: beat.expelled)
    assert [each.host for each in beat.left] == [host]
    assert slow.members.server != before
    slow.host()
    assert not slow.beat().expelled


def test_a_server_that_is_lost_adds_no_host(server, database):
    slow = silent(server(), LONG)
    database.execute("update apiary.servers set lost = clock_timestamp()")
    assert not slow.members.add_host(slow.members.server, uuid.uuid4(), "zoo", "v")


def test_a_lost_host_is_cut_off_and_cannot_connect_again(server):
    """What its sessions run is ended, so that nothing of it is committed after others have taken over."""
    lost = silent(server())
    host = lost.host()
    expelled: list[bool] = []
    access = Access(lost.installer.registry(), host, lambda: expelled.append(True))
    link = access.open()
    link.connection.execute("create temporary table t ()")
    assert not expelled
    one = server().join()
    one.beat(lambda beat: beat.left and beat.left[0].ended)
    with pytest.raises(psycopg.OperationalError):
        link.connection.execute("select 1")
    link.close()
    with pytest.raises(NotConnected, match="lost"):
        access.open()
    assert expelled
    access.close()


def test_a_host_is_not_taken_for_ended_while_a_session_of_it_is_there(server, database):
    lost = silent(server())
    host = lost.host()
    access = Access(lost.installer.registry(), host)
    link = access.open()
    first = server().join().beat(lambda beat: beat.left)
    assert not first.left[0].ended
    link.close()
    access.close()


def test_a_host_that_ended_is_left_and_one_that_never_served_is_not(server):
    one, two = server(LONG).join(), server(LONG).join()
    served, never = one.host(), one.host()
    for member in (one, two):
        member.beat()
    one.members.end_host(never, served=False)
    one.members.end_host(served, served=True)
    for member in (one, two):  # they hear of it: the next sign of life is not due for minutes
        assert [each.host for each in member.beat(lambda beat: beat.left).left] == [served]


def test_whoever_leaves_is_lost_at_once(server):
    one, two = server(LONG).join(), server(LONG)
    two.join()
    host = two.host()
    one.beat()
    two.members.leave()
    beat = one.beat(lambda beat: beat.left)
    assert ([each.host for each in beat.left], beat.others) == ([host], frozenset())


def test_signs_of_life_leave_nothing_behind_in_the_database(server, database):
    """Each replaces the one before it on its page."""
    one = server(LONG).join()
    for _ in range(300):
        one.hurried()
    assert database.execute("select pg_relation_size('apiary.servers')").fetchone() == (8192,)
    assert database.execute("select pg_relation_size('apiary.servers_pkey')").fetchone() <= (16384,)


def test_all_servers_are_listed_with_their_hosts(server):
    one, two = server(LONG).join(), server(LONG).join()
    host = two.host("zoo")
    found: list[Any] = one.members.listed()
    assert [each["id"] for each in found] == [str(one.members.server), str(two.members.server)]
    assert [len(each["hosts"]) for each in found] == [0, 1]
    shown = SimpleNamespace(**found[1]["hosts"][0])
    assert (shown.id, shown.app, shown.version, shown.lost) == (str(host), "zoo", "v", None)


def test_a_server_is_known_to_act_as_soon_as_it_has_joined(server, database):
    one, other = server(LONG).join(), server(LONG)
    one.beat()
    assert not one.members.acts(other.members.server)
    other.join()
    assert one.members.acts(other.members.server)
    other.members.leave()
    assert not one.members.acts(other.members.server)
    assert not one.members.acts("")


def test_who_has_done_with_a_deployment_is_not_waited_for(server):
    one, other = server().join(), server().join()
    own, deployment = one.members.server, "d"
    for state, awaited in (("loaded", False), ("held", True), ("done", False)):
        other.members.acknowledge(other.members.server, deployment, state, None)
        assert bool(one.members.awaited(own, deployment, "loaded")) == awaited
