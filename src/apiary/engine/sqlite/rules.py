"""What a statement may not do, as SQLite's authorizer tells it when the statement is prepared."""

from __future__ import annotations

import apsw

FORBIDDEN = {
    apsw.SQLITE_TRANSACTION: "transactions begin and end with the function; raise an exception to roll back",
    apsw.SQLITE_SAVEPOINT: "call another function for a part that can be undone by itself",
    apsw.SQLITE_ATTACH: "an app has one database",
    apsw.SQLITE_DETACH: "an app has one database",
    apsw.SQLITE_CREATE_TEMP_TABLE: "what is temporary would outlive the call; use a common table expression",
    apsw.SQLITE_CREATE_TEMP_VIEW: "what is temporary would outlive the call; use a common table expression",
    apsw.SQLITE_CREATE_TEMP_INDEX: "what is temporary would outlive the call",
    apsw.SQLITE_CREATE_TEMP_TRIGGER: "what is temporary would outlive the call",
}
PRAGMAS_OF_FUNCTIONS = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"}
)
PRAGMAS_OF_MIGRATIONS = PRAGMAS_OF_FUNCTIONS | {"defer_foreign_keys", "legacy_alter_table", "user_version"}
CHANGES_OF_SCHEMA = {
    apsw.SQLITE_CREATE_TABLE,
    apsw.SQLITE_CREATE_INDEX,
    apsw.SQLITE_CREATE_VIEW,
    apsw.SQLITE_CREATE_TRIGGER,
    apsw.SQLITE_CREATE_VTABLE,
    apsw.SQLITE_DROP_TABLE,
    apsw.SQLITE_DROP_INDEX,
    apsw.SQLITE_DROP_VIEW,
    apsw.SQLITE_DROP_TRIGGER,
    apsw.SQLITE_DROP_VTABLE,
    apsw.SQLITE_ALTER_TABLE,
}
CHANGES_OF_ROWS = {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
PLATFORM = "apiary_"


def violation(action: int, first: str | None, second: str | None, pragmas: frozenset[str]) -> str | None:
    """Why a statement must not do this, if so. `first` and `second` are what SQLite says of the action."""
    if action in FORBIDDEN:
        return f"this statement cannot be run here: {FORBIDDEN[action]}"
    if action == apsw.SQLITE_PRAGMA and str(first).lower() not in pragmas:
        return f"pragma {first} cannot be run here"
    names: tuple[str | None, ...] = ()
    if action in CHANGES_OF_ROWS:
        names = (first,)
    elif action in CHANGES_OF_SCHEMA:
        names = (first, second)
    for name in names:
        if name is not None and name.lower().startswith(PLATFORM):
            return f"{name} is not the app's own: names that begin with {PLATFORM} belong to the platform"
    return None
