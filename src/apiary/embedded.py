"""`apiary.open`: an app and its database in the caller's own process, for scripts, tests and notebooks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from apiary.bundle import load_app, load_from, migrations_of
from apiary.codec import compile_program, convert_rows
from apiary.config import Capturing
from apiary.engine.dispatch import Dispatcher
from apiary.engine.places import Log, open_here, replaying
from apiary.engine.protocol import Engine
from apiary.given import check_callable, given_key, write_given
from apiary.handle import Ended, WorkflowHandle
from apiary.log.asking import AppLog
from apiary.log.questions import QUESTIONS
from apiary.runtime.call import Bound
from apiary.runtime.chance import install
from apiary.runtime.control import PREFIX
from apiary.runtime.declaration import App, Function, Kind
from apiary.runtime.errors import (
    DeadlineExceeded,
    Error,
    InternalError,
    RuleBroken,
    Unavailable,
    WrongArguments,
    from_problem,
)
from apiary.runtime.ids import id_text, new_id
from apiary.runtime.repeated import is_refused
from apiary.runtime.session import Call, Outcome
from apiary.runtime.transaction import Transaction, current_transaction
from apiary.runtime.workflow import Workflow, in_workflow

P = ParamSpec("P")
R = TypeVar("R")

LOCAL_VERSION = "local"
MAX_LOOKED_AT = 1000


class OpenApp:
    """An app that is open in this process. Close it, or use it in a `with` block."""

    def __init__(
        self,
        app: App,
        engine: Engine,
        log: Log | None = None,
        *,
        caller: str = "local",
        broken: Callable[[], None] = lambda: None,
        strict: bool = False,
    ) -> None:
        self.app = app
        self.engine = engine
        self._log = log
        self._caller = caller
        self.program = compile_program(app, LOCAL_VERSION)
        engine.rewrite()
        engine.migrate(migrations_of(app, engine.dialect), LOCAL_VERSION)
        self._closed = False
        self._dispatcher = Dispatcher(engine, self.program, broken=broken, strict=strict)
        self._dispatcher.run_queue()

    @overload
    def call(self, function: str, /, *args: Any, idempotency_key: str | None = None, **arguments: Any) -> Any: ...
    @overload
    def call(
        self,
        function: Function[Concatenate[Transaction, P], R] | Function[Concatenate[Workflow, P], R],
        /,
        *args: P.args,
        **arguments: P.kwargs,
    ) -> R: ...
    def call(self, function: Any, /, *args: Any, **arguments: Any) -> Any:
        """Call a function, as over HTTP: arguments by name or position, checked; returns what it declares.

        Raises `Rejected`, `WrongArguments` and the other errors of the platform; `InternalError` has the function's
        own exception as its cause.
        """
        call, bound = self._given(function, args, arguments)
        return bound.codec.decode_result(self._outcome(call).output)

    @overload
    def start(
        self, function: str, /, *args: Any, idempotency_key: str | None = None, **arguments: Any
    ) -> WorkflowHandle[Any]: ...
    @overload
    def start(
        self, function: Function[Concatenate[Workflow, P], R], /, *args: P.args, **arguments: P.kwargs
    ) -> WorkflowHandle[R]: ...
    @overload
    def start(
        self, function: Function[..., R], /, *args: Any, idempotency_key: str, **arguments: Any
    ) -> WorkflowHandle[R]: ...
    def start(self, function: Any, /, *args: Any, **arguments: Any) -> Any:
        """Begin a workflow, and return as soon as its beginning is durable: it runs to its end from there on.

        With an `idempotency_key` that has begun one already, the handle is that one's.
        """
        call, bound = self._given(function, args, arguments)
        if bound.function.kind is not Kind.WORKFLOW:
            raise WrongArguments(f"{bound.function!r} is no workflow", hint=f"use call({call.function!r}, …)")
        outcome = self._asked(call, 0.0)
        if is_refused(outcome):
            raise _raised(outcome)
        of = outcome.pause.of if outcome.pause is not None else outcome.replayed
        return self.workflow(id_text(of or call.id))

    def workflow(self, workflow: str) -> WorkflowHandle[Any]:
        """A workflow of this app, by its id."""
        return WorkflowHandle(_Here(self), workflow, self._decoded)

    def drain(self, timeout: float = 30.0) -> None:
        """Wait until every queued call has been run; `DeadlineExceeded` after `timeout` seconds."""
        if not self._dispatcher.backlog.wait_empty(timeout):
            raise DeadlineExceeded(f"calls are still waiting in the queue after {timeout:g} s")

    def catch_up(self, until: float, timeout: float = 30.0) -> float | None:
        """Do what is due by the wall clock, which was set, and wait for it; for `apiary.testing`.

        Returns when something is due next (seconds since 1970), if that is not after `until`.
        """
        if self._closed:
            return None
        self._look_at_the_clock()
        if not self._dispatcher.backlog.wait_empty(timeout, later=False):
            raise DeadlineExceeded(f"calls are still waiting in the queue after {timeout:g} s")
        wait = self._look_at_the_clock()
        now = time.time()
        queued = self.engine.queued(MAX_LOOKED_AT, int(until * 1e6), self.program.version)
        moments = [item.due / 1e6 for item in queued] + ([] if wait is None else [now + wait])
        return min((moment for moment in moments if now < moment <= until), default=None)

    def _look_at_the_clock(self) -> float | None:
        """Begin what is due by now; seconds until a schedule has its next time."""
        wait = self._dispatcher.schedules.look()
        self._dispatcher.flows.ring()
        self._dispatcher.backlog.look()
        return wait

    def close(self) -> None:
        """Finish what runs, and close the database."""
        self._closed = True
        self._dispatcher.close()
        self.engine.close()
        if self._log is not None:
            self._log.close()

    def _given(self, function: Any, args: Any, arguments: dict[str, Any]) -> tuple[Call, Bound]:
        """The call of a function with arguments as they were given here."""
        if current_transaction() is not None or in_workflow():
            raise RuleBroken(
                "an app was called inside a transaction or a workflow of it, which would wait for itself",
                hint="call the function itself, with the transaction as its first argument; or tx.enqueue, or wf.run",
            )
        check_callable(function)
        key = given_key(arguments.pop("idempotency_key", None))
        if isinstance(function, Function) and function.declared is not function:
            raise RuleBroken("with_options is for tx.enqueue", hint="have a transaction enqueue the call")
        bound = self.program.find(function if isinstance(function, str) else function.name)
        encoded = bound.codec.encode_arguments(args, arguments)
        return Call(new_id(), bound.function.name, encoded, self._caller, frozenset({"admin"}), key), bound

    def _asked(self, call: Call, wait: float | None = None) -> Outcome:
        """What a call comes to."""
        answer: Future[Outcome] = Future()
        self._dispatcher.submit(call, lambda _, outcome: answer.set_result(outcome), wait=wait)
        return answer.result()

    def _outcome(self, call: Call, wait: float | None = None) -> Outcome:
        """What a call comes to; raises its failure."""
        outcome = self._asked(call, wait)
        if outcome.error is not None:
            raise _raised(outcome)
        return outcome

    def _decoded(self, ended: Ended) -> Any:
        return self.program.find(ended.function).codec.decode_result(ended.output)

    @property
    def log(self) -> AppLog:
        """The log of the app, to be asked what its calls did."""
        return AppLog(self._ask)

    def _ask(self, question: str, arguments: dict[str, Any]) -> Any:
        if self._closed:
            raise Unavailable("the app was closed")
        if self._log is None:
            raise RuleBroken(f"the log of {self.app.name} cannot be read here")
        return QUESTIONS[question](self._log, **arguments)

    def __enter__(self) -> OpenApp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Here:
    """The workflows of an open app, as their handles reach them."""

    def __init__(self, opened: OpenApp) -> None:
        self._opened = opened
        self._visible = {name: bound.codec.visible for name, bound in opened.program.functions.items()}

    def show(self, workflow: str, steps: int) -> dict[str, Any]:
        opened = self._opened
        shown: dict[str, Any] = opened._ask(
            "workflow", {"workflow": workflow, "visible": self._visible, "limit": steps}
        )
        return {"app": opened.app.name, **shown}

    def export(self, workflow: str) -> dict[str, Any]:
        opened = self._opened
        return {
            "app": opened.app.name,
            **opened._ask("workflow_export", {"workflow": workflow, "visible": self._visible}),
        }

    def end(self, workflow: str, seconds: float) -> Ended | None:
        found = self._opened._ask("workflow_end", {"workflow": workflow})
        if found["error"] is not None:
            raise from_problem(found["error"])
        if found["output"] is not None:
            return Ended(found["function"], found["output"].encode())
        outcome = self._opened._outcome(self._call("result", workflow, {}), wait=seconds)
        return None if outcome.pause is not None else Ended(found["function"], outcome.output)

    def control(self, operation: str, workflow: str, arguments: dict[str, Any]) -> Any:
        return json.loads(self._opened._outcome(self._call(operation, workflow, arguments)).output)

    def _call(self, operation: str, workflow: str, arguments: dict[str, Any]) -> Call:
        given, _ = write_given(operation, {"workflow": workflow, **arguments})
        return Call(new_id(), PREFIX + operation, given, self._opened._caller, frozenset({"admin"}))


def open(
    app: App | str | Path,
    database: str | None = None,
    *,
    always_replay: bool = False,
    capture: Literal["off", "reads", "writes", "both", "strict"] = "both",
) -> OpenApp:
    """Open an app in this process.

    `app`: an `App`, the name of a module that makes one, or a path. `database`: `sqlite:///shop.db`, by default
    `.apiary/NAME.db` below the current folder; or `postgresql://…`, where the app gets a schema and a role. Functions
    run in this process, whatever the database. `always_replay`: each step of a workflow is a run of its own, as with
    APIARY_ALWAYS_REPLAY=1, so that a body that does not do the same when it is run again is found out at once.
    `capture`: what the log keeps, on SQLite, of what calls read and write; with `strict` all of it, and that of a query
    before it returns.
    """
    install()
    capturing = Capturing(capture)
    if not isinstance(app, App):
        path = Path(app)
        app = load_from(path) if path.exists() else load_app(str(app))
    engine, log = open_here(database, app.name, convert_rows, capturing)
    strict = capturing is Capturing.STRICT
    return OpenApp(app, replaying(engine) if always_replay else engine, log, strict=strict)


def _raised(outcome: Outcome) -> Error:
    """The exception for a failed call; where the function raised an error of the platform, that very one."""
    assert outcome.error is not None
    if isinstance(outcome.cause, Error) and not isinstance(outcome.cause, InternalError):
        error = outcome.cause
        error.call_id = outcome.error.get("call_id")
        return error
    error = from_problem(outcome.error)
    if outcome.cause is not None:
        error.__cause__ = outcome.cause
    return error
