"""Errors of PostgreSQL, told apart by SQLSTATE, as errors of Apiary. The only such place; standard library only."""

from __future__ import annotations

from apiary.runtime.errors import (
    ConstraintViolated,
    DatabaseError,
    DatabaseUnavailable,
    Error,
    RuleBroken,
    ValueOutOfRange,
)

CANCELLED = "57014"
INTERRUPTED = "22P01"
"""What comes of SIGFPE, with which a backend ends what nothing else can end."""
CONFLICTS = ("40001", "40P01")
CONSTRAINTS = {
    "23505": "unique",
    "23503": "foreign key",
    "23502": "not null",
    "23514": "check",
    "23P01": "exclusion",
}
ENDING = ("57P01", "57P02", "57P03", "57P05", "25P03")
LOCKED = "55P03"
READ_ONLY = "25006"
FORBIDDEN = ("42501", "0A000", "25001", "2D000", "25P02", "2F003")
GAVE_UP = ("53", "55", "57", "58", "XX")
OUT_OF_RANGE = ("22003", "22008", "22021", "22P05", "54000")


REFUSED = "AP503"
"""With this a backend says that a batch cannot be committed; the detail has the problem document."""


class Conflicted(DatabaseUnavailable):
    """Two transactions could not both be serialized. The platform runs the call again; a caller hears of it last."""

    state = "40001"


class NotConnected(DatabaseUnavailable):
    """There is no connection to be had: nothing was sent."""

    hint = "nothing was kept; send it again later"


class ConnectionLost(DatabaseUnavailable):
    """The connection to the database went away; whether its last transaction was committed only the log can tell.

    `explained`: the server said why, or it was cut from here. Else what ran on it may have ended the backend.
    """

    hint = "send it again"
    explained = False


class Cancelled(DatabaseUnavailable):
    """A statement was cancelled: by the platform at a deadline, or by somebody else."""


class Locked(DatabaseUnavailable):
    """A lock that another session holds was not to be had in time."""


class Repeated(DatabaseUnavailable):
    """A call has a record already, which showed only when its transaction ended."""


def translate(state: str, message: str, sql: str = "") -> Error:
    """The error of Apiary for an SQLSTATE (empty: the connection is gone) that came while `sql` ran."""
    shown = f" in: {' '.join(sql.split())[:200]}" if sql else ""
    text = message.strip()
    if state in CONFLICTS:
        return Conflicted(f"other calls changed the same rows at the same time: {text}")
    if state in CONSTRAINTS:
        name = CONSTRAINTS[state]
        return ConstraintViolated(f"the change breaks a {name} constraint: {text}", constraint=name)
    if not state or state[:2] == "08" or state in ENDING:
        lost = ConnectionLost(f"the connection to the database was lost: {text}")
        lost.explained = bool(state)
        return lost
    if state == CANCELLED:
        return Cancelled(f"the statement was cancelled: {text}", hint="nothing was kept; send it again")
    if state == LOCKED:
        return Locked(f"another session holds a lock: {text}", hint="nothing was kept; send it again")
    if state[:2] in GAVE_UP:
        return DatabaseUnavailable(f"the database cannot do this now: {text}", hint="nothing was kept; send it again")
    if state in OUT_OF_RANGE:
        return ValueOutOfRange(f"the database cannot hold a value: {text}")
    if state == READ_ONLY:
        return RuleBroken("a query cannot write", hint="declare the function with @app.transaction")
    if state in FORBIDDEN:
        return RuleBroken(f"the function may not do this: {text}{shown}")
    return DatabaseError(f"{text}{shown}", hint="is the table made by a migration?" * (state == "42P01"))
