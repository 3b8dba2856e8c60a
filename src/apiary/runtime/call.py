"""Runs one call inside a transaction that an engine holds open: resolve, decode, run, record.

This is the whole of exactly-once for one function: the record is written in the transaction of its effects, and
is unique by the call's id and by its idempotency key. What is here is the same on every engine.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from apiary.runtime.declaration import Function, Kind
from apiary.runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    Duplicate,
    Error,
    InternalError,
    Rejected,
    Stopped,
    Unavailable,
    UnknownFunction,
)
from apiary.runtime.failures import raised
from apiary.runtime.ids import id_text
from apiary.runtime.plain import plain
from apiary.runtime.queueing import Queue, checked_queues
from apiary.runtime.session import Call, Outcome, Record, Session
from apiary.runtime.transaction import Notes, Transaction, _current, as_json, check_roles

MAX_QUERY_OUTPUT_BYTES = 4096
DIGEST = "apiary:digest"
"""Where recorded arguments have the digest of those that they do not show."""
NOTHING_KEPT = "nothing was committed"
ACTED = "what it did outside of the database is not known"
"""What calls leave that fail: those in the database, and actions."""
NOT_THE_USERS = (str(Path(__file__).parent.parent), "<frozen importlib", str(Path(importlib.__file__).parent))


class Codec(Protocol):
    """Turns the JSON of a call into a function's arguments, and its result into JSON.

    `has_secrets`: the log does not show all of the arguments, but those that are `visible`.
    """

    has_secrets: bool
    visible: Sequence[str] | None

    def decode(self, call: Call) -> dict[str, Any]:
        """The arguments by name; `WrongArguments` where they do not fit."""

    def secrets(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        """What must not be shown of the arguments."""

    def encode(self, result: Any) -> bytes:
        """The result as JSON."""

    def encode_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Arguments given in Python as the JSON object of a call."""

    def canonical(self, call: Call) -> bytes:
        """The input of a call as a JSON object, whatever form it came in."""

    def decode_result(self, output: bytes) -> Any:
        """A result from its JSON."""

    def unread(self, call: Call) -> bytes:
        """The same where the arguments cannot be read, without those that are secret."""

    def digest(self, call: Call) -> str | None:
        """What tells whether a call that repeats an idempotency key repeats its secrets, too. Takes long."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A function together with the codec made for its signature."""

    function: Function[..., Any]
    codec: Codec


ToJson = Callable[[Any], bytes]


class Program:
    """The functions of one version of an app, ready to be called by name."""

    def __init__(
        self,
        app: str,
        version: str,
        functions: Mapping[str, Bound],
        to_json: ToJson | None = None,
        queues: Mapping[str, Queue] = MappingProxyType({}),
    ) -> None:
        self.app = app
        self.version = version
        self.functions = dict(functions)
        self.queues = checked_queues(queues, (bound.function for bound in functions.values()))
        self.to_json: ToJson = to_json or (lambda value: json.dumps(value).encode())

    def find(self, name: str) -> Bound:
        """The function of this name, or `UnknownFunction`."""
        try:
            return self.functions[name]
        except KeyError:
            raise unknown_function(self.app, name, self.functions) from None

    def encode(self, function: Function[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """The JSON arguments of a call of `function`, which must be of this program."""
        bound = self.find(function.name)
        if bound.function is not function.declared:
            raise UnknownFunction(f"{function!r} does not belong to the app {self.app}")
        return bound.codec.encode_arguments(args, kwargs)


def unknown_function(app: str, name: str, known: Iterable[str]) -> UnknownFunction:
    """The error of a call by a name that an app does not have, with the nearest that it has."""
    near = get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
    return UnknownFunction(f"the app {app} has no function {name!r}", hint=hint)


class Guard(Protocol):
    """Ends a function that runs too long, by raising `Stopped` inside it."""

    def begin(self, call: Call, seconds: float) -> None:
        """From now on the function may run so many seconds."""

    def end(self) -> bool:
        """The function is over; nothing is raised any more. Returns whether `Stopped` had been raised."""


def perform(
    program: Program,
    call: Call,
    session: Session,
    guard: Guard,
    notes: Notes,
    keep: Callable[[Record], None] | None = None,
) -> Outcome:
    """Run one call of a query or a transaction in the open transaction of `session`.

    The function runs in a part (savepoint) of its own. Where it returns, its record joins that part. Where it
    raises, the part is undone and the failure recorded, and so it is where types of the user fail to read arguments. A
    call that is refused before the function runs (wrong arguments, not allowed) has no record, unless it came from the
    queue or is a step. `notes` take what the call says of itself, also where it is stopped.
    `keep` takes the record; by default it is written.

    Raises `Duplicate`, with everything undone, where the call has a record already, `Stopped` where it ran out of
    time, and `Unavailable` where the database gave up.
    """
    keep = keep or session.record
    session.savepoint("call")
    try:
        output = run(program, call, session, guard, notes, keep)
    except (Stopped, Duplicate):
        guard.end()
        with suppress(Unavailable):
            session.undo("call")
        raise
    except BaseException as error:  # noqa: BLE001 - `sys.exit()` in a function ends that function, not its host
        failed = error
        let_go(error)
    else:
        session.release("call")
        return Outcome(output, duration=notes.elapsed())
    session.undo("call")
    if isinstance(failed, Unavailable):
        raise failed
    problem = problem_of(call, failed)
    if notes.entered or call.queued or call.step is not None or not is_refusal(failed):
        record = failure(program, program.functions.get(call.function), call, notes, problem, failed)
        record.effects = session.effects()
        session.savepoint("call")
        try:
            keep(record)
        except BaseException:
            session.undo("call")
            raise
        session.release("call")
    return Outcome(error=problem, cause=failed, duration=notes.elapsed())


def run(
    program: Program, call: Call, session: Session, guard: Guard, notes: Notes, keep: Callable[[Record], None]
) -> bytes:
    """Run one call and `keep` its record; returns its result. Whatever this raises, the caller undoes what was done.

    `Stopped`: it ran out of time, whatever the function made of that.
    """
    late = False
    try:
        try:
            bound = program.find(call.function)
            check_roles(bound.function, call.roles)
            guard.begin(call, bound.function.options.timeout)
            arguments = bound.codec.decode(call)
            if bound.codec.has_secrets:
                session.conceal(bound.codec.secrets(arguments))
            notes.entered = True
            output = bound.codec.encode(_body(program, bound, call, session, notes, arguments))
            if notes.broken is not None:
                raise notes.broken
        finally:
            late = guard.end()
    except BaseException as failed:
        if late:
            raise Stopped from failed
        raise
    if late:
        raise Stopped
    if session.recording:
        record = record_of(program, bound, call, notes, "ok", output)
        record.effects = session.effects()
        keep(record)
    return output


def _body(
    program: Program, bound: Bound, call: Call, session: Session, notes: Notes, arguments: Mapping[str, Any]
) -> Any:
    """Call the function with a transaction that is of use to it until it returns."""
    function = bound.function
    transaction = Transaction(session, call, notes, function.kind is Kind.QUERY, program)
    token = _current.set(transaction)
    try:
        if function.kind is Kind.QUERY:
            return session.confine(lambda: function.body(transaction, **arguments))
        return function.body(transaction, **arguments)
    finally:
        notes.over = True
        _current.reset(token)


def is_refusal(cause: BaseException) -> bool:
    """Whether an exception says what the caller may know, other than that something failed inside."""
    return isinstance(cause, Error) and not isinstance(cause, InternalError)


def let_go(error: BaseException) -> None:
    """Where there was no memory, give back at once what the function held, instead of when its traceback goes."""
    chain: dict[int, BaseException] = {}
    link: BaseException | None = error
    while link is not None and id(link) not in chain:
        chain[id(link)] = link
        link = link.__cause__ or link.__context__
    if any(isinstance(link, MemoryError) for link in chain.values()):
        for link in chain.values():
            traceback.clear_frames(link.__traceback__)


def stopped(program: Program, call: Call, notes: Notes) -> tuple[Outcome, Record]:
    """What a call comes to that ran out of time: nothing kept, a record without its key, so that it may run again."""
    bound = program.find(call.function)
    cause = out_of_time(bound)
    problem = problem_of(call, cause)
    record = failure(program, bound, call, notes, problem, cause)
    return Outcome(error=problem, cause=cause, duration=record.duration), record


def out_of_time(bound: Bound) -> DeadlineExceeded:
    """The error of a call of this function that was stopped."""
    kept = ACTED if bound.function.kind is Kind.ACTION else NOTHING_KEPT
    return DeadlineExceeded(
        f"{bound.function.name} ran longer than its timeout of {bound.function.options.timeout:g} s and was stopped",
        hint=f"{kept}; make it shorter, or declare a longer timeout",
    )


def failure(
    program: Program, bound: Bound | None, call: Call, notes: Notes, problem: Mapping[str, Any], cause: BaseException
) -> Record:
    """The record of a call that raised; `stopped` where the platform ended it, else with the user's traceback.

    A step of a workflow that was stopped has failed: its workflow has seen it.
    """
    error = {**problem, **(raised(cause) if call.step is not None else {})}
    status = "failed"
    if isinstance(cause, Rejected):
        status = "rejected"
    elif isinstance(cause, Cancelled):
        status = "cancelled"
    elif isinstance(cause, DeadlineExceeded):
        is_step = call.step is not None or (bound is not None and bound.function.kind is Kind.WORKFLOW)
        status = "failed" if is_step else "stopped"
    else:
        error["traceback"] = user_traceback(cause)
    return record_of(program, bound, call, notes, status, error=json.dumps(error))


def record_of(
    program: Program,
    bound: Bound | None,
    call: Call,
    notes: Notes,
    status: str,
    output: bytes | None = None,
    error: str | None = None,
) -> Record:
    """The record of a call that ends now. A stopped call keeps its idempotency key free, since it may run again."""
    return Record(
        id=call.id,
        function=call.function,
        kind=bound.function.kind.value if bound else "unknown",
        version=program.version,
        caller=call.caller,
        attempt=call.attempt,
        started=notes.started,
        duration=notes.elapsed(),
        status=status,
        input=input_of(bound, call),
        output=_kept(bound, call, output),
        error=error,
        lines=as_json(notes.lines),
        nested=as_json(notes.nested),
        parent=call.parent,
        queued=call.queued,
        key=None if status == "stopped" else call.key,
        step=call.step,
    )


def input_of(bound: Bound | None, call: Call) -> bytes:
    """What the record keeps of the input; of one that cannot be read, at least not the secrets."""
    if bound is None:
        return call.input
    try:
        return bound.codec.canonical(call)
    except Exception:  # noqa: BLE001 - of the user's types
        return bound.codec.unread(call)


def _kept(bound: Bound | None, call: Call, output: bytes | None) -> bytes | None:
    """What the record keeps of an output: a large one of a query, which can be asked again, only by its digest."""
    if output is None or len(output) <= MAX_QUERY_OUTPUT_BYTES or call.key is not None or call.step is not None:
        return output
    if bound is None or bound.function.kind is not Kind.QUERY:
        return output
    omitted = {"bytes": len(output), "sha256": hashlib.sha256(output).hexdigest()}
    return json.dumps({"apiary:omitted": omitted}).encode()


def problem_of(call: Call, cause: BaseException, kept: str = NOTHING_KEPT) -> dict[str, Any]:
    """The problem document that the caller gets for an exception of the function; `kept`: what it left."""
    if is_refusal(cause):
        assert isinstance(cause, Error)
        error = cause
    else:
        error = InternalError(
            f"{call.function} failed with an internal error; {kept}",
            hint=f"the traceback is in the log: apiary log show {id_text(call.id)}",
        )
    problem: dict[str, Any] = plain(error.problem())
    problem["call_id"] = id_text(call.id)
    return problem


def user_traceback(cause: BaseException) -> str:
    """The traceback of an exception without the frames of the platform, as Python prints it."""
    formatted = traceback.TracebackException.from_exception(cause)
    parts: list[traceback.TracebackException] = [formatted]
    while parts:
        part = parts.pop()
        kept = [frame for frame in part.stack if not frame.filename.startswith(NOT_THE_USERS)]
        shown = kept or ([] if issubclass(part.exc_type or Exception, (SyntaxError, Error)) else list(part.stack)[-1:])
        part.stack = traceback.StackSummary.from_list(shown)
        parts.extend(inner for inner in (part.__cause__, part.__context__) if inner is not None)
    return "".join(formatted.format())
