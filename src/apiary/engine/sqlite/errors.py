"""Errors of APSW and SQLite, told apart by class and extended code, as errors of Apiary. The only such place."""

from __future__ import annotations

import apsw

from apiary.runtime.errors import (
    ConstraintViolated,
    DatabaseError,
    DatabaseUnavailable,
    Error,
    RuleBroken,
    ValueOutOfRange,
)

CONSTRAINTS = {
    apsw.SQLITE_CONSTRAINT_UNIQUE: "unique",
    apsw.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    apsw.SQLITE_CONSTRAINT_ROWID: "unique",
    apsw.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign key",
    apsw.SQLITE_CONSTRAINT_NOTNULL: "not null",
    apsw.SQLITE_CONSTRAINT_CHECK: "check",
    apsw.SQLITE_CONSTRAINT_TRIGGER: "trigger",
    apsw.SQLITE_CONSTRAINT_DATATYPE: "datatype",
}
GAVE_UP = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ProtocolError,
    apsw.NoMemError,
    apsw.ConnectionClosedError,
    OSError,
)
BROKEN = (apsw.CorruptError, apsw.NotADBError)
UNIQUE = (apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_PRIMARYKEY)


UNTOLD = "not an error"
"""What SQLite says of a backup that failed."""


def extended_code(error: apsw.Error) -> int:
    """SQLite's extended result code (APSW sets it, its type stubs do not say so)."""
    code: int = getattr(error, "extendedresult", 0)
    return code


def translate(error: Exception, sql: str = "") -> Error:
    """The error of Apiary for an error of the driver while it ran `sql`."""
    text = str(error)
    if text == UNTOLD:
        text = type(error).__name__
    shown = f" in: {' '.join(sql.split())[:200]}" if sql else ""
    if isinstance(error, apsw.ConstraintError):
        name = CONSTRAINTS.get(extended_code(error), "")
        what = f"{name} constraint".strip()
        return ConstraintViolated(f"the change breaks a {what}: {text}", constraint=name or "constraint")
    if isinstance(error, GAVE_UP) or (isinstance(error, apsw.ReadOnlyError) and not sql):
        return DatabaseUnavailable(
            f"the database cannot do this now: {text}",
            hint="nothing was kept; a long call or a migration may hold it, or the disk may be full or not writable",
        )
    if isinstance(error, BROKEN):
        return DatabaseUnavailable(f"the database file is damaged: {text}", hint="restore it: apiary restore")
    if isinstance(error, apsw.TooBigError | OverflowError | UnicodeEncodeError):
        return ValueOutOfRange(f"the database cannot hold a value: {text}", hint="integers have 64 bits at most")
    if isinstance(error, apsw.ReadOnlyError | apsw.AuthError):
        return RuleBroken(f"the function may not do this: {text}{shown}")
    return DatabaseError(
        f"{text}{shown}", hint="" if not sql else "is the table made by a migration?" * ("no such table" in text)
    )
