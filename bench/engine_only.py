"""A workload on our PostgreSQL engine without HTTP: what `server_floor.py` starts to tell the gateway's share.

The one file of the bench that reaches behind the face. `apiary.open` runs functions in the caller's process whatever
the database; only a server places them inside it, and there is no server without its gateway. So this puts together
what a host does: the engine with the program that backends load, and a dispatcher, with calls always in flight.
Speaks lines: prints {} when the data set is there, then reads seconds and prints what it counted, until its input ends.
"""

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from apiary.bundle import load_from, read_migrations
from apiary.codec import compile_program, convert_rows
from apiary.engine.dispatch import Dispatcher
from apiary.engine.places import Source
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call, Outcome
from bench.mix import UNIFORM, Workload
from bench.stream import calls
from bench.workloads import WORKLOADS

APPS = Path(__file__).parent / "apps"
VERSION = "local"


class InFlight:
    """Keeps so many calls under way: each answer sends the next call."""

    def __init__(self, dispatcher: Dispatcher, drawn: Iterator[tuple[str, dict[str, Any]]]) -> None:
        self._dispatcher = dispatcher
        self._drawn = drawn
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._running = 0
        self._until = 0.0
        self._waited = 0.0
        self.answered = 0
        self.error: dict[str, Any] | None = None

    def run(self, in_flight: int, seconds: float) -> dict[str, float]:
        """Calls, seconds and the mean latency in ms; raises where one of them failed."""
        self.answered, self._waited = 0, 0.0
        before, used = time.monotonic(), time.process_time()
        self._until, self._running = before + seconds, in_flight
        for _ in range(in_flight):
            self._send()
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0)
        if self.error is not None:
            raise RuntimeError(f"a call failed: {self.error}")
        return {
            "calls": self.answered,
            "seconds": time.monotonic() - before,
            "mean_ms": self._waited * 1000 / max(1, self.answered),
            "engine_seconds": time.process_time() - used,
        }

    def _send(self) -> None:
        with self._lock:
            function, arguments = next(self._drawn)
        sent = time.monotonic()
        call = Call(new_id(), function, json.dumps(arguments).encode(), "anonymous", frozenset(), None)
        self._dispatcher.submit(call, lambda _, outcome: self._answer(outcome, sent))

    def _answer(self, outcome: Outcome, sent: float) -> None:
        now = time.monotonic()
        with self._lock:
            self.answered += 1
            self._waited += now - sent
            self.error = self.error or outcome.error
            again = now < self._until and self.error is None
            if not again:
                self._running -= 1
                self._idle.notify_all()
        if again:
            self._send()


def open_dispatcher(workload: Workload, url: str, place: Path) -> tuple[PostgresEngine, Dispatcher]:
    """The app with its functions inside the database."""
    shutil.copytree(APPS / workload.app, place / workload.app, ignore=shutil.ignore_patterns("__pycache__"))
    app = load_from(place / workload.app)
    installer = Installer(url)
    target = installer.app(app.name)
    source = Source(workload.app, VERSION, (place,))
    target = replace(target, program=installer.program(app.name, target.log, source))
    installer.close()
    engine = PostgresEngine(target, convert_rows)
    engine.migrate(read_migrations(app.migrations, engine.dialect), VERSION)
    return engine, Dispatcher(engine, compile_program(app, VERSION))


def loading(workload: Workload) -> list[tuple[str, dict[str, Any]]]:
    return [
        (load.function, {"first": first, "last": min(first + load.batch - 1, load.rows)})
        for load in workload.load
        for first in range(1, load.rows + 1, load.batch)
    ]


def main(name: str, url: str, in_flight: str) -> None:
    workload = WORKLOADS[name]
    with tempfile.TemporaryDirectory() as place:
        engine, dispatcher = open_dispatcher(workload, url, Path(place))
        for function, arguments in loading(workload):
            InFlight(dispatcher, iter([(function, arguments)])).run(1, 0.0)
        say({})
        seeds = count(1)
        for line in sys.stdin:
            drawn = ((one.operation.function, dict(one.arguments)) for one in calls(workload, UNIFORM, next(seeds)))
            say(InFlight(dispatcher, drawn).run(int(in_flight), float(line)))
        dispatcher.close()
        engine.close()


def say(what: dict[str, float]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
