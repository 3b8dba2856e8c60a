"""What a user declares: an app and its functions.

A declared function is still a function. Called with a `Transaction` it runs inside the caller's transaction;
the platform calls it by name through `apiary.runtime.call`.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from apiary.runtime.errors import DeclarationError, RuleBroken
from apiary.runtime.options import DEFAULT_ACTION_TIMEOUT_SECONDS, DEFAULT_TIMEOUT_SECONDS, Options, options_of
from apiary.runtime.queueing import AT_ONCE, Queue, Terms, queue_of, terms_of
from apiary.runtime.transaction import Transaction, current_transaction
from apiary.runtime.workflow import in_workflow

P = ParamSpec("P")
R = TypeVar("R")

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
IDEMPOTENCY_KEY = "idempotency_key"
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
PAGES = {"docs", "web"}
FIRST = {"workflow": "wf: Workflow", "query": "tx: Transaction", "transaction": "tx: Transaction"}


class Kind(StrEnum):
    """What a function may do, and so where and how it runs."""

    QUERY = "query"
    TRANSACTION = "transaction"
    ACTION = "action"
    WORKFLOW = "workflow"


class Function(Generic[P, R]):
    """A declared function: what it is called, what it may do, and its body."""

    def __init__(self, app: App, kind: Kind, body: Callable[P, R], options: Options) -> None:
        self.app = app
        self.kind = kind
        self.body = body
        self.options = options
        self.terms: Terms = AT_ONCE
        self.declared: Function[P, R] = self
        self.name = body.__name__
        self.description = inspect.getdoc(body) or ""
        self.parameters = _parameters(self)
        self.wants_idempotency_key = kind is Kind.ACTION and IDEMPOTENCY_KEY in inspect.signature(body).parameters
        self.__doc__ = body.__doc__
        self.__name__ = body.__name__
        self.__qualname__ = body.__qualname__
        self.__module__ = body.__module__
        self.__wrapped__ = body

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.terms != AT_ONCE:
            raise RuleBroken(f"{self.name} was called with options for tx.enqueue", hint=f"call {self.name}(…)")
        if in_workflow() and current_transaction() is None:
            raise RuleBroken(
                f"{self.name} was called in a workflow, where it would not be recorded",
                hint=f"write wf.run({self.name}, …)",
            )
        if self.kind is Kind.WORKFLOW:
            raise RuleBroken(
                f"the workflow {self.name} is not called like a function",
                hint=f"in a transaction write tx.enqueue({self.name}, …), in a workflow wf.run({self.name}, …)",
            )
        if self.kind is Kind.ACTION:
            if current_transaction() is not None:
                raise RuleBroken(
                    f"the action {self.name} was called inside a transaction, which may roll back",
                    hint=f"write tx.enqueue({self.name}, …): it runs once the transaction has committed",
                )
            return self.body(*args, **kwargs)
        if not args or not isinstance(args[0], Transaction):
            raise TypeError(
                f"{self.name} wants a Transaction as its first argument; "
                f"outside a function, open the app: apiary.open({self.app.name!r}).call({self.name!r}, …)"
            )
        result: R = args[0]._nested(self, args[1:], kwargs)
        return result

    def with_options(
        self,
        *,
        delay: float | None = None,
        at: datetime | None = None,
        priority: int = 0,
        unique: str | None = None,
        debounce: float | None = None,
    ) -> Function[P, R]:
        """The same function, to be enqueued on other terms: `tx.enqueue(send.with_options(delay=60), user)`.

        The call begins after `delay` seconds, or not before `at` (with a time zone); before calls of a lower `priority`
        that wait in its queue (-1000 to 1000). `unique`: while a call of the function waits under this name, enqueueing
        another one returns the id of that. `debounce`: besides, that one gets the arguments of the latest, and begins
        when none has come for so many seconds.
        """
        found = copy.copy(self)
        found.terms = terms_of(delay, at, priority, unique, debounce)
        return found

    def __repr__(self) -> str:
        return f"<{self.kind.value} {self.app.name}.{self.name}>"


class App:
    """A set of functions that are deployed together and own one database.

    `name` is lower case: letters, digits, underscores. `migrations` is a folder of numbered `.sql` files, by
    default `migrations/` beside the module that declares the app; one that is named must be there.
    `keep_workflows_days`: so long a server keeps the steps of workflows that ended (default: as it was told).
    """

    def __init__(
        self,
        name: str,
        *,
        description: str = "",
        migrations: str | Path | None = None,
        keep_workflows_days: float | None = None,
    ) -> None:
        if not isinstance(name, str) or not NAME.match(name):
            raise DeclarationError(
                f"{name!r} cannot be the name of an app",
                hint="use lower-case letters, digits and underscores, a letter first, 63 at most",
            )
        if not isinstance(description, str):
            raise DeclarationError(f"the description of an app is text, not {description!r}")
        days = keep_workflows_days
        if days is not None and (isinstance(days, bool) or not isinstance(days, int | float) or not days >= 0):
            raise DeclarationError(f"keep_workflows_days is a number of days, not {days!r}")
        self.name = name
        self.description = description
        self.keep_workflows_days = days
        self.functions: dict[str, Function[..., Any]] = {}
        self.queues: dict[str, Queue] = {}
        frame = inspect.currentframe()
        caller = frame.f_back if frame else None
        self.file = Path(caller.f_code.co_filename) if caller else None
        self.module = str(caller.f_globals.get("__name__", "")) if caller else ""
        self.folder = self.file.parent if self.file else Path()
        self.migrations = self.folder / (migrations if migrations is not None else "migrations")
        self.names_migrations = migrations is not None

    def queue(
        self,
        name: str,
        *,
        concurrency: int | None = 10,
        rate: tuple[int, float] | None = None,
        fair_by: str | None = None,
    ) -> Queue:
        """Declare a queue, for functions that name it: `@app.action(queue="mail")`.

        At most `concurrency` of its calls run at the same time, on all servers together (`None`: no limit); a workflow
        runs from its beginning to its end. `rate`: at most so many begin within any so many seconds. `fair_by`: the
        name of an argument; calls with different values of it take turns, however many of one there are.
        """
        if name in self.queues:
            raise DeclarationError(f"the app {self.name} declares the queue {name} twice")
        queue = self.queues[name] = queue_of(name, concurrency, rate, fair_by)
        return queue

    @overload
    def query(self, body: Callable[P, R], /) -> Function[P, R]: ...
    @overload
    def query(
        self,
        /,
        *,
        roles: Sequence[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        key: str | None = None,
        placement: str | None = None,
    ) -> Callable[[Callable[P, R]], Function[P, R]]: ...
    def query(self, body: Any = None, /, **options: Any) -> Any:
        """Declare a read-only transaction.

        `roles`: who may call it (default: everyone who may call the app). `timeout`: seconds. `key`: the
        argument that names the partition. `placement`: `"database"` or `"host"`.
        """
        return self._declare(Kind.QUERY, body, options)

    @overload
    def transaction(self, body: Callable[P, R], /) -> Function[P, R]: ...
    @overload
    def transaction(
        self,
        /,
        *,
        roles: Sequence[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        key: str | None = None,
        placement: str | None = None,
        queue: str | Queue | None = None,
    ) -> Callable[[Callable[P, R]], Function[P, R]]: ...
    def transaction(self, body: Any = None, /, **options: Any) -> Any:
        """Declare a function of which each call is one serializable ACID transaction.

        Options as for `query`; and the `queue` in which its queued calls wait.
        """
        return self._declare(Kind.TRANSACTION, body, options)

    @overload
    def action(self, body: Callable[P, R], /) -> Function[P, R]: ...
    @overload
    def action(
        self,
        /,
        *,
        roles: Sequence[str] | None = None,
        timeout: float = DEFAULT_ACTION_TIMEOUT_SECONDS,
        retries: int = 0,
        backoff: float = 0.5,
        attempt_timeout: float | None = None,
        retry_on: type[BaseException] | Sequence[type[BaseException]] | None = None,
        queue: str | Queue | None = None,
    ) -> Callable[[Callable[P, R]], Function[P, R]]: ...
    def action(self, body: Any = None, /, **options: Any) -> Any:
        """Declare a function that touches the outside world: no transaction, recorded after it ran, retried.

        `retries`: attempts after the first when it raises one of the classes `retry_on` (default: anything), never
        after `Rejected`. `backoff`: seconds before the second attempt, doubled (with jitter) before each further one.
        `timeout`: seconds for all attempts; `attempt_timeout`: for each, after which another one follows.
        A parameter named `idempotency_key` receives the same key at every attempt. It may be `async def`. `queue`: in
        which its queued calls wait.
        """
        options.setdefault("timeout", DEFAULT_ACTION_TIMEOUT_SECONDS)
        return self._declare(Kind.ACTION, body, options)

    @overload
    def workflow(self, body: Callable[P, R], /) -> Function[P, R]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        roles: Sequence[str] | None = None,
        timeout: float | None = None,
        schedule: str | None = None,
        zone: str = "UTC",
        missed: Literal["once", "all", "skip"] = "once",
        queue: str | Queue | None = None,
    ) -> Callable[[Callable[P, R]], Function[P, R]]: ...
    def workflow(self, body: Any = None, /, **options: Any) -> Any:
        """Declare a function that runs to completion, in which each function it runs takes effect exactly once.

        `roles`: who may start it. `timeout`: seconds that it may take in all, waiting included (default: no limit);
        it is ended and undone then. `schedule`: begin it by the clock, too, at the times of a cron expression in a time
        `zone`; its first parameter, if it has any, gets the time. Of times that were `missed` while no server ran, it
        begins for the last (`once`), for each (`all`), or for none (`skip`). `queue`: in which
        it waits for its beginning, whoever starts it.
        """
        lifetime = options.pop("timeout", None)
        if lifetime is not None and (isinstance(lifetime, bool) or not isinstance(lifetime, int | float)):
            raise DeclarationError(f"timeout is a positive number of seconds, not {lifetime!r}")
        if lifetime is not None:
            options["lifetime"] = lifetime
        return self._declare(Kind.WORKFLOW, body, options)

    def _declare(self, kind: Kind, body: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
        checked = options_of(kind, options)

        def declare(body: Callable[..., Any]) -> Function[..., Any]:
            if not inspect.isroutine(body) or not hasattr(body, "__name__"):
                raise DeclarationError(f"a {kind.value} is made from a function, not from {body!r}")
            function = Function(self, kind, body, checked)
            if function.name in self.functions:
                raise DeclarationError(f"the app {self.name} declares {function.name} twice")
            self.functions[function.name] = function
            return function

        return declare if body is None else declare(body)

    def __repr__(self) -> str:
        return f"<App {self.name}: {', '.join(self.functions) or 'no functions'}>"


def _check_body(function: Function[..., Any]) -> None:
    name, body, kind = function.name, function.body, function.kind
    if inspect.iscoroutinefunction(body) and kind is not Kind.ACTION:
        raise DeclarationError(f"{name} is async: a {kind.value} is a plain `def` (an action may be async)")
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise DeclarationError(f"{name} is a generator: a {kind.value} returns one value")


def _parameters(function: Function[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that a caller gives, checked: without the transaction and the idempotency key."""
    name, body, kind = function.name, function.body, function.kind
    if not re.match(r"[a-zA-Z][a-zA-Z0-9_]{0,62}\Z", name):
        raise DeclarationError(
            f"{name!r} cannot be the name of a function: a letter first, then letters, digits, _; 63 characters at most"
        )
    if name in PAGES:
        raise DeclarationError(f"{name!r} cannot be the name of a function: it is the address of the app's {name}")
    _check_body(function)
    parameters = dict(inspect.signature(body).parameters)
    if kind is Kind.ACTION:
        parameters.pop(IDEMPOTENCY_KEY, None)
    elif not parameters or next(iter(parameters.values())).kind not in POSITIONAL:
        given = "workflow" if kind is Kind.WORKFLOW else "transaction"
        raise DeclarationError(f"{name} has no parameter for its {given}: write `def {name}({FIRST[kind]}, …)`")
    else:
        del parameters[next(iter(parameters))]
    if IDEMPOTENCY_KEY in parameters:
        raise DeclarationError(
            f"{name} has a parameter {IDEMPOTENCY_KEY}, which is how callers give the key of a call",
            hint="give it another name; only an action is told its key",
        )
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DeclarationError(f"{name} takes {parameter}: arguments travel by name, so each needs one")
    key = function.options.key
    if key is not None and (not isinstance(key, str) or key not in parameters):
        raise DeclarationError(f"{name} has key={key!r}, which is not one of its parameters")
    return parameters
