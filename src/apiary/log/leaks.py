"""Who read rows that were not for them: reads of a table for which a condition does not hold.

The condition is an expression of SQL over the columns of the row, as it was when it was read, and over the read:
`caller`, `function`, `kind`, `at`. Columns that the statement did not ask for are those of the row's version at that
place of the log. Of a statement of which it is not known which rows it read all columns are null, so unless the
condition holds of the caller alone, such a read counts, as not `certain`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from apiary.engine.places import Log
from apiary.engine.statements import load_statements
from apiary.log.effects import SQL_SECONDS, image, number, rows_of
from apiary.runtime.errors import NotFound

MAX_ROWS = 10_000
MAX_EFFECT = 2**63 - 1
FOUND = ("at", "call", "function", "kind", "caller", "statement", "parameters", "key", "row")
SQL = load_statements("apiary.log", "leaks.sql")


def leaks(
    log: Log,
    *,
    table: str,
    allowed: str,
    caller: str | None = None,
    function: str | None = None,
    since: int | str = 0,
    limit: int | str = 1000,
) -> dict[str, Any]:
    """The `reads` of a table that were not `allowed`, the latest first, and as `callers` who read how many rows.

    Only those by a `caller`, by a `function`, or `since` a time (microseconds since 1970), where these are named.
    `more`: there are more than `limit`; the summary is of these. `NotFound` where there is no such table,
    `DatabaseError` where the condition is wrong, `DeadlineExceeded` where it takes longer than `SQL_SECONDS`.
    """
    known = [row["name"] for row in log.ask("log_columns", {"table": table})]
    if not known:
        raise NotFound(f"there is no table {table!r:.80}")
    named = {"columns": _columns(known, allowed), "table": _quoted(table)}
    statement = SQL["reads"].format(condition=allowed, **named)
    begin = number("since", since)
    asked = {"table": table, "since": begin, "first": _first(log, begin), "caller": caller, "function": function}
    found = rows_of(log, statement, max(1, min(number("limit", limit), MAX_ROWS)), SQL_SECONDS, asked)
    reads = [_read(row) for row in found.rows]
    return {"callers": list(_summary(reads)), "reads": reads, "more": found.more}


def _first(log: Log, since: int) -> int:
    """Before which effect there is nothing that began since then: the order of effects is that of commits."""
    if since <= 0:
        return 0
    call = log.ask("log_first_call", {"since": since})[0]["seq"]
    found = [] if call is None else log.ask("log_first_effect", {"seq": call})
    return int(found[0]["effect"]) if found else MAX_EFFECT


def _columns(known: Sequence[str], condition: str) -> str:
    """The columns of the row that a condition may name: each costs time, where the statement did not ask for it."""
    words = {word.lower() for word in re.findall(r"\w+", condition)}
    named = [column for column in known if set(re.findall(r"\w+", column.lower())) <= words]
    return (
        ", ".join(SQL["column"].format(label=_literal(name), name=_quoted(name)) for name in named) or "null as missing"
    )


def _read(row: Sequence[Any]) -> dict[str, Any]:
    read = dict(zip(FOUND, row, strict=True))
    shown = {name: image(read[name]) for name in ("parameters", "key", "row")}
    return {**read, **shown, "certain": read["key"] is not None}


def _summary(reads: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each caller and function, who read most first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for read in reads:
        groups.setdefault((read["caller"], read["function"]), []).append(read)
    for (caller, function), own in sorted(groups.items(), key=lambda group: -len(group[1])):
        yield {
            "caller": caller,
            "function": function,
            "calls": len({read["call"] for read in own}),
            "rows": len({str(read["key"]) for read in own if read["certain"]}),
            "unknown": sum(not read["certain"] for read in own),
            "first": min(read["at"] for read in own),
            "last": max(read["at"] for read in own),
        }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
