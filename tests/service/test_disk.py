"""Disks that are full, cannot be written or do not sync, below a server: clear errors, nothing lost, and on it goes."""

import os
import resource
import subprocess
from contextlib import suppress

import httpx
import pytest

SIZE = 20_000
APP = """
from apiary import App, Transaction

app = App("filler")


@app.transaction
def put(tx: Transaction, id: int, size: int = 20_000) -> int:
    tx.execute("insert into blobs (id, content) values (:id, :content)", id=id, content=b"x" * size)
    return id


@app.transaction
def put_later(tx: Transaction, id: int) -> str:
    return tx.enqueue(put, id, 1)


@app.query
def ids(tx: Transaction) -> list[int]:
    return tx.execute("select id from blobs order by id").scalars()


@app.action
def act() -> int:
    return 42
"""
FILES = {"app/filler.py": APP, "app/migrations/001.sql": "create table blobs (id integer primary key, content blob)"}
FAILING = """
import os
from pathlib import Path

original = os.fdatasync


def fdatasync(descriptor):
    if Path(os.environ["FAILING_DISK"]).exists():
        raise OSError(5, "Input/output error")
    original(descriptor)


os.fdatasync = fdatasync
"""


class Filler:
    """Puts rows into an app, one after another, and knows which of them were acknowledged."""

    def __init__(self, server, tools):
        self.server = server
        self.tools = tools
        self.acknowledged = set()
        self.number = 0

    def put(self) -> httpx.Response:
        self.number += 1
        response = self.server.post("put", {"id": self.number}, app="filler")
        if response.status_code == 200:
            self.acknowledged.add(self.number)
        return response

    def put_until(self, status: int, seconds: float = 30.0) -> httpx.Response:
        """Until one is answered with this status."""
        return self.tools.eventually(
            lambda: response if (response := self.put()).status_code == status else None, seconds, f"status {status}"
        )

    def check(self) -> None:
        """All that was acknowledged is there."""
        assert self.acknowledged <= set(self.server.call("ids", app="filler"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system in memory, and a function that changes its size in MiB."""
    folder = tmp_path / "data"
    folder.mkdir()

    def mount(*command: str) -> None:
        subprocess.run(["mount", *command, str(folder)], check=True, capture_output=True)

    try:
        mount("-t", "tmpfs", "-o", "size=6m", "tmpfs")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here: that takes root")
    yield lambda size: mount("-o", f"remount,size={size}m")
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def ended(small_disk, new_server):
    """The server ends before the disk goes."""
    servers = []
    yield lambda: servers.append(new_server()) or servers[-1]
    for server in servers:
        server.end()


def fill(file) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)


def test_a_full_disk(small_disk, ended, tools, tmp_path):
    app = tools.write_app(tmp_path, FILES) / "app"
    server = ended()
    server.deployed(app)
    filler = Filler(server, tools)
    refused = filler.put_until(503)
    assert (refused.json()["code"], "full" in refused.json()["detail"]) == ("database_unavailable", True)
    filler.check()
    fill(tmp_path / "data" / "ballast")
    tools.write_app(tmp_path, {"app/more.py": "x = 1"})
    deployed = server.deploy(app)
    assert (deployed.status_code, "No space left" in deployed.json()["detail"]) == (503, True), deployed.text
    assert server.http.get("/api/v1/backup").status_code == 503
    filler.check()
    os.kill(server.host("filler"), 9)
    small_disk(12)
    filler.put_until(200)
    assert server.call("act", app="filler") == 42
    server.deployed(app)
    filler.check()


def test_a_server_that_starts_on_a_full_disk(small_disk, ended, tools, tmp_path):
    server = ended()
    server.deployed(tools.write_app(tmp_path, FILES) / "app")
    filler = Filler(server, tools)
    filler.put_until(503)
    server.kill()
    fill(tmp_path / "data" / "ballast")
    server = filler.server = ended()
    small_disk(12)
    filler.put_until(200)
    filler.check()


def test_a_disk_that_cannot_be_written(new_server, tools, tmp_path):
    """No file of the process that owns the database may grow: each write fails, as on a broken disk."""
    server = new_server()
    server.deployed(tools.write_app(tmp_path, FILES) / "app")
    filler = Filler(server, tools)
    filler.put_until(200)
    host = server.host("filler")
    server.call("put_later", app="filler", id=1_000_000)
    tools.eventually(lambda: 1_000_000 in server.call("ids", app="filler"))
    limits = resource.prlimit(host, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        refused = filler.put_until(503)
        assert refused.json()["code"] == "database_unavailable"
        assert server.post("put_later", {"id": 1_000_001}, app="filler").status_code == 503
        assert server.post("act", app="filler").status_code == 503
        filler.check()
    finally:
        resource.prlimit(host, resource.RLIMIT_FSIZE, limits)
    filler.put_until(200)
    assert server.host("filler") == host
    server.call("put_later", app="filler", id=1_000_002)
    tools.eventually(lambda: 1_000_002 in server.call("ids", app="filler"))
    filler.check()
    assert 1_000_001 not in server.call("ids", app="filler")


def test_a_disk_that_does_not_sync(new_server, tools, tmp_path):
    """What was not synced is uncertain, and told so; what reads it afterwards has it written again first."""
    flag = tmp_path / "failing"
    tools.write_app(tmp_path, {"site/sitecustomize.py": FAILING, **FILES})
    server = new_server(environment={"PYTHONPATH": str(tmp_path / "site"), "FAILING_DISK": str(flag)})
    server.deployed(tmp_path / "app")
    filler = Filler(server, tools)
    filler.put_until(200)
    host = server.host("filler")
    flag.touch()
    refused = filler.put()
    assert (refused.status_code, "may or may not" in refused.json()["detail"]) == (503, True), refused.text
    tools.write_app(tmp_path, {"app/more.py": "x = 1"})
    assert server.deploy(tmp_path / "app").status_code == 503
    flag.unlink()
    filler.put_until(200)
    filler.check()
    assert server.host("filler") != host
    assert "Input/output error" in server.text()
    server.deployed(tmp_path / "app")
    filler.put_until(200)
    filler.check()
