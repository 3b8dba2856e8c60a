"""Errors of PostgreSQL, told apart by SQLSTATE, as errors of Apiary. The only such place; standard library only."""

from __future__ import annotations

import json
from contextlib import suppress

from apiary.runtime.errors import (
    ConstraintViolated,
    DatabaseError,
    DatabaseUnavailable,
    Error,
    RuleBroken,
    ValueOutOfRange,
    from_problem,
)

CANCELLED = "57014"
LOCKED = "55P03"
DISK_FULL = "53100"
PASSING = (CANCELLED, LOCKED)
"""After these the transaction can go on: somebody wanted the statement to end, or not to wait."""
INTERRUPTED = "22P01"
"""What comes of SIGFPE, with which a backend ends what nothing else can end."""
DEADLOCK = "40P01"
CONFLICTS = ("40001", DEADLOCK)
CONSTRAINTS = {
    "23001": "foreign key",
    "23505": "unique",
    "23503": "foreign key",
    "23502": "not null",
    "23514": "check",
    "23P01": "exclusion",
    "44000": "check",
}
ENDING = ("57P01", "57P02", "57P03", "57P05", "25P03")
READ_ONLY = "25006"
FORBIDDEN = ("42501", "0A000", "25001", "2D000", "25P02", "2F003")
GAVE_UP = ("53", "57", "58", "XX")
HANDED_ON = ("AP403", "AP404", "AP409", "AP422")
OUT_OF_RANGE = ("22001", "22003", "22008", "22009", "22015", "22021", "22P05", "54000")


REFUSED = "AP503"
"""With this a backend says that a batch cannot be committed; the detail has the problem document."""


class Conflicted(DatabaseUnavailable):
    """Two transactions could not both be serialized. The platform runs the call again; a caller hears of it last.

    `deadlock`: each waited for the other, until the server ended one of them after a while.
    """

    state = "40001"

    @property
    def deadlock(self) -> bool:
        return self.state == DEADLOCK


class NotConnected(DatabaseUnavailable):
    """There is no connection to be had: nothing was sent."""

    hint = "nothing was kept; send it again later"
    unreachable = True


class ConnectionLost(DatabaseUnavailable):
    """The connection to the database went away; whether its last transaction was committed only the log can tell.

    `explained`: the server said why, or it was cut from here. Else what ran on it may have ended the backend.
    """

    hint = "send it again"
    unreachable = True
    explained = False


class Cancelled(DatabaseUnavailable):
    """A statement was cancelled: by the platform at a deadline, or by somebody else."""


class Locked(DatabaseUnavailable):
    """A lock that another session holds was not to be had in time."""


class Repeated(DatabaseUnavailable):
    """A call has a record already, which showed only when its transaction ended."""


def translate(state: str, message: str, sql: str = "", detail: str = "") -> Error:
    """The error of Apiary for an SQLSTATE (empty: the connection is gone) that came while `sql` ran.

    A refusal by a function that the statement called is what it was there; its `detail` has the problem document.
    """
    shown = f" in: {' '.join(sql.split())[:200]}" if sql else ""
    text = message.strip()
    if state in CONFLICTS:
        conflicted = Conflicted(f"other calls changed the same rows at the same time: {text}")
        conflicted.state = state
        return conflicted
    if state in CONSTRAINTS or state[:2] == "23":
        name = CONSTRAINTS.get(state, "constraint")
        return ConstraintViolated(f"the change breaks a {name} constraint: {text}", constraint=name)
    unavailable = _unavailable(state, text)
    if unavailable is not None:
        return unavailable
    if state in OUT_OF_RANGE:
        return ValueOutOfRange(f"the database cannot hold a value: {text}")
    if state == READ_ONLY:
        return RuleBroken("a query cannot write", hint="declare the function with @app.transaction")
    if state in HANDED_ON:
        with suppress(ValueError, AttributeError):  # the detail is another one, of somebody who uses the same SQLSTATE
            return from_problem(json.loads(detail))
    if state in FORBIDDEN:
        return RuleBroken(f"the function may not do this: {text}{shown}")
    return DatabaseError(f"{text}{shown}", hint="is the table made by a migration?" * (state == "42P01"))


def _unavailable(state: str, text: str) -> DatabaseUnavailable | None:
    """The error where the database, and not the statement, is the reason."""
    if not state or state[:2] == "08" or state in ENDING:
        lost = ConnectionLost(f"the connection to the database was lost: {text}")
        lost.explained = bool(state)
        return lost
    again = "nothing was kept; send it again"
    if state == CANCELLED:
        return Cancelled(f"the statement was cancelled: {text}", hint=again)
    if state == LOCKED:
        return Locked(f"another session holds a lock: {text}", hint=again)
    if state == DISK_FULL:
        room = "nothing was kept; make room on the disk of the database, then send it again"
        return DatabaseUnavailable(f"the disk of the database is full: {text}", hint=room)
    if state[:2] in GAVE_UP:
        return DatabaseUnavailable(f"the database cannot do this now: {text}", hint=again)
    return None
