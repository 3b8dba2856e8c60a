"""The host: the process that loads one version of one app and runs its calls. User code runs here and nowhere else.

It talks to the server over an inherited socket, and ends when that closes. `python -m apiary.platform.host FD FD`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any
from uuid import UUID

from apiary.bundle import Migration, load_app, migrations_of
from apiary.codec import compile_program, convert_rows
from apiary.config import Capturing
from apiary.engine.deaths import Death
from apiary.engine.dispatch import Dispatcher
from apiary.engine.places import open_engine
from apiary.engine.protocol import Engine
from apiary.engine.watchdog import RECORDER_BYTES, Watchdog
from apiary.platform.locks import migrating
from apiary.platform.manifest import manifest_of
from apiary.platform.memory import Memory
from apiary.platform.messages import (
    EXPELLED_STATUS,
    Answer,
    Ask,
    Dropped,
    Frames,
    FromHost,
    Idle,
    Invoke,
    Left,
    Loaded,
    Ran,
    Refused,
    Returned,
    Spent,
    Start,
    Stop,
    Wanted,
    frame,
    to_host,
)
from apiary.runtime.call import Program
from apiary.runtime.chance import install
from apiary.runtime.declaration import App, Kind
from apiary.runtime.errors import (
    BundleRefused,
    Error,
    InternalError,
    RuleBroken,
)
from apiary.runtime.ids import id_bytes, id_text
from apiary.runtime.repeated import is_refused
from apiary.runtime.session import Call, Outcome

log = logging.getLogger("apiary")

RESERVED = {"apiary", "platform"}
RECEIVE_BYTES = 1 << 18
FORKS = {"os.fork", "os.forkpty"}
PR_SET_PDEATHSIG = 1
GC_ALLOCATIONS = 20_000
IDLE_SECONDS = 5.0
STACK_BYTES = 1 << 20
"""Of each thread. Stacks count as memory of the host, and the usual 8 MiB each would leave none for functions."""


class Host:
    """One loaded app, its engine, and the socket to the server."""

    def __init__(self, connection: socket.socket, recorder: mmap) -> None:
        self._socket = connection
        self._recorder = recorder
        self._lock = threading.Lock()
        self._out: deque[bytes] = deque()
        self._memory: Memory
        self._start: Start
        self._app: App
        self._program: Program
        self._migrations: list[Migration]
        self._engine: Engine
        self._dispatcher: Dispatcher

    def load(self, message: Start) -> None:
        """Load the app, and say what it is."""
        self._start = message
        self._memory = Memory(message.memory_bytes, lambda: self._send(Spent()))
        install()
        sys.path[:0] = [message.code, *([message.packages] if message.packages else [])]
        app = load_app(message.module)
        if app.name in RESERVED:
            raise BundleRefused(f"{app.name!r} is the platform's own name", hint="give the app another one")
        program = compile_program(app, message.version)
        manifest = manifest_of(app, program)
        _forbid_forks()
        self._program = program
        self._app = app
        self._send(Loaded(app.name, json.dumps(manifest).encode()))

    def _open(self, place: dict[str, Any]) -> list[str]:
        """Open the engine at the app's place; returns the migrations that it lacks."""
        host = self._start.host
        self._engine = open_engine(
            place,
            convert_rows,
            recording=self._start.recording,
            capturing=self._start.capture,
            host=UUID(host) if host else None,
            expelled=_expelled,
        )
        self._migrations = migrations_of(self._app, self._engine.dialect, Path(self._start.code))
        pending = self._engine.pending(self._migrations)
        self._dispatcher = Dispatcher(
            self._engine,
            self._program,
            flush=self.flush,
            observe=self._ran,
            broken=_die,
            wanted=lambda versions: self._send(Wanted(tuple(versions))),
            left=lambda: self._send(Left()),
            watchdog=Watchdog(self._recorder),
            strict=self._start.capture is Capturing.STRICT,
            dropped=lambda records, effects: self._send(Dropped(records, effects)),
        )
        _settle_memory()
        self._memory.settle()
        return pending

    def refuse(self, error: BaseException) -> None:
        """Say why the app cannot be loaded."""
        known = error if isinstance(error, Error) else BundleRefused(f"the app makes its host fail: {name_of(error)}")
        self._send(Refused(json.dumps(known.problem(), default=str).encode()))

    def serve(self, frames: Frames, waiting: list[bytes]) -> None:
        """Handle messages until the server says stop or goes away."""
        while True:
            for body in waiting:
                message = to_host.decode(body)
                if isinstance(message, Invoke):
                    self._invoke(message)
                elif isinstance(message, Ask):
                    threading.Thread(target=self._answer, args=(message,), name="apiary-ask", daemon=True).start()
                elif isinstance(message, Stop):
                    self._dispatcher.close()
                    self._engine.close()
                    return
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                os._exit(0)
            waiting = frames.feed(data)

    def flush(self) -> None:
        """Send the answers that were collected since the last time."""
        with self._lock:
            frames = [self._out.popleft() for _ in range(len(self._out))]
            if frames:
                self._socket.sendall(b"".join(frames))

    def _send(self, message: FromHost) -> None:
        self._out.append(frame(message))
        self.flush()

    def _invoke(self, message: Invoke) -> None:
        call = Call(
            id=message.id,
            function=message.function,
            input=message.input,
            caller=message.caller,
            roles=frozenset(message.roles),
            key=message.key,
            lax=message.lax,
            attempt=message.attempt,
        )
        bound = self._program.functions.get(call.function)
        starts = message.wait == 0 and bound is not None and bound.function.kind is Kind.WORKFLOW
        self._dispatcher.submit(call, self._begun if starts else self._reply, wait=message.wait)

    def _reply(self, call: Call, outcome: Outcome) -> None:
        if outcome.pause is not None and outcome.error is None:
            self._out.append(frame(Answer(call.id, b"null", replayed=outcome.pause.of, begun=True)))
            return
        self._look_at(outcome)
        error = _as_json(outcome.error)
        self._out.append(frame(Answer(call.id, outcome.output, error, outcome.replayed, outcome.duration)))

    def _begun(self, call: Call, outcome: Outcome) -> None:
        """The answer for who does not wait: which workflow it is. How it has ended, if it has, is in the log."""
        if outcome.pause is not None or is_refused(outcome):
            self._reply(call, outcome)
            return
        self._out.append(frame(Answer(call.id, b"null", replayed=outcome.replayed, begun=True)))
        if outcome.replayed is None:
            self._ran(call, outcome)

    def _give_back(self, call: Call) -> None:
        self._out.append(frame(Returned(call.id)))

    def _look_at(self, outcome: Outcome) -> None:
        if isinstance(outcome.cause, MemoryError):
            self._memory.ran_out()

    def _ran(self, call: Call, outcome: Outcome) -> None:
        self._look_at(outcome)
        blocked = outcome.pause is not None
        self._send(Ran(call.id, call.function, _as_json(outcome.error), outcome.duration, blocked))

    def _answer(self, message: Ask) -> None:
        try:
            result = self._ask(message.question, message.arguments)
            answer = Answer(message.id, json.dumps(result, default=str).encode())
        except Error as error:
            answer = Answer(message.id, b"", json.dumps(error.problem(), default=str).encode())
        except Exception as error:  # noqa: BLE001 - the server must get an answer, whatever went wrong here
            failed = InternalError(f"the host could not answer {message.question}: {error!r}")
            answer = Answer(message.id, b"", json.dumps(failed.problem()).encode())
        self._send(answer)

    def _ask(self, question: str, arguments: dict[str, Any]) -> Any:
        if question == "open":
            return self._open(**arguments)
        dispatcher = self._dispatcher
        own: dict[str, Callable[..., Any]] = {
            "rewrite": self._engine.rewrite,
            "migrate": self._migrate,
            "hold": lambda: dispatcher.hold(self._give_back),
            "resume": dispatcher.resume,
            "retire": dispatcher.retire,
            "excuse": dispatcher.excuse,
            "run_queue": self._run_queue,
            "adopt": self._adopt,
            "look": dispatcher.backlog.reload,
            "running": dispatcher.backlog.running,
            "leave_queue": self._leave_queue,
            "release": lambda: dispatcher.flows.release(self._give_back_begun),
        }
        return own[question](**arguments)

    def _run_queue(self, except_for: list[str], deaths: dict[str, tuple[str, bool]], others: list[str] | None) -> None:
        lost = [Death(id_bytes(text), *how) for text, how in deaths.items()]
        if others is None:
            threading.Thread(target=self._watch_idle, name="apiary-idle", daemon=True).start()
        self._dispatcher.run_queue(list(map(id_bytes, except_for)), lost, others)

    def _leave_queue(self) -> list[str]:
        """Run no more of the queue. Who waits for the end of a workflow waits for it elsewhere from now on."""
        busy = self._dispatcher.leave_queue()
        self._dispatcher.flows.release(self._give_back_begun)
        return [id_text(identifier) for identifier in busy]

    def _give_back_begun(self, call: Call) -> None:
        self._out.append(frame(Returned(call.id, begun=True)))
        self.flush()

    def _watch_idle(self) -> None:
        """Say when there was nothing to do for some time."""
        idle = 0.0
        while idle < IDLE_SECONDS:
            time.sleep(IDLE_SECONDS / 10)
            idle = idle + IDLE_SECONDS / 10 if self._dispatcher.flows.outstanding() == 0 else 0.0
        self._send(Idle())

    def _adopt(self, dead: list[str]) -> bool:
        """Whether this host runs the queue, and has taken over what hosts have left that are gone."""
        return self._dispatcher.backlog.adopt()

    def _migrate(self) -> list[str]:
        with migrating(Path(self._start.folder), self._app.name):
            return self._engine.migrate(self._migrations, self._start.version)


def main() -> None:
    """Serve on the inherited socket until told to stop."""
    _end_with_parent()
    threading.stack_size(STACK_BYTES)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    recorder = mmap(int(sys.argv[2]), RECORDER_BYTES)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    host = Host(connection, recorder)
    frames = Frames()
    waiting: list[bytes] = []
    while not waiting:
        data = connection.recv(RECEIVE_BYTES)
        if not data:
            return
        waiting = frames.feed(data)
    start = to_host.decode(waiting.pop(0))
    try:
        if not isinstance(start, Start):
            raise InternalError("the first message must be Start")
        host.load(start)
    except BaseException as error:  # noqa: BLE001 - a user's module may raise anything, SystemExit included
        host.refuse(error)
        os._exit(1)
    host.serve(frames, waiting)
    os._exit(0)


def name_of(error: BaseException) -> str:
    """An error in a few words, whatever it does when it is printed."""
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - a class of the user
        return type(error).__name__


def _as_json(problem: dict[str, Any] | None) -> bytes | None:
    return None if problem is None else json.dumps(problem, default=str).encode()


def _forbid_forks() -> None:
    """Refuse to fork from now on: the child would have the handles of the database, and go on with the call.

    Programs are started all the same (`subprocess`). A library in C that forks by itself is not noticed.
    """

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORKS:
            raise RuleBroken("a function cannot fork its process", hint="use subprocess, or multiprocessing's `spawn`")

    sys.addaudithook(refuse)


def _die() -> None:
    """End the process, after a fault from which only a new one recovers."""
    traceback.print_exc()
    os._exit(70)


def _expelled() -> None:
    """End the process, because it was declared lost: what it still did would be done twice."""
    os._exit(EXPELLED_STATUS)


def _settle_memory() -> None:
    """What is loaded now stays, so that the collector of cycles need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)


def _end_with_parent() -> None:
    """Have the kernel end this process with the server, even while a function holds the interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
