"""Calls from SQL: the functions of an app in the transaction of whoever selects them.

What goes wrong ends that transaction, or is undone to the caller's savepoint, by the error that the caller gets; so a
call has no savepoint of its own, and a failure no record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from apiary.codec import FunctionCodec, convert_rows
from apiary.engine.postgres.inside.deadline import BackendGuard
from apiary.engine.postgres.inside.session import InsideSession, Plan
from apiary.engine.postgres.sqlforms import Mend, mend_argument, sql_text
from apiary.forms import NONE
from apiary.runtime.call import Bound, Program, out_of_time, run, user_traceback
from apiary.runtime.declaration import Kind
from apiary.runtime.errors import Error, InternalError, RuleBroken, Stopped, Unavailable
from apiary.runtime.ids import new_id
from apiary.runtime.plain import plain, plain_text
from apiary.runtime.session import Call, Record
from apiary.runtime.transaction import Notes, current_transaction

SqlCall = Callable[[str, str, str], str | None]
"""Runs a call: its arguments (a JSON object), the login of the caller, and the role that it has set, or `none`."""

CALLER = "postgresql:"
NO_ROLE = "none"
NOBODY: frozenset[str] = frozenset()


class CallSession(InsideSession):
    """The caller's transaction, for one call at a time."""

    def __init__(self, log: str, plans: dict[str, Plan], *, recording: bool) -> None:
        super().__init__(log, convert_rows, plans, recording=recording, read_only=False)
        self.guard = BackendGuard()
        self.gave_up: tuple[Error, str] | None = None
        self._log = log

    def join(self, around: InsideSession | None) -> None:
        """Begin a call, which may be one inside another call: `around` is the session of that."""
        self.enqueued = []
        self.ended_by = self.gave_up = None
        self._open.clear()
        self._marks.clear()
        if around is None:
            self._read_only = False
        else:
            self._read_only = around._read_only
            self.records = around.records

    def record(self, record: Record) -> None:
        """Write the record. A query's is left out in a transaction that only reads, which cannot hold any."""
        try:
            super().record(record)
        except RuleBroken:
            if not self._platform("is_read_only", ())[0][0]:
                raise
            if record.kind != Kind.QUERY:
                raise RuleBroken(f"{record.function} writes, and the transaction is read-only") from None

    def tell(self) -> None:
        """Tell the servers that calls were put into the queue, once this transaction commits."""
        self._platform("notify", (self._log,))

    def check(self) -> None:
        """Raise what ended the transaction, if the function made nothing of it."""
        if self.ended_by is not None:
            raise self.ended_by

    def roles(self, login: str) -> frozenset[str]:
        """The roles that a role of PostgreSQL has."""
        return frozenset(row[0] for row in self._platform("roles", (login,)))

    def abandon(self) -> None:
        """Leave the parts that the function has left open."""
        self.guard.end()
        while self._open:
            self._leave(self._open[-1][0], keep=False)

    def _failed(self, state: str, message: str, sql: str = "", detail: str = "") -> Error:
        error = super()._failed(state, message, sql, detail)
        if isinstance(error, Unavailable):
            self.gave_up = error, state
        return error


class SqlFunctions:
    """The functions of a program for SQL. A call inside a call has a session of its own."""

    def __init__(self, program: Program, log: str, plans: dict[str, Plan], failures: list[str]) -> None:
        self._program = program
        self._log = log
        self._plans = plans
        self._failures = failures
        self._idle: dict[bool, list[CallSession]] = {True: [], False: []}
        self._has_roles = any(bound.function.options.roles is not None for bound in program.functions.values())

    def function(self, name: str, recorded: bool) -> SqlCall:
        """What a call of this function runs."""
        program = self._program
        bound = program.find(name)
        signature = cast(FunctionCodec, bound.codec).signature()
        mends = {given.name: mend for given in signature.parameters if (mend := mend_argument(given))}
        left_out = {given.name for given in signature.parameters if given.optional and given.constant is None}
        result, idle = signature.result, self._idle[recorded]

        def call(arguments: str, login: str, role: str) -> str | None:
            session = idle.pop() if idle else CallSession(self._log, self._plans, recording=recorded)
            try:
                given = _mended(arguments, mends, left_out) if mends or left_out else arguments.encode()
                call = self._call(bound, given, login, role, session)
                output = run(program, call, session, session.guard, Notes(), session.record)
                session.check()
                if session.enqueued:
                    session.tell()
                return "" if result == NONE else sql_text(result, output)
            except BaseException as error:  # noqa: BLE001 - the wrapper in SQL raises it
                session.abandon()
                cause = out_of_time(bound) if isinstance(error, Stopped) else session.ended_by or error
                self._failures.append(json.dumps(_failure(name, cause, session.gave_up)))
                return None
            finally:
                idle.append(session)

        return call

    def _call(self, bound: Bound, arguments: bytes, login: str, role: str, session: CallSession) -> Call:
        """A call of this function, joined to what goes on: to the transaction, or to a call that runs."""
        outer = current_transaction()
        if outer is None:
            session.join(None)
            acting, caller = (login, CALLER + login) if role == NO_ROLE else (role, f"{CALLER}{login}/{role}")
            roles = session.roles(acting) if self._has_roles else NOBODY
            return Call(new_id(), bound.function.name, arguments, caller, roles)
        session.join(cast(InsideSession, outer._session))
        if outer._read_only and bound.function.kind is not Kind.QUERY:
            raise RuleBroken(f"a query cannot call the transaction {bound.function.name}")
        around = outer._call
        return Call(new_id(), bound.function.name, arguments, around.caller, around.roles, parent=around.id)


def _mended(arguments: str, mends: Mapping[str, Mend], left_out: set[str]) -> bytes:
    """The arguments as the codec reads them; a null says `not given` where the default is the function's own."""
    given = json.loads(arguments)
    for name in left_out:
        if given[name] is None:
            del given[name]
    for name, mend in mends.items():
        if given.get(name) is not None:
            given[name] = mend(given[name])
    return json.dumps(given).encode()


def _failure(name: str, cause: BaseException, gave_up: tuple[Error, str] | None) -> dict[str, Any]:
    """What the caller is told: an SQLSTATE, a message, the problem document or the traceback, and a hint.

    Where the database `gave_up` (a conflict, a lock, a cancel), the SQLSTATE is the one that it said.
    """
    if isinstance(cause, Error) and not isinstance(cause, InternalError):
        state = gave_up[1] if gave_up is not None and gave_up[0] is cause else f"AP{cause.status:03}"
        told = (cause.message, json.dumps(plain(cause.problem()), ensure_ascii=False), cause.hint)
    else:
        state = f"AP{InternalError.status}"
        what = cause.message if isinstance(cause, Error) else f"{type(cause).__name__}: {plain_text(cause)}"
        hint = "the call was part of your transaction, so its record is not kept either"
        told = (f"{name} failed with an internal error: {what}", user_traceback(cause), hint)
    message, detail, hint = (plain_text(text).replace("\0", "\\0") for text in told)
    return {"state": state, "message": message, "detail": detail, "hint": hint or None}
