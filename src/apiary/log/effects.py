"""Questions about what calls read and wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import product
from typing import Any

from apiary.engine.places import Log, Table
from apiary.finite import read_json
from apiary.runtime.errors import DatabaseError, WrongArguments

SQL_SECONDS = 10.0
MAX_ROWS = 1000
NUMBER = re.compile("[0-9]{1,18}")
SECONDS = re.compile("[0-9]{1,9}(\\.[0-9]{1,9})?")
MAX_ROWS_OF_SQL = 10_000


def sql(
    log: Log, *, statement: str, limit: int | str = MAX_ROWS_OF_SQL, seconds: float | str = SQL_SECONDS
) -> dict[str, Any]:
    """The rows of a statement that reads, over the views of the log: `columns`, `rows`, and `more`.

    `more` says that these are the first of more rows. `DeadlineExceeded` where it takes longer than `seconds`.
    """
    most, wait = _limit(limit, MAX_ROWS_OF_SQL), min(_seconds(seconds), SQL_SECONDS)
    table = rows_of(log, statement, most, wait)
    return {"columns": list(table.columns), "rows": [list(row) for row in table.rows], "more": table.more}


def rows_of(log: Log, statement: str, most: int, seconds: float, parameters: Mapping[str, Any] | None = None) -> Table:
    """The rows of a statement that somebody wrote; `WrongArguments` where it is none."""
    try:
        return log.sql(statement, most, seconds, parameters)
    except DatabaseError as error:
        raise WrongArguments(f"this is no SQL for the log: {error.message.partition(' in: ')[0]}") from None


def history(log: Log, *, table: str, key: str | Mapping[str, Any], limit: int | str = MAX_ROWS) -> list[dict[str, Any]]:
    """All versions of a row, the first first, each with the call that made it.

    `key`: the columns of the row's primary key with their values; as a mapping, or as JSON.
    """
    most = _limit(limit)
    asked = {"table": table, "limit": most}
    versions = [row for form in forms(key) for row in log.ask("log_history", {**asked, "key": form})]
    versions.sort(key=lambda row: (row["effect"], row["number"]))
    return [
        {**_without_place(row), "before": image(row["before"]), "after": image(row["after"])} for row in versions[:most]
    ]


def as_of(log: Log, *, table: str, key: str | Mapping[str, Any], at: int | str) -> dict[str, Any] | None:
    """A row as it was at a time (microseconds since 1970): the version that was the latest then; none: there was none.

    `row` is none where the row was deleted, or where the `operation` says that there is one whose values are not known.
    A version counts from the end of the call that made it.
    """
    asked = {"table": table, "at": number("at", at)}
    found = [row for form in forms(key) for row in log.ask("log_as_of", {**asked, "key": form})]
    if not found:
        return None
    latest = max(found, key=lambda row: (row["effect"], row["number"]))
    return {**_without_place(latest), "row": image(latest["row"])}


def readers(
    log: Log, *, table: str, key: str | Mapping[str, Any], since: int | str = 0, limit: int | str = MAX_ROWS
) -> list[dict[str, Any]]:
    """Who read a row `since` some time (microseconds since 1970), the latest first, with the call and the statement.

    Not `certain` is who ran a statement that read rows of the table of which it is not known which they were.
    """
    most = _limit(limit)
    asked = {"table": table, "since": number("since", since), "limit": most}
    reads = [row for form in (*forms(key), None) for row in log.ask("log_readers", {**asked, "key": form})]
    reads.sort(key=lambda row: (row["effect"], row["number"]), reverse=True)
    return [
        {
            **_without_place(row),
            "certain": bool(row["certain"]),
            "parameters": image(row["parameters"]),
            "row": image(row["row"]),
        }
        for row in reads[:most]
    ]


def forms(key: str | Mapping[str, Any]) -> list[str]:
    """The forms in which a key may be written in the log. A number that is meant as text looks like a number here."""
    named = _members(key) if isinstance(key, str) else key
    each = [[value] if isinstance(value, str) else [value, _text(value)] for _, value in sorted(named.items())]
    return [
        json.dumps(dict(zip(sorted(named), values, strict=True)), separators=(",", ":"), ensure_ascii=False)
        for values in product(*each)
    ]


def _members(key: str) -> Mapping[str, Any]:
    try:
        read = read_json(key)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict) or not read:
        raise WrongArguments(f"a key is a JSON object of columns and values, not {key!r:.100}")
    return read


def _text(value: Any) -> str:
    return json.dumps(value)


def _without_place(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("effect", "number")}


def _limit(limit: int | str, most: int = MAX_ROWS) -> int:
    return max(1, min(number("limit", limit), most))


def _seconds(text: float | str) -> float:
    if isinstance(text, str) and not SECONDS.fullmatch(text):
        raise WrongArguments(f"seconds is a number, not {text!r:.50}")
    return float(text)


def number(name: str, value: int | str) -> int:
    """A number as somebody gave it; `WrongArguments` where it is none."""
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        raise WrongArguments(f"{name} is a whole number, not {value!r:.50}")
    return int(value)


def image(kept: str | None) -> Any:
    """What stands as JSON in the log."""
    return None if kept is None else read_json(kept)
