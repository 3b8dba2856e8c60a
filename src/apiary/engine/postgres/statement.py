"""What a statement of a user says: its `:name` parameters numbered as PostgreSQL wants them, and what it may do.

Standard library only, and no database: PostgreSQL itself loads this file, and it is a function of the text alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from apiary.runtime.errors import DatabaseError, RuleBroken

TOKEN = re.compile(
    r"""
      (?P<space>\s+ | --[^\n]*)
    | (?P<comment>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>[^\W\d]\w*)?\$.*?\$(?(tag)(?P=tag))\$)
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<cast>:: | :=)
    | (?P<parameter>:[^\W\d]\w*)
    | (?P<positional>\$\d+ | \?(?=\s*(?:[,)]|$)))
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<end>;)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
READING = frozenset({"select", "values", "table", "with", "show", "explain"})
WRITING_WORDS = frozenset({"insert", "update", "delete", "merge", "into"})
LOCKING_WORDS = frozenset({"update", "share", "no", "key"})
FORBIDDEN = {
    **dict.fromkeys(
        ("begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare", "execute"),
        "transactions begin and end with the function; raise an exception to roll back",
    ),
    **dict.fromkeys(("set", "reset", "discard", "deallocate", "load"), "it would outlive the call"),
    **dict.fromkeys(("listen", "unlisten", "notify"), "nobody listens on this connection"),
    **dict.fromkeys(("declare", "fetch", "move", "close"), "a result is read at once"),
    **dict.fromkeys(("copy", "vacuum", "cluster", "checkpoint", "reindex"), "it is for administrators"),
}
TEMPORARY = frozenset({"temp", "temporary"})
SLICED = frozenset({"word", "number", "parameter", "quoted", "]", ")"})


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with its parameters as `$1`, `$2`, … in the order of `names`; whether it can only read."""

    sql: str
    names: tuple[str, ...]
    reads_only: bool

    def values(self, given: Mapping[str, object]) -> list[object]:
        """The given parameters in the order of `names`; `DatabaseError` where they are not the ones it has."""
        if len(given) != len(self.names):
            raise self._wrong_names(given)
        try:
            return [given[name] for name in self.names]
        except KeyError:
            raise self._wrong_names(given) from None

    def _wrong_names(self, given: Mapping[str, object]) -> DatabaseError:
        missing = sorted(set(self.names) - given.keys())
        extra = sorted(given.keys() - set(self.names))
        what = f"no value for :{missing[0]}" if missing else f"the statement has no :{extra[0]}"
        return DatabaseError(f"{what} in: {' '.join(self.sql.split())[:200]}")


def parse(sql: str) -> Statement:
    """Read a statement. `DatabaseError` where it is none, or more than one; `RuleBroken` where no function may run it.

    Strings, dollar quotes, quoted names, nested comments, casts (`::`) and slices (`a[1:2]`) stay as they are.
    """
    names: dict[str, int] = {}
    words: list[str] = []
    parts: list[str] = []
    before, depth, at, ended = "", 0, 0, False
    while at < len(sql):
        match = TOKEN.match(sql, at)
        assert match is not None, "the last alternative takes any character"
        kind, text = match.lastgroup or "", match[0]
        at = match.end()
        if kind == "comment":
            at = _end_of_comment(sql, at)
            kind, text = "space", " "
        if kind == "parameter" and depth and before in SLICED:
            kind, text, at = "other", ":", match.start() + 1
        if kind == "space":
            parts.append(text)
            continue
        if ended or kind == "positional":
            raise _not_one() if ended else _positional()
        if kind == "end":
            ended = True
            continue
        if kind == "parameter":
            text = f"${names.setdefault(text[1:], len(names) + 1)}"
        words += [text.lower()] * (kind == "word")
        depth += (text == "[") - (text == "]")
        before = text if kind == "other" else kind
        parts.append(text)
    if not words:
        raise DatabaseError("the statement is empty")
    _check(words)
    return Statement("".join(parts).strip(), tuple(names), _reads_only(words))


def _not_one() -> DatabaseError:
    return DatabaseError("more than one statement at once", hint="call execute once for each")


def _positional() -> DatabaseError:
    return DatabaseError("parameters are written :name", hint="write `where id = :id`, and pass id=…")


def _end_of_comment(sql: str, at: int) -> int:
    """Where a comment ends that began before `at`; comments nest."""
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    raise DatabaseError("a comment in the statement has no end")


def _check(words: list[str]) -> None:
    reason = FORBIDDEN.get(words[0])
    if reason is None and words[0] == "create" and TEMPORARY.intersection(words[1:5]):
        reason = "what is temporary would outlive the call; use a common table expression"
    if reason is not None:
        raise RuleBroken(f"this statement cannot be run here: {reason}")


def _reads_only(words: list[str]) -> bool:
    """Whether a statement looks as if it only read. A function that it calls may still write."""
    if words[0] not in READING or WRITING_WORDS.intersection(words):
        return False
    return not any(word == "for" and after in LOCKING_WORDS for word, after in pairwise(words))
