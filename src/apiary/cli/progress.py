"""What takes long or goes wrong, in words: on the output of a server, and of whoever waits for a deploy."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from apiary.cli.output import say
from apiary.client import Http
from apiary.events import Activated, Adopted, Event, HostDied, Migrating
from apiary.runtime.errors import Error

FIRST_LOOK_SECONDS = 1.0
LOOK_SECONDS = 60.0


def tell(event: Event) -> None:
    """Say what the administrator of a server should know."""
    if isinstance(event, Migrating):
        say(f"{event.app} {event.version} {_applies(event.migrations)}")
    elif isinstance(event, Activated) and event.migrations:
        say(f"{event.app} {event.version} serves; applied: {', '.join(event.migrations)}")
    elif isinstance(event, Adopted) and event.lost:
        say(f"{event.app} has taken over what was left by {', '.join(event.hosts)}")
    elif isinstance(event, HostDied):
        say(f"the host of {event.app} (process {event.pid}) died: {event.reason}; starting it again")


@contextmanager
def waits_told(url: str, key: str | None) -> Iterator[None]:
    """Say, as long as this lasts, what deploys wait for: soon for the first time, then less and less often."""
    over = threading.Event()

    def look() -> None:
        wait = FIRST_LOOK_SECONDS
        with closing(Http(url, key)) as http:
            while not over.wait(wait):
                wait = min(2 * wait, LOOK_SECONDS)
                for line in _awaited(http):
                    say(line)

    thread = threading.Thread(target=look, name="apiary-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _awaited(http: Http) -> list[str]:
    try:
        apps = http.json("GET", "/api/v1/apps")
    except Error:
        return []
    found = [(app["app"], app["migrating"]) for app in apps if app.get("migrating")]
    held = [app for app in apps if not app.get("migrating") and any(host.get("held") for host in _serving(app))]
    return [
        *(f"{name} {now['version']} {_applies(now['migrations'])} ({now['seconds']:.0f} s)" for name, now in found),
        *(
            f"{app['app']} {app['version']} ends the transactions that run; calls that write wait for that"
            for app in held
        ),
    ]


def _serving(app: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [host for host in app["hosts"] if host["state"] == "serving"]


def _applies(migrations: Sequence[str]) -> str:
    return f"applies {', '.join(migrations)}; calls that write wait until that is done"
