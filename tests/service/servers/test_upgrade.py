"""Servers of two releases on one database: the newer one joins while the older one serves, and takes over from it."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

import apiary

from .conftest import Load, Servers, without_python

OLDER, NEWER = apiary.__version__, "99.0.0"
RELEASE = """

@app.transaction
def release(tx: Transaction) -> str:
    import apiary

    return apiary.__version__


@app.workflow
def patient(wf: Workflow, key: str) -> list[str]:
    first = wf.run(put, f"{key}-first")
    word = wf.receive("word")
    return [word, wf.run(release), wf.run(put, f"{key}-second") and "done"]
"""
LATER = {
    "platform-099.sql": "alter table apiary.programs add column later text;\n",
    "app-099.sql": "alter table {log}.calls add column later text;\nalter table {log}.queue add column later text;\n",
}
"""System tables of the newer release: what a release may do to those that others use."""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a server of a newer release: this one with another number and more system tables."""
    folder = tmp_path_factory.mktemp("newer")
    package = shutil.copytree(
        Path(apiary.__file__).parent, folder / "apiary", ignore=shutil.ignore_patterns("__pycache__")
    )
    face = package / "__init__.py"
    face.write_text(face.read_text().replace(f'__version__ = "{OLDER}"', f'__version__ = "{NEWER}"'))
    for name, text in LATER.items():
        (package / "engine/postgres/schema" / name).write_text(text)
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(params=[pytest.param("inside", marks=pytest.mark.soak), "beside"])
def upgraded(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tools: Any,
    new_postgres_database: Callable[[], AbstractContextManager[str]],
) -> Iterator[Servers]:
    """A server of this release, with an app."""
    with new_postgres_database() as database:
        where = nullcontext(database) if request.param == "inside" else without_python(database)
        with where as url:
            servers = Servers(tmp_path, url, tools)
            servers.inside = request.param == "inside"
            try:
                servers.new().start()
                servers.a.deployed(with_release(servers, "one"))
                yield servers
            finally:
                servers.end()


def with_release(servers: Servers, version: str, migration: str | None = None) -> Path:
    folder = servers.app(version, migration)
    module = folder / "grow.py"
    module.write_text(module.read_text() + RELEASE)
    return folder


def releases(servers: Servers) -> list[str]:
    return [server.call("release", app="grow") for server in servers.started]


def test_a_newer_release_joins_and_takes_over_while_the_older_one_serves(upgraded, newer, tools):
    a = upgraded.a
    begun = a.http.post("/apps/grow/patient", json={"key": "p"}, headers={"Prefer": "respond-async"}).json()["id"]
    clients = Load([a], "before")
    clients.reach(5)

    b = upgraded.new(environment=newer).start()
    both = Load([a, b], "both")
    both.reach(10)
    assert releases(upgraded) == [OLDER, NEWER]

    os.kill(a.host("grow"), signal.SIGKILL)  # the older one can replace its processes
    tools.eventually(lambda: a.post("release", app="grow").status_code == 200, 60)
    assert releases(upgraded) == [OLDER, NEWER]

    a.deployed(with_release(upgraded, "two", "select 1;"))
    assert upgraded.state() == {("two", 1)}
    b.deployed(with_release(upgraded, "three"))
    assert upgraded.state() == {("three", 1)}
    assert releases(upgraded) == [OLDER, NEWER]
    both.reach(10)
    clients.finish(a)
    both.finish(b)

    last = Load([b], "last")
    assert a.stop() == 0
    upgraded.started.remove(a)
    a.end()
    sent = b.http.post(f"/api/v1/workflows/{begun}/messages", json={"topic": "word", "value": "go on"})
    assert sent.status_code == 200, sent.text
    result = b.http.get(f"/api/v1/workflows/{begun}/result", params={"wait": 50})
    assert (result.status_code, result.json()) == (200, ["go on", NEWER, "done"])
    assert b.call("effects", app="grow", prefix="p") == {"p-first": 1, "p-second": 1}
    last.reach(10)
    last.finish(b)
    for version in ("four", "five"):  # the functions of SQL may have named the code of the older release until now
        b.deployed(with_release(upgraded, version))
    assert releases(upgraded) == [NEWER]
    if upgraded.inside:
        with psycopg.connect(upgraded.database) as connection:
            assert connection.execute("select grow.release()").fetchone() == (NEWER,)
            left = connection.execute("select count(distinct archives[cardinality(archives)]) from apiary.programs")
            assert left.fetchone() == (1,), "the code of the older release is still there"


def test_an_older_release_does_not_begin_where_a_newer_one_has_prepared_the_database(upgraded, newer):
    upgraded.a.stop()
    upgraded.new(environment=newer).start().stop()
    again = upgraded.new()
    with pytest.raises(AssertionError, match="prepared by a newer release of Apiary"):
        again.start()
    assert again.process.wait() == 1
    assert "restore a backup" in again.text()
