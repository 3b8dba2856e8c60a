"""`Transaction`: what a function's first argument can do. It asks its `Session` and keeps the call's notes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, overload

from apiary.runtime.errors import Forbidden, NotFound, RuleBroken, UnknownFunction, WrongArguments
from apiary.runtime.ids import id_text, new_id
from apiary.runtime.messages import checked_name, checked_value, receiver
from apiary.runtime.plain import plain
from apiary.runtime.queueing import queued_call
from apiary.runtime.result import Result
from apiary.runtime.session import Call, Session

if TYPE_CHECKING:
    from types import TracebackType

    from apiary.runtime.call import Program
    from apiary.runtime.declaration import Function
    from apiary.runtime.workflow import Workflow

P = ParamSpec("P")

SEED_BYTES = 16

_current: ContextVar[Transaction | None] = ContextVar("apiary_transaction", default=None)


def current_transaction() -> Transaction | None:
    """The transaction in which this code runs, if any."""
    return _current.get()


def now_microseconds() -> int:
    """The time of the wall clock, microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


def check_roles(function: Function[..., Any], roles: frozenset[str]) -> None:
    """`Forbidden` unless a caller with `roles` may call the function; the role `admin` may call everything."""
    wanted = function.options.roles
    if wanted is not None and "admin" not in roles and not wanted & roles:
        raise Forbidden(f"{function.name} is for {' or '.join(sorted(wanted)) or 'nobody'}", roles=sorted(wanted))


@dataclass(slots=True)
class Notes:
    """What a call says of itself: its log lines, the calls it made inside its own transaction.

    `started` is by the wall clock, which may be set at any moment; how long something takes is told by another one.
    `entered`: its arguments fit, and the function was called; `over`: it has come back. `broken`: why a part of it
    could not be begun or ended as it should, after which nothing of it may be kept.
    """

    started: int = field(default_factory=now_microseconds)
    _began: int = field(default_factory=time.monotonic_ns)
    entered: bool = False
    over: bool = False
    broken: BaseException | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    nested: list[dict[str, Any]] = field(default_factory=list)
    generator: Random | None = None

    def elapsed(self) -> int:
        """Microseconds since the call started."""
        return (time.monotonic_ns() - self._began) // 1000


class Transaction:
    """One serializable transaction: it commits when the function returns and rolls back when it raises."""

    __slots__ = ("_call", "_notes", "_program", "_read_only", "_session")

    def __init__(
        self,
        session: Session,
        call: Call,
        notes: Notes,
        read_only: bool,
        program: Program,
    ) -> None:
        self._session = session
        self._call = call
        self._notes = notes
        self._read_only = read_only
        self._program = program

    @property
    def id(self) -> str:
        """The id of the call (a UUID), the same in the log and in the caller's `Apiary-Call-Id`."""
        return id_text(self._call.id)

    @property
    def caller(self) -> str:
        """Who called: the name of a key, or `anonymous`."""
        return self._call.caller

    @property
    def now(self) -> datetime:
        """When the call started (UTC). It stays the same during the call, and the log records it."""
        return datetime.fromtimestamp(self._notes.started / 1_000_000, UTC)

    def execute(self, sql: str, /, **parameters: Any) -> Result:
        """Run one SQL statement; `:name` in it stands for the parameter of that name."""
        self._check_open()
        return self._session.execute(sql, parameters, self._read_only)

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]], /) -> int:
        """Run one SQL statement once for each of `rows`; returns how many rows it changed in all."""
        self._check_writes("write")
        return self._session.execute_many(sql, rows)

    @overload
    def enqueue(
        self,
        function: Function[Concatenate[Transaction, P], Any] | Function[Concatenate[Workflow, P], Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str: ...
    @overload
    def enqueue(self, function: Function[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> str: ...
    def enqueue(self, function: Any, /, *args: Any, **kwargs: Any) -> str:
        """Call `function` after this transaction has committed, and only then. Returns the id of that call.

        A workflow ends on the version of the app that runs now, or that runs when its turn in a queue comes, and has
        the roles of the caller. `function.with_options(…)` says when, how urgent it is, whether it is to be there once.
        """
        self._check_writes("enqueue calls")
        check_roles(function, self._call.roles)
        try:
            encoded = self._program.encode(function, args, kwargs)
        except (WrongArguments, UnknownFunction) as error:
            raise RuleBroken(f"{function!r} cannot be enqueued: {error.message}", hint=error.hint) from None
        call = self._call
        queued = queued_call(
            self._program,
            function,
            encoded,
            function.terms,
            id=new_id(),
            caller=call.caller,
            roles=call.roles,
            parent=call.id,
            now=now_microseconds(),
        )
        return id_text(self._session.enqueue(queued))

    def send(self, workflow: str, topic: str, value: Any = None, /) -> None:
        """Leave a message for a workflow, by its id, if this transaction commits; `NotFound` where that has ended."""
        self._check_writes("send messages")
        identifier = receiver(workflow)
        try:
            written = checked_value("message", self._program, value)
            checked_name("topic", topic)
        except WrongArguments as error:
            raise RuleBroken(error.message, hint=error.hint) from None
        if not self._session.send(identifier, topic, written, new_id()):
            raise NotFound(f"there is no workflow {workflow} that could receive a message")

    def log(self, message: str, /, **fields: Any) -> None:
        """Add a line to the record of this call."""
        line: dict[str, Any] = {"at": self._notes.elapsed(), "message": str(message)}
        if fields:
            line["fields"] = fields
        self._notes.lines.append(line)

    def _draw(self, size: int) -> bytes:
        """Random bytes, noted with the call."""
        return self._session.draw(size)

    def _generator(self) -> Random:
        """The call's own generator of random numbers."""
        if self._notes.generator is None:
            self._notes.generator = Random(self._draw(SEED_BYTES))
        return self._notes.generator

    def _check_writes(self, what: str) -> None:
        self._check_open()
        if self._read_only:
            raise RuleBroken(f"a query cannot {what}", hint="declare the function with @app.transaction")

    def _check_open(self) -> None:
        """A transaction that a function kept would otherwise write into the call that runs next."""
        if self._notes.over:
            raise RuleBroken("the transaction is over", hint="it ends with the function that was given it")
        if self._notes.broken is not None:
            raise self._notes.broken

    def _nested(self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run another function of the app inside this transaction, in a part that its failure undoes."""
        self._check_open()
        check_roles(function, self._call.roles)
        query = function.kind.value == "query"
        if self._read_only and not query:
            raise RuleBroken(f"a query cannot call the transaction {function.name}")
        inner = Transaction(self._session, self._call, self._notes, query, self._program)
        note: dict[str, Any] = {"function": function.name, "status": "failed"}
        self._notes.nested.append(note)
        started = self._notes.elapsed()
        try:
            if query:
                result = self._session.confine(lambda: function.body(inner, *args, **kwargs))
            else:
                with _Part(self._session, self._notes):
                    result = function.body(inner, *args, **kwargs)
            note["status"] = "ok"
            return result
        finally:
            note["at"] = started
            note["duration"] = self._notes.elapsed() - started


class _Part:
    """A savepoint: released when its block ends, undone when it raises.

    Where that fails (at the end of Python's stack anything may), the parts around it cannot be told apart any more.
    """

    __slots__ = ("_notes", "_session")

    def __init__(self, session: Session, notes: Notes) -> None:
        self._session = session
        self._notes = notes

    def __enter__(self) -> None:
        try:
            self._session.savepoint("nested")
        except BaseException as error:
            self._notes.broken = error
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._session.release("nested")
            else:
                self._session.undo("nested")
        except BaseException as error:
            self._notes.broken = error
            raise


def as_json(notes: list[dict[str, Any]]) -> str | None:
    """Lines or nested calls as JSON text for the record; `None` where there are none."""
    return json.dumps(plain(notes), separators=(",", ":")) if notes else None
