"""`apiary.open`: an app and its database in the caller's own process, for scripts, tests and notebooks."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from apiary.bundle import load_app, load_from, migrations_of
from apiary.codec import FunctionCodec, compile_program, convert_rows
from apiary.engine.dispatch import Dispatcher
from apiary.engine.places import Log, open_here, replaying
from apiary.engine.protocol import Engine
from apiary.given import given_key
from apiary.runtime.declaration import App, Function
from apiary.runtime.errors import DeadlineExceeded, Error, InternalError, RuleBroken, from_problem
from apiary.runtime.ids import new_id
from apiary.runtime.session import Call, Outcome
from apiary.runtime.transaction import Transaction, current_transaction

P = ParamSpec("P")
R = TypeVar("R")

LOCAL_VERSION = "local"


class OpenApp:
    """An app that is open in this process. Close it, or use it in a `with` block."""

    def __init__(self, app: App, engine: Engine, log: Log | None = None, *, caller: str = "local") -> None:
        self.app = app
        self.engine = engine
        self._log = log
        self._caller = caller
        self.program = compile_program(app, LOCAL_VERSION)
        engine.migrate(migrations_of(app, engine.dialect), LOCAL_VERSION)
        self._dispatcher = Dispatcher(engine, self.program)
        self._dispatcher.backlog.activate()

    @overload
    def call(self, function: str, /, *args: Any, idempotency_key: str | None = None, **arguments: Any) -> Any: ...
    @overload
    def call(
        self, function: Function[Concatenate[Transaction, P], R], /, *args: P.args, **arguments: P.kwargs
    ) -> R: ...
    def call(self, function: Any, /, *args: Any, **arguments: Any) -> Any:
        """Call a function, as over HTTP: arguments by name or position, checked; returns what it declares.

        Raises `Rejected`, `WrongArguments` and the other errors of the platform; `InternalError` has the function's
        own exception as its cause.
        """
        if current_transaction() is not None:
            raise RuleBroken(
                "call was used inside a transaction, which would wait for itself",
                hint="call the function itself, with the transaction as its first argument, or tx.enqueue",
            )
        idempotency_key = given_key(arguments.pop("idempotency_key", None))
        name = function if isinstance(function, str) else function.name
        bound = self.program.find(name)
        encoded = bound.codec.encode_arguments(args, arguments)
        answer: Future[Outcome] = Future()
        call = Call(new_id(), name, encoded, self._caller, frozenset({"admin"}), idempotency_key)
        self._dispatcher.submit(call, lambda _, outcome: answer.set_result(outcome))
        outcome = answer.result()
        if outcome.error is not None:
            raise _raised(outcome)
        assert isinstance(bound.codec, FunctionCodec)
        return bound.codec.decode_result(outcome.output)

    def drain(self, timeout: float = 30.0) -> None:
        """Wait until every queued call has been run; `DeadlineExceeded` after `timeout` seconds."""
        if not self._dispatcher.backlog.wait_empty(timeout):
            raise DeadlineExceeded(f"calls are still waiting in the queue after {timeout:g} s")

    def close(self) -> None:
        """Finish what runs, and close the database."""
        self._dispatcher.close()
        self.engine.close()
        if self._log is not None:
            self._log.close()

    @property
    def log(self) -> Log:
        """The log of the app, for `apiary.log.questions`."""
        if self._log is None:
            raise RuleBroken(f"the log of {self.app.name} cannot be read here")
        return self._log

    def __enter__(self) -> OpenApp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open(app: App | str | Path, database: str | None = None, *, always_replay: bool = False) -> OpenApp:
    """Open an app in this process.

    `app`: an `App`, the name of a module that makes one, or a path. `database`: `sqlite:///shop.db`, by default
    `.apiary/NAME.db` below the current folder; or `postgresql://…`, where the app gets a schema and a role. Functions
    run in this process, whatever the database. `always_replay`: each step of a workflow is a run of its own, as with
    APIARY_ALWAYS_REPLAY=1, so that a body that does not do the same when it is run again is found out at once.
    """
    if not isinstance(app, App):
        path = Path(app)
        app = load_from(path) if path.exists() else load_app(str(app))
    engine, log = open_here(database, app.name, convert_rows)
    return OpenApp(app, replaying(engine) if always_replay else engine, log)


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
