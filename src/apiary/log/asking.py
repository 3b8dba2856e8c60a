"""`AppLog`: the log of an app as Python code asks it, of an app that is open in this process or on a server.

What each question answers is told where it is answered: `log/questions.py` and the modules beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from apiary.engine.places import Table

Time = int | datetime
"""Microseconds since 1970; or a moment, in the local zone where it names none."""


class AppLog:
    """Questions about what an app did. Answers are what JSON can say; times are microseconds since 1970."""

    def __init__(self, ask: Callable[[str, dict[str, Any]], Any]) -> None:
        self._ask = ask

    def calls(
        self,
        *,
        function: str | None = None,
        status: str | None = None,
        caller: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        text: str | None = None,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """The calls that fit, the latest first. `before` and `after`: the `seq` of another call.

        `since` and `until`: when they began. `text`: words with each of which a word in their arguments, results,
        errors or log lines begins.
        """
        asked: dict[str, Any] = {"function": function, "status": status, "caller": caller, "text": text}
        times = {"since": since and _microseconds(since), "until": until and _microseconds(until)}
        found: list[dict[str, Any]] = self._asked("calls", before=before, after=after, limit=limit, **asked, **times)
        return found

    def show(self, call: str) -> dict[str, Any]:
        """Everything about one call, with what it read and wrote; `NotFound` where the log has none with this id."""
        found: dict[str, Any] = self._asked("show", call=call, effects=True)
        return found

    def trace(self, call: str, *, depth: int = 100, limit: int = 1000) -> dict[str, Any]:
        """A call, what it read and wrote, and as `children` the calls that it began, and so on."""
        found: dict[str, Any] = self._asked("trace", call=call, depth=depth, limit=limit)
        return found

    def recording(self, call: str) -> dict[str, Any]:
        """A query or transaction, and what its statements gave: what `apiary.testing.replay` runs again."""
        found: dict[str, Any] = self._asked("recording", call=call)
        return found

    def sql(self, statement: str, limit: int = 10_000, seconds: float = 10.0) -> Table:
        """The rows of a statement that reads, over the views of the log: `limit` of them, within so many seconds.

        `RuleBroken` where it does anything else, `DeadlineExceeded` where it takes longer.
        """
        found = self._asked("sql", statement=statement, limit=limit, seconds=seconds)
        return Table(tuple(found["columns"]), [tuple(row) for row in found["rows"]], found["more"])

    def history(self, table: str, key: Mapping[str, Any], *, limit: int = 1000) -> list[dict[str, Any]]:
        """All versions of a row, the first first, each with the call that made it. `key`: its primary key by column."""
        found: list[dict[str, Any]] = self._asked("history", table=table, key=json.dumps(key), limit=limit)
        return found

    def as_of(self, table: str, key: Mapping[str, Any], at: Time) -> dict[str, Any] | None:
        """A row as it was at a time, with the call that had made it so; none where there had never been one."""
        found: dict[str, Any] | None = self._asked("as_of", table=table, key=json.dumps(key), at=_microseconds(at))
        return found

    def readers(
        self, table: str, key: Mapping[str, Any], *, since: Time = 0, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """Who read a row, the latest first, with the call and its statement."""
        found: list[dict[str, Any]] = self._asked(
            "readers", table=table, key=json.dumps(key), since=_microseconds(since), limit=limit
        )
        return found

    def downstream(
        self,
        call: str | None = None,
        *,
        table: str | None = None,
        key: Mapping[str, Any] | None = None,
        depth: int = 100,
        limit: int = 1000,
    ) -> dict[str, Any]:
        """What came of a call, or of all that was ever written to a row: `calls`, and `edges` from one to another.

        `apiary.log.downstream.dot` writes it for Graphviz.
        """
        row = None if key is None else json.dumps(key)
        asked = {"call": call, "table": table, "key": row, "depth": depth, "limit": limit}
        found: dict[str, Any] = self._asked("downstream", **asked)
        return found

    def leaks(
        self,
        table: str,
        allowed: str,
        *,
        caller: str | None = None,
        function: str | None = None,
        since: Time = 0,
        limit: int = 1000,
    ) -> dict[str, Any]:
        """The `reads` of a table for which `allowed` does not hold, and their `callers`.

        `allowed` is an expression of SQL over the columns of the row, `caller`, `function`, `kind` and `at`:
        `log.leaks("posts", "public or author = caller")`.
        """
        asked = {"table": table, "allowed": allowed, "caller": caller, "function": function, "limit": limit}
        found: dict[str, Any] = self._asked("leaks", since=_microseconds(since), **asked)
        return found

    def _asked(self, question: str, **arguments: Any) -> Any:
        return self._ask(question, {name: value for name, value in arguments.items() if value is not None})


def _microseconds(time: Time) -> int:
    return time if isinstance(time, int) else round(time.timestamp() * 1e6)
