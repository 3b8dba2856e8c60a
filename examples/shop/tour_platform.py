"""What the tour stands on: a platform as any user has it (a process, the command line, HTTP), and checks."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

START_SECONDS, STOP_SECONDS = 15.0, 10.0

console = Console(highlight=False, soft_wrap=True)


class WentWrong(Exception):
    """Something on the tour was not as it must be."""


def check(what: str, expected: object, found: object) -> None:
    """`WentWrong` unless both are equal."""
    if expected != found:
        raise WentWrong(f"{what}: expected {expected}, found {found}")


def wait_until(what: str, condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Ask again and again until `condition` holds; `WentWrong` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise WentWrong(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)


def say(text: str) -> None:
    """Print one indented line."""
    console.print(f"  {text}")


@dataclass
class Platform:
    """A running `apiary serve` with its key, and a client that calls the shop."""

    url: str
    key: str
    http: httpx.Client

    def command(self, *words: str) -> str:
        """Run the command line as somebody with the key would; returns what it printed."""
        environment = {**os.environ, "APIARY_URL": self.url, "APIARY_KEY": self.key, "COLUMNS": str(console.width)}
        done = subprocess.run(
            [sys.executable, "-m", "apiary", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )
        if done.returncode != 0:
            raise WentWrong(f"apiary {' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def post(self, function: str, arguments: dict[str, Any], key: str | None = None) -> httpx.Response:
        """One call over HTTP."""
        headers = {"Idempotency-Key": key} if key else {}
        return self.http.post(f"/apps/shop/{function}", json=arguments, headers=headers)

    def call(self, function: str, **arguments: Any) -> Any:
        """The result of a call that must succeed."""
        return result_of(self.post(function, arguments))

    def show(self, function: str, key: str | None = None, status: int = 200, **arguments: Any) -> Any:
        """Make one call and print it; its answer must have this status."""
        started = time.perf_counter()
        response = self.post(function, arguments, key)
        milliseconds = (time.perf_counter() - started) * 1000
        key_text = f" [magenta]Idempotency-Key: {key}[/]" if key else ""
        colour = "green" if response.status_code == 200 else "red"
        console.print(
            f"\n  [bold]POST /apps/shop/{function}[/] {escape(json.dumps(arguments))}{key_text}"
            f" → [{colour}]{response.status_code}[/] [dim]{milliseconds:.1f} ms[/]"
        )
        check(f"status of {function} ({response.text[:300]})", status, response.status_code)
        if "Apiary-Call-Id" not in response.headers:
            raise WentWrong(f"the answer of {function} has no Apiary-Call-Id")
        return response.json()

    def host(self) -> int:
        """The process that runs the functions of the shop."""
        hosts = result_of(self.http.get("/api/v1/apps/shop"))["hosts"]
        if not hosts:
            raise WentWrong("the shop has no host")
        return int(hosts[-1]["pid"])


def result_of(response: httpx.Response) -> Any:
    if response.status_code != 200:
        raise WentWrong(f"{response.request.url.path} answered {response.status_code}: {response.text[:500]}")
    return response.json()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serve(folder: Path) -> Iterator[Platform]:
    """`apiary serve` on a free port with its databases in `folder`; ended, whatever happens, with all it started."""
    port, key = free_port(), secrets.token_urlsafe(24)
    words = ["serve", "--port", str(port), "--database", f"sqlite:///{folder / 'data'}"]
    say(f"[dim]$[/] apiary {' '.join(words)}")
    log = folder / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "apiary", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "APIARY_ADMIN_KEY": key},
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=30, limits=httpx.Limits(max_connections=64)) as http:
            wait_until("the server answers", lambda: healthy(server, http))
            yield Platform(url, key, http)
        server.terminate()
        check("exit status of the server after SIGTERM", 0, server.wait(STOP_SECONDS))
    except BaseException:
        console.print("\n[dim]The end of what the server printed:[/]")
        console.print(log.read_text(errors="replace")[-3000:], markup=False)
        raise
    finally:
        with suppress(ProcessLookupError):  # the server leads its own process group: this reaches its hosts, too
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def healthy(server: subprocess.Popen[bytes], http: httpx.Client) -> bool:
    if server.poll() is not None:
        raise WentWrong(f"the server ended at once, with {server.returncode}")
    with suppress(httpx.TransportError):
        return http.get("/healthz").status_code == 200
    return False
