"""Runs every code block of README.md and docs/, in order, so that what a reader copies works.

Each document runs in a temporary folder that has a copy of examples/, on a free port in place of 8000.

    ```python                   runs; the blocks of one document share a namespace
    ```python title="hello.py"  is written to that file; so is a block of any language whose first line is a comment
                                that holds a path and nothing else: `# hello.py`, `-- migrations/001-tables.sql`
    ```sh                       runs line by line; folder and exported variables last to the end of the document;
                                `command &` starts a server, ends the one before it, and waits until it answers
    ```console                  like sh, for lines that begin with `$ `; the others are what they print
    ```json, ```yaml, ```ini    have to be what they say
    ```text, ```sql, ```toml    are for reading

Any other word after the fence is an error. In what runs, the URL of a PostgreSQL (`postgresql://…`) stands for a new
database of the tests' own server.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import yaml
from bench import provision
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCUMENTS = [path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if path.exists()]
RUN = {"python", "sh", "console"}
LANGUAGES = {"python", "sh", "console", "json", "yaml", "ini", "text", "sql", "toml"}
PATH_COMMENT = re.compile(r"(?:#|--) ([\w./-]+\.\w+)\n")
DATABASE = re.compile(r"postgresql://[\w@.:/-]+")
PORT = re.compile(r"(localhost|127\.0\.0\.1):8000\b")

# Commands that are not run here: they fetch the project, or are themselves the way to these tests.
NOT_RUN = ("git clone ", "cd apiary", "make demo", "make test", "make bench")

COMMAND_SECONDS = 60
READY_SECONDS = 30
STOP_SECONDS = 10
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, its language, the file it belongs into if any, its text."""

    line: int
    language: str
    title: str | None
    text: str


def blocks(document: Path) -> Iterator[Block]:
    for token in MarkdownIt().parse(document.read_text(encoding="utf-8")):
        if token.type not in {"fence", "code_block"} or token.map is None:
            continue
        line = token.map[0] + 1
        language, *attributes = shlex.split(token.info) or [""]
        options = dict(attribute.partition("=")[::2] for attribute in attributes)
        title = options.pop("title", None)
        known = language in LANGUAGES and not options
        assert known, f"{document}:{line}: what is ```{token.info}?"
        if title is None and language not in {"sh", "console"} and (comment := PATH_COMMENT.match(token.content)):
            title = comment[1]
        yield Block(line, language, title, token.content)


def commands(block: Block) -> Iterator[str]:
    """The commands of a block; one that has an open quote or ends with a backslash goes on in the next line."""
    pending = ""
    for line in block.text.splitlines():
        if block.language == "console" and not pending:
            if not line.startswith("$ "):
                continue
            line = line.removeprefix("$ ")
        pending += line
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:
            pending += "\n"
            continue
        if words:
            yield pending.strip()
        pending = ""
    assert not pending, f"line {block.line}: unfinished command: {pending}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Reader:
    """Somebody who follows one document to the letter, in a folder of their own."""

    document: Path
    folder: Path
    database: str = ""
    port: int = field(default_factory=free_port)
    server: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.module = ModuleType("document")
        self.shell_state = self.folder.with_name("shell-state")
        self.shell_state.touch()
        self.server_log = self.folder.with_name("server.log")

    def follow(self, block: Block) -> None:
        text = PORT.sub(rf"\1:{self.port}", block.text)
        if block.language in RUN:
            text = DATABASE.sub(lambda _: self.database, text)
        if block.language == "json":
            json.loads(text)
        elif block.language == "yaml":
            yaml.safe_load(text)
        elif block.language == "ini":
            ConfigParser(interpolation=None).read_string(text)
        if block.title is not None:
            path = (self.folder / block.title).resolve()
            assert path.is_relative_to(self.folder.resolve()), f"{block.title} lies outside of the document's folder"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif block.language == "python":
            # Blank lines in front: a traceback then names the line in the document.
            exec(compile("\n" * block.line + text, self.document, "exec", dont_inherit=True), vars(self.module))
        elif block.language in {"sh", "console"}:
            for command in commands(Block(block.line, block.language, None, text)):
                self.run(command)

    def run(self, command: str) -> None:
        if command.startswith(NOT_RUN) or (command.startswith("curl ") and shutil.which("curl") is None):
            return
        state = shlex.quote(str(self.shell_state))
        if command.endswith(" &"):
            self.start(f". {state}; exec {command.removesuffix(' &')}")
            return
        script = f"set -eo pipefail; . {state}\n{command}\n" + f"{{ declare -px; printf 'cd %q' \"$PWD\"; }} > {state}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout.decode()}\nserver:\n{self.log()}"

    def start(self, script: str) -> None:
        """Start a server in a process group of its own and wait until it answers with something below 500."""
        self.stop()
        with self.server_log.open("ab") as log:
            self.server = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self.answers():
            assert self.server.poll() is None, f"the server ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"no answer on port {self.port}:\n{self.log()}"
            time.sleep(POLL_SECONDS)

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz", timeout=READY_SECONDS).status_code < 500
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End the server: politely first; whatever its process group still holds afterwards is killed."""
        if self.server is None:
            return
        self.server.terminate()
        try:
            self.server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.server.wait()
        self.server = None

    def log(self) -> str:
        return self.server_log.read_text(errors="replace") if self.server_log.exists() else "(none was started)"


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    folder = tmp_path / "reader"
    left_out = shutil.ignore_patterns("__pycache__", ".apiary")
    folder.mkdir()
    if (ROOT / "examples").exists():
        shutil.copytree(ROOT / "examples", folder / "examples", ignore=left_out)
    database = ""
    if any(DATABASE.search(block.text) for block in blocks(request.param) if block.language in RUN):
        database = request.getfixturevalue("postgres_database")
        monkeypatch.setenv("PATH", str(provision.postgres_bin()), prepend=os.pathsep)
    reader = Reader(request.param, folder, database)
    for name in [name for name in os.environ if name.startswith("APIARY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("APIARY_PORT", str(reader.port))
    monkeypatch.setenv("APIARY_URL", f"http://127.0.0.1:{reader.port}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, reader.module.__name__, reader.module)
    loaded = set(sys.modules)
    yield reader
    reader.stop()
    for name in set(sys.modules) - loaded:
        if (file := getattr(sys.modules[name], "__file__", None)) and Path(file).is_relative_to(folder):
            del sys.modules[name]


@pytest.mark.parametrize("reader", DOCUMENTS, indirect=True, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_works(reader: Reader) -> None:
    for block in blocks(reader.document):
        reader.follow(block)
