"""Every error of Apiary: one tree, one file.

An error has a `code` for programs, a message for people (what happened, then what to do), an HTTP status,
and says whether the same call may be sent again. Engines map the errors of their driver to these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class Error(Exception):
    """Base of all errors that reach a caller.

    `details` are extra members of the problem document that the caller receives.
    """

    code: str = "error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    hint: str = ""

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details
        self.call_id: str | None = None
        if hint:
            self.hint = hint

    def problem(self) -> dict[str, Any]:
        """This error as a JSON object (the members of RFC 9457, plus ours)."""
        problem: dict[str, Any] = {
            "type": f"urn:apiary:error:{self.code}",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "code": self.code,
            "detail": self.message,
        }
        if self.hint:
            problem["hint"] = self.hint
        return {**self.details, **problem}


class Rejected(Error):
    """A refusal by the application: the call rolls back, is not retried, and its caller sees it as it is.

    >>> raise Rejected("no such item", code="unknown_item", item=7)
    """

    code = "rejected"
    status = 422

    def __init__(self, message: str, *, code: str = "", hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        if code:
            self.code = str(code)


class WrongArguments(Error):
    """The arguments of a call do not fit the function's signature. `errors` names each argument."""

    code = "wrong_arguments"
    status = 400


class MalformedRequest(Error):
    """What was sent is no HTTP request."""

    code = "malformed_request"
    status = 400


class NotAuthenticated(Error):
    """The caller gave no key, or one that the platform does not know."""

    code = "not_authenticated"
    status = 401
    hint = "send a key: `Authorization: Bearer KEY` (on the command line: --key or APIARY_KEY)"


class Forbidden(Error):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403


class NotFound(Error):
    """There is no such thing."""

    code = "not_found"
    status = 404


class UnknownApp(NotFound):
    """No app of this name is deployed."""

    code = "unknown_app"


class UnknownFunction(NotFound):
    """The app has no function of this name."""

    code = "unknown_function"


class NoSuchRow(NotFound):
    """`Result.one()` found no row."""

    code = "no_such_row"


class MethodNotAllowed(Error):
    """The function is not called with this HTTP method."""

    code = "method_not_allowed"
    status = 405


class Conflict(Error):
    """The request contradicts the present state."""

    code = "conflict"
    status = 409


class ConstraintViolated(Conflict):
    """A statement broke a constraint of the database; the call was rolled back."""

    code = "constraint_violated"


class PayloadTooLarge(Error):
    """A request, a bundle or a result is above its limit."""

    code = "payload_too_large"
    status = 413


class HeadTooLarge(Error):
    """The address and the headers of a request are above their limit."""

    code = "head_too_large"
    status = 431


class RequestTimeout(Error):
    """A request did not arrive in time; nothing was run."""

    code = "request_timeout"
    status = 408
    retryable = True


class UnsupportedMediaType(Error):
    """The body is not JSON."""

    code = "unsupported_media_type"
    status = 415


class KeyReused(Error):
    """An idempotency key came again with another function or other arguments."""

    code = "idempotency_key_reused"
    status = 422
    hint = "use a new key for a new call; repeat a call with exactly the same arguments"


class ValueOutOfRange(Error):
    """A value cannot be stored in the database (for example an integer of more than 64 bits)."""

    code = "value_out_of_range"
    status = 422


class BundleRefused(Error):
    """A deploy was refused; the version that served before still serves."""

    code = "bundle_refused"
    status = 422


class MigrationRefused(BundleRefused):
    """A migration failed or was changed after it had been applied; nothing of the deploy was kept."""

    code = "migration_refused"


class InternalError(Error):
    """The function raised an exception; it was rolled back. The log has the traceback under the call's id."""

    code = "internal_error"
    status = 500


class DatabaseError(InternalError):
    """The database refused a statement (a mistake in the SQL, most of the time)."""

    code = "database_error"


class RuleBroken(InternalError):
    """The function did something that its kind may not do, such as writing in a query."""

    code = "rule_broken"


class DeclarationError(Error):
    """A function or an app is declared in a way that cannot work. Raised at import, before any deploy."""

    code = "declaration"
    status = 422


class Unavailable(Error):
    """The platform cannot serve the call now and did not run it; sending it again is safe."""

    code = "unavailable"
    status = 503
    retryable = True
    unreachable: ClassVar[bool] = False
    """Whether the database could not even be asked, so that this says nothing of the call."""
    during: str | None = None
    """The function that ran when the transaction of several calls could not go on, where that is known."""


class Overloaded(Unavailable):
    """Too many calls are waiting; this one was not run."""

    code = "overloaded"


class DatabaseUnavailable(Unavailable):
    """The database could not commit (disk full, file locked, connection lost); nothing was kept."""

    code = "database_unavailable"


class Unseen(DatabaseUnavailable):
    """A call has a record that was committed after this transaction began, and so cannot be read in it."""


class HostCrashed(Unavailable):
    """The process that ran the call died more than once while it ran it."""

    code = "host_crashed"


class NotCommitted(Error):
    """A queued call could not be committed, many times and for long, and was given up; nothing was kept."""

    code = "not_committed"
    status = 500


class DeadlineExceeded(Error):
    """The call ran longer than its function's `timeout`; it was stopped and nothing was committed."""

    code = "deadline_exceeded"
    status = 504


class Cancelled(Error):
    """The workflow was cancelled; what it had done is undone as far as it said how."""

    code = "cancelled"
    status = 409


class StepFailed(InternalError):
    """A step of a workflow raised an exception whose class is not known here."""

    code = "step_failed"


class Nondeterministic(Error):
    """A workflow that ran again did something else than is recorded. It waits until it is mended or moved."""

    code = "nondeterministic"
    hint = "let it end on the version on which it began, or fork it; new code may only change what it has not done yet"


class TooManySteps(Error):
    """A workflow has done so many things that it cannot be run again from its records in good time."""

    code = "too_many_steps"
    status = 422


class Stopped(BaseException):
    """Control flow: ends a function at its deadline. Not an `Exception`, so that user code does not swallow it."""


class Duplicate(BaseException):
    """Control flow: this call, or its idempotency key, has a record already."""


def known_errors() -> Mapping[str, type[Error]]:
    """All errors by code, for clients that turn a problem document back into an exception."""
    found: dict[str, type[Error]] = {}
    pending: list[type[Error]] = [Error]
    while pending:
        kind = pending.pop()
        found.setdefault(kind.code, kind)
        pending.extend(kind.__subclasses__())
    return found


def from_problem(problem: Mapping[str, Any]) -> Error:
    """The exception that a problem document stands for; an unknown code of status 422 is a `Rejected`."""
    standard = {"type", "title", "status", "code", "detail", "hint", "call_id"}
    details = {name: value for name, value in problem.items() if name not in standard}
    code = str(problem.get("code", "error"))
    message = str(problem.get("detail", code))
    hint = str(problem.get("hint", ""))
    kind = known_errors().get(code)
    error: Error
    if kind is None or kind is Rejected or problem.get("status", kind.status) != kind.status:
        error = Rejected(message, code=code, hint=hint, **details)
    else:
        error = kind.__new__(kind)
        Error.__init__(error, message, hint=hint, **details)
    error.call_id = problem.get("call_id")
    return error
