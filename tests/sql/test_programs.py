"""Code that nothing can run any more leaves the database, and the folders of its server; what may run stays."""

import json
import uuid

import pytest

from apiary.engine.places import open_places
from apiary.engine.postgres import install
from apiary.runtime.errors import DatabaseUnavailable

from .conftest import CALL

SOURCE = """
@app.transaction
def value(tx: Transaction) -> int:
    return {}
"""
LATE = """
@app.transaction
def early(tx: Transaction) -> int:
    return {0}


@app.transaction
def value(tx: Transaction) -> int:
    import late

    return late.VALUE
"""
FOLDERS = """
create or replace function pg_temp.folders(age text) returns text language plpython3u as $$
import json, os, time
root = os.path.join(os.getcwd(), "apiary")
for name in json.loads(age):
    os.makedirs(os.path.join(root, name), exist_ok=True)
    os.utime(os.path.join(root, name), (time.time() - 7200,) * 2)
return json.dumps(os.listdir(root))
$$
"""


@pytest.fixture
def folders(database):
    """The names of the folders in the data directory, after some of them have got old."""
    database.ask(FOLDERS)
    return lambda *old: set(json.loads(database.one("select pg_temp.folders(%s)", json.dumps(old))))


def served(database, number, source=SOURCE, **options):
    """Deploy a version with a host of its own; returns the host."""
    host = uuid.uuid4()
    database.deploy(source.format(number), host=host, **options)
    return host


def ended(database, *hosts):
    database.ask("delete from apiary.hosts where id = any (%s)", list(hosts))


def programs(database):
    return {row[0] for row in database.ask("select hash from apiary.programs")}


def archives(database, program=None):
    if program is None:
        return {row[0] for row in database.ask("select hash from apiary.archives")}
    return set(database.one("select archives from apiary.programs where hash = %s", program))


def test_a_program_goes_when_its_hosts_are_gone_and_another_comes(database):
    first = served(database, 1)
    of_first = database.place["program"]
    second = served(database, 2)
    of_second = database.place["program"]
    served(database, 3)
    assert programs(database) == {of_first, of_second, database.place["program"]}
    code, platform = database.one("select archives from apiary.programs where hash = %s", of_first)
    ended(database, first)
    served(database, 4)
    assert of_first not in programs(database)
    assert {of_second, database.place["program"]} < programs(database)
    assert code not in archives(database)
    assert platform in archives(database)
    ended(database, second)
    database.deploy(SOURCE.format(5))
    assert of_second in programs(database), "who has no host has no occasion to remove anything"


def test_code_that_cannot_be_kept_is_said_in_the_platforms_words(database, monkeypatch):
    monkeypatch.setattr(install, "LOCK_SECONDS", 1)
    places, database.places = database.places, open_places(database.url, database.folder)
    places.close()
    with database.admin.transaction():
        database.ask("lock table apiary.programs in share mode")
        with pytest.raises(DatabaseUnavailable, match="another session holds a lock: the code of shop cannot be kept"):
            database.deploy(SOURCE.format(1))
    database.deploy(SOURCE.format(1))


def test_a_program_that_went_is_there_again_when_its_version_serves_again(database, client):
    hosts = [served(database, 1)]
    before = database.place["program"], archives(database)
    hosts.append(served(database, 2))
    ended(database, *hosts)
    served(database, 3)
    assert before[0] not in programs(database)
    served(database, 1)
    assert database.place["program"] == before[0]
    assert before[1] <= archives(database)
    assert client("web", *CALL).one("select shop.value()") == 1


def test_a_host_that_has_named_no_program_yet_keeps_those_of_its_version(database):
    """It may be one of an earlier release, which does not name it."""
    host = served(database, 1)
    program = database.place["program"]
    database.ask("update apiary.hosts set program = null where id = %s", host)
    served(database, 2)
    assert program in programs(database)


def test_a_function_of_sql_keeps_its_program(database, client):
    hosts = [served(database, 1)]
    program = database.place["program"]
    database.ask("create view old as select shop.value() as value")
    hosts.append(served(database, 2, SOURCE.replace("value", "renamed")))
    ended(database, *hosts)
    served(database, 3, SOURCE.replace("value", "renamed"))
    assert program in programs(database)
    assert client("web", *CALL).one("select shop.renamed()") == 3
    assert database.ask("select * from old") == [(1,)]


def with_late(database, number):
    """A version with a module that is imported when a function runs first."""
    folder = database.fresh_folder()
    (folder / "late.py").write_text(f"VALUE = {number}\n")
    database.deploy(LATE.format(number), packages=folder)
    return archives(database, database.place["program"])


def test_a_folder_that_a_session_uses_stays_for_what_it_imports_late(database, client, folders):
    of_first = with_late(database, 1)
    session = client("web", *CALL)
    with session.transaction():
        assert session.one("select shop.early()") == 1
        folders(*of_first)
        assert unpacked(database, client) == 2
        assert session.one("select shop.value()") == 1


def left(database, client):
    """The folders of a version that are its own, when the session that used them has ended."""
    mine = with_late(database, 1)
    session = client("web", *CALL)
    assert session.one("select shop.value()") == 1
    session.connection.close()
    name = f"{database.admin.info.dbname}_web"
    while database.one("select count(*) from pg_stat_activity where usename = %s", name):
        pass
    return mine - shared(database)


def shared(database):
    """The folders that each version has: the platform."""
    database.deploy(SOURCE.format(1), "other")
    return archives(database, database.place["program"])


def unpacked(database, client):
    """Have a session unpack a folder that there was never before."""
    database.deploy(SOURCE.format(2) + f"# {uuid.uuid4()}", "other")
    return client("web", *[grant.replace("shop", "other") for grant in CALL]).one("select other.value()")


def test_folders_that_nobody_uses_are_removed_by_whoever_unpacks_another(database, client, folders):
    unused = left(database, client)
    assert unused | {"half"} <= folders(*unused, "half")
    assert unpacked(database, client) == 2
    assert not folders() & (unused | {"half"})
    assert client("web").one("select shop.value()") == 1
    assert unused <= folders()


def test_folders_that_were_used_a_moment_ago_stay(database, client, folders):
    unused = left(database, client)
    assert unpacked(database, client) == 2
    assert unused <= folders()
