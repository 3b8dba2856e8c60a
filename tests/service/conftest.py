"""Real servers for the tests: `python -m apiary serve` on loopback, a free port and a folder of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from apiary.bundle import make_bundle

KEY = "an-admin-key-of-the-tests"
APPS = Path(__file__).parent / "apps"
WAIT_SECONDS = 60.0
"""For what comes in a moment, but not on a machine that is busy."""
LOOK_SECONDS, MOST_LOOK_SECONDS = 0.005, 0.05
MARK = "APIARY_TEST_MARK"


def eventually(condition: Callable[[], Any], seconds: float = WAIT_SECONDS, what: str = "") -> Any:
    """What `condition` returns once that is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    pause = LOOK_SECONDS
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds:g} s: {what or condition}"
        time.sleep(pause)
        pause = min(pause * 1.2, MOST_LOOK_SECONDS)


def marked_processes(mark: str) -> list[int]:
    """The processes that inherited the environment of a server."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def working_processes(mark: str) -> list[int]:
    """The same without the process that takes effects apart, which a server starts when it has some."""
    return sorted({*marked_processes(mark)} - {*expanders(mark)})


def expanders(mark: str) -> list[int]:
    """The processes that take effects apart."""
    found = []
    for pid in marked_processes(mark):
        with suppress(OSError):
            if b"apiary.engine.sqlite.expander" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def new_client(**options: Any) -> httpx.Client:
    """A client that is patient. It is made at once, because it knows no certificates."""
    return httpx.Client(**{"timeout": WAIT_SECONDS, **options}, verify=False)


class Server:
    """A server process, and clients of it. Every process below it bears its mark, so that orphans are found.

    `before` is put before its command: a program that sets limits and then becomes the server.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int = 0,
        environment: dict[str, str] | None = None,
        database: str | None = None,
        before: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.database = database or f"sqlite:///{self.data}"
        self.options = options
        self.port = port
        self.mark = uuid.uuid4().hex
        self.output = folder / f"output-{self.mark}.txt"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("APIARY")},
            "APIARY_ADMIN_KEY": KEY,
            MARK: self.mark,
            **(environment or {}),
        }
        self.before = before
        self.http = new_client()
        self.process: subprocess.Popen[bytes]

    def start(self) -> "Server":
        """Start the process, and wait until it serves."""
        command = [*self.before, sys.executable, "-m", "apiary", "serve"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--database", self.database, "--port", str(self.port), *self.options],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={name: value for name, value in self.environment.items() if value},
                cwd=self.folder,
                start_new_session=True,
            )
        self.url = eventually(self._address, what="the server serves")
        self.port = int(self.url.rpartition(":")[2])
        self.http.close()
        self.http = new_client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"})
        return self

    def text(self) -> str:
        """What the server and its hosts have written."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def stop(self, seconds: float = WAIT_SECONDS) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL of the server process only."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End everything that is left of this server; fails where a host outlived it."""
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        try:
            eventually(lambda: not marked_processes(self.mark), what="no process is left behind")
        finally:
            for process in marked_processes(self.mark):
                os.kill(process, signal.SIGKILL)

    def deploy(self, path: Path) -> httpx.Response:
        """Deploy what lies at `path`."""
        bundle = make_bundle(path)
        return self.http.post("/api/v1/apps", params={"module": bundle.module}, content=bundle.content)

    def deployed(self, path: Path) -> dict[str, Any]:
        """Deploy what lies at `path`, which must be accepted."""
        response = self.deploy(path)
        assert response.status_code == 201, response.text
        return dict(response.json())

    def post(self, function: str, arguments: Any = None, key: str | None = None, app: str = "zoo") -> httpx.Response:
        """Call a function."""
        headers = {"Idempotency-Key": key} if key else {}
        return self.http.post(f"/apps/{app}/{function}", json=arguments or {}, headers=headers)

    def call(self, function: str, app: str = "zoo", **arguments: Any) -> Any:
        """The result of a call that must succeed."""
        response = self.post(function, arguments, app=app)
        assert response.status_code == 200, response.text
        return response.json()

    def hosts(self, app: str = "zoo") -> list[dict[str, Any]]:
        """The hosts of an app."""
        return list(self.http.get(f"/api/v1/apps/{app}").json()["hosts"])

    def host(self, app: str = "zoo") -> int:
        """The process that serves an app."""
        return int(eventually(lambda: [h for h in self.hosts(app) if h["state"] == "serving"])[0]["pid"])

    def raw(self, data: bytes, seconds: float = WAIT_SECONDS) -> bytes:
        """Send bytes, and return what comes until the server closes or nothing comes any more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            return read_response(connection)

    def _address(self) -> str | None:
        text = self.text()
        assert self.process.poll() is None, text
        found = re.search(r"serving (http://\S+)", text)
        return found[1] if found else None


def read_response(connection: socket.socket) -> bytes:
    """One HTTP response (of any length that its header tells), or what came before the end."""
    data = b""
    while True:
        head, separator, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if separator and (length is None or len(body) >= int(length[1])):
            return data
        part = connection.recv(65536)
        if not part:
            return data
        data += part


def write_app(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write the files of an app; returns the folder."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """What tests share: the class of servers, waiting, writing apps."""
    return SimpleNamespace(
        KEY=KEY,
        APPS=APPS,
        Server=Server,
        eventually=eventually,
        write_app=write_app,
        read_response=read_response,
        marked_processes=marked_processes,
        working_processes=working_processes,
        expanders=expanders,
    )


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module with the app `zoo`, which takes calls without a key too."""
    server = Server(tmp_path_factory.mktemp("zoo"), "--anonymous-calls").start()
    try:
        server.deployed(APPS / "zoo")
        yield server
    finally:
        server.end()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers of this test's own, in one folder."""
    servers: list[Server] = []

    def start(*options: str, **more: Any) -> Server:
        servers.append(Server(tmp_path, *options, **more))
        return servers[-1].start()

    yield start
    for server in servers:
        server.end()
