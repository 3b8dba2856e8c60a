"""Whoever follows the log is told of every call once, in whatever order transactions begin to write and commit."""

import random
import threading

import pytest

from apiary.log import questions

from .conftest import CALL

SHOP = """
@app.transaction
def note(tx: Transaction, number: int) -> int:
    tx.execute("insert into notes (number) values (:number)", number=number)
    return number
"""
TABLES = "create table notes (number bigint);"
SEED = 7
WRITERS = 4
EACH = 30


@pytest.fixture
def shop(database):
    database.deploy(SHOP, migrations=(TABLES,))
    return database


class Follower:
    """Reads the log from where it is, a few calls at a time."""

    def __init__(self, database, limit=1000):
        self.log = database.places.log("shop")
        self.place = 0
        self.limit = limit

    def look(self):
        """The numbers of the calls that are new, in their order."""
        found, before = [], None
        while page := questions.calls(self.log, after=self.place, before=before, limit=self.limit):
            found += page
            before = page[-1]["seq"]
        if found:
            self.place = found[0]["seq"]
        return [self.number(call) for call in reversed(found)]

    def number(self, call):
        return questions.show(self.log, call=call["id"])["output"]

    def shown(self):
        return [self.number(call) for call in questions.calls(self.log)]


def test_a_call_that_was_written_early_and_committed_late_is_not_missed(shop, client):
    early, late = client("web", *CALL), client("web")
    follower = Follower(shop)
    early.one("select shop.note(1)")
    assert follower.look() == [1]
    with early.transaction():
        early.one("select shop.note(2)")
        late.one("select shop.note(3)")
        assert follower.shown() == [3, 1]
        assert follower.look() == []
    assert follower.look() == [2, 3]
    late.one("select shop.note(4)")
    assert follower.look() == [4]
    assert follower.look() == []


def test_a_call_that_was_undone_holds_up_nobody(shop, client):
    early, late = client("web", *CALL), client("web")
    follower = Follower(shop)
    with early.transaction(force_rollback=True):
        early.one("select shop.note(1)")
        late.one("select shop.note(2)")
    assert follower.look() == [2]


def test_a_transaction_that_began_to_write_before_its_call_is_waited_for(shop, client):
    """Its call has a higher number than one that was committed before."""
    early, late = client("web", *CALL, "create on schema public"), client("web")
    follower = Follower(shop)
    with early.transaction():
        early.ask("create table of_my_own ()")
        late.one("select shop.note(1)")
        assert follower.look() == []
        early.one("select shop.note(2)")
    assert follower.look() == [2, 1]
    early.ask("drop table of_my_own")


def test_followers_see_every_call_of_many_writers_once(shop, client):
    writers = [client("web", *CALL) for _ in range(WRITERS)]
    followers = [Follower(shop), Follower(shop, limit=3)]
    seen = [[], []]
    over = threading.Event()

    def write(number):
        chance = random.Random(SEED + number)
        done = 0
        while done < EACH:
            many = min(chance.randint(1, 4), EACH - done)
            with writers[number].transaction():
                for _ in range(many):
                    writers[number].one("select shop.note(%s)", number * EACH + done)
                    done += 1

    def follow(number):
        while not over.is_set():
            seen[number] += followers[number].look()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    following = [threading.Thread(target=follow, args=(number,)) for number in range(2)]
    for thread in threads + following:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    for thread in following:
        thread.join()
    for number in range(2):
        seen[number] += followers[number].look()
        assert sorted(seen[number]) == list(range(WRITERS * EACH))
    assert seen[0] == seen[1]


def test_a_database_that_came_from_another_server_is_followed_too(shop, client):
    """There, transactions may have had higher numbers than here."""
    web = client("web", *CALL)
    web.one("select shop.note(1)")
    follower = Follower(shop)
    assert follower.look() == [1]
    web.one("select shop.note(2)")
    shop.ask("update apiary_shop.calls set tx = (tx::text::bigint + 1000000000)::text::xid8")
    shop.deploy(SHOP, migrations=(TABLES,))
    web.one("select shop.note(3)")
    assert follower.look() == [2, 3]
    assert follower.shown() == [3, 2, 1]
