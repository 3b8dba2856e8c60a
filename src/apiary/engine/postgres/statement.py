"""What a statement of a user says: its `:name` parameters numbered as PostgreSQL wants them, and what it may do.

Standard library only, and no database: PostgreSQL itself loads this file, and it is a function of the text alone.
How PostgreSQL reads SQL: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from apiary.runtime.errors import DatabaseError, RuleBroken

TOKEN = re.compile(
    r"""
      (?P<space>\s+ | --[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<string>
          [eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'(?:\s*[\n\r]\s*'[^'\\]*(?:(?:\\.|'')[^'\\]*)*')*
        | '[^']*(?:''[^']*)*'
        | \$(?P<tag>[^\W\d]\w*)?\$.*?\$(?(tag)(?P=tag))\$)
    | (?P<quoted>"[^"]*(?:""[^"]*)*")
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
ROWS = frozenset({"delete", "insert", "merge", "update"})
COMMANDS = frozenset(
    {"alter", "analyze", "call", "comment", "create", "do", "drop", "grant", "import", "lock", "reassign", "refresh",
     "revoke", "security", "truncate"}
)  # fmt: skip
"""Statements that change something, but not as one plan for some rows."""

WRITING_WORDS = frozenset({"insert", "update", "delete", "merge", "into"})
LOCKING_WORDS = frozenset({"update", "share", "no", "key"})
TRANSACTION = ("begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare")
FORBIDDEN = {
    **dict.fromkeys(
        (*TRANSACTION, "execute"), "transactions begin and end with the function; raise an exception to roll back"
    ),
    **dict.fromkeys(("set", "reset", "discard", "deallocate", "load"), "it would outlive the call"),
    **dict.fromkeys(("listen", "unlisten", "notify"), "nobody listens on this connection"),
    **dict.fromkeys(("declare", "fetch", "move", "close"), "a result is read at once"),
    **dict.fromkeys(("copy", "vacuum", "cluster", "checkpoint", "reindex"), "it is for administrators"),
}
OUTLIVING = {
    "set_config": "a setting would outlive the call, in its batch or in its session",
    **dict.fromkeys(
        (
            "pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared",
            "pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all",
        ),
        "a lock of the session would outlive the call; pg_advisory_xact_lock is one of the transaction",
    ),
}  # fmt: skip
"""Functions that no statement calls."""
TEMPORARY = frozenset({"temp", "temporary"})
BEFORE_TEMPORARY = frozenset({"or", "replace", "global", "local"})
PLATFORM = "apiary"
OPERANDS = frozenset({"word", "number", "parameter", "string", "quoted"})
NO_OPERANDS = frozenset(
    {"and", "array", "between", "case", "else", "ilike", "in", "is", "like", "not", "or", "then", "when"}
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as it was written (`source`), and with its parameters as `$1`, `$2`, … in the order of `names`.

    `fragments` are the pieces of it around the parameters, `places` the parameters between those. `reads_only` says
    that it cannot write by itself, `is_command` that it counts no rows and is not planned before it runs.
    """

    source: str
    sql: str
    names: tuple[str, ...] = ()
    reads_only: bool = False
    is_command: bool = False
    fragments: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    def values(self, given: Mapping[str, object]) -> list[object]:
        """The given parameters in the order of `names`; `DatabaseError` where they are not the ones it has."""
        if len(given) != len(self.names):
            raise self._wrong_names(given)
        try:
            return [given[name] for name in self.names]
        except KeyError:
            raise self._wrong_names(given) from None

    def cast(self, types: Sequence[str | None]) -> str:
        """The statement with each parameter cast to its type, where one is given."""
        if not any(types):
            return self.sql
        numbered = enumerate(types, start=1)
        written = [f"${number}" if kind is None else f"(${number}::{kind})" for number, kind in numbered]
        return _joined(self.fragments, self.places, written)

    def with_literals(self, values: Sequence[str | None]) -> str:
        """The statement with values in the places of its parameters, whose types the server infers from around them."""
        return _joined(self.fragments, self.places, [_literal(value) for value in values])

    def _wrong_names(self, given: Mapping[str, object]) -> DatabaseError:
        missing = sorted(set(self.names) - set(given))
        extra = sorted(set(given) - set(self.names))
        what = f"no value for :{missing[0]}" if missing else f"the statement has no :{extra[0]}"
        return DatabaseError(f"{what} in: {' '.join(self.source.split())[:200]}")


def parse(sql: str, *, trusted: bool = False) -> Statement:
    """Read a statement. `DatabaseError` where it is none, or more than one; `RuleBroken` where no function may run it.

    A `trusted` one is the platform's own, for which there are no rules.
    Strings, dollar quotes, quoted names, casts (`::`) and slices (`a[1:2]`) stay as they are.
    """
    tokens = list(_tokens(sql))
    solid = [token for token in tokens if token[0] != "space"]
    words = _words(solid)
    if not trusted:
        _check(words)
        _check_owners(solid)
        _check_calls(solid)
    names: dict[str, int] = {}
    fragments = [""]
    places = []
    for kind, text in tokens:
        if kind == "parameter":
            places.append(names.setdefault(text[1:], len(names)))
            fragments.append("")
        elif kind != "end":
            fragments[-1] += text
    numbered = _joined(fragments, places, [f"${number}" for number in range(1, len(names) + 1)])
    is_command = words[0] in COMMANDS or words[0] in ("explain", "show")
    return Statement(sql, numbered, tuple(names), _reads_only(words), is_command, tuple(fragments), tuple(places))


def check_script(sql: str) -> None:
    """`RuleBroken` where a migration ends its transaction, makes what is temporary, or uses what is not the app's."""
    tokens = [token for token in _tokens(sql) if token[0] != "space"]
    _check_owners(tokens)
    for words in _statements(tokens):
        if words[0] in TRANSACTION:
            raise RuleBroken(f"{words[0]} cannot be used: the migrations of a deploy are one transaction")
        if _is_temporary(words):
            raise RuleBroken("what is temporary would be gone before the app could use it")


def _statements(tokens: Sequence[tuple[str, str]]) -> Iterator[list[str]]:
    """The words of each statement of a script. The body of a function, from `begin atomic` to `end`, is part of one."""
    words: list[str] = []
    depth = 0
    for kind, text in [*tokens, ("end", ";")]:
        if kind == "end" and not depth and words:
            yield words
            words = []
        elif kind == "word":
            word = text.lower()
            if depth:
                depth += (word == "case") - (word == "end")
            elif word == "atomic" and words[-1:] == ["begin"]:
                depth = 1
            words.append(word)


def _words(tokens: Sequence[tuple[str, str]]) -> list[str]:
    """The words of a statement that are not qualified; `DatabaseError` where it is none, or more than one."""
    words = [
        text.lower() for (_, before), (kind, text) in pairwise([("", ""), *tokens]) if kind == "word" and before != "."
    ]
    if any(kind == "end" for kind, _ in tokens[:-1]):
        raise DatabaseError("more than one statement at once", hint="call execute once for each")
    if any(kind == "positional" for kind, _ in tokens):
        raise DatabaseError("parameters are written :name", hint="write `where id = :id`, and pass id=…")
    if not words:
        raise DatabaseError("the statement is empty")
    return words


def _tokens(sql: str) -> Iterator[tuple[str, str]]:
    """The tokens of a text, by kind. A comment is a space; in a subscript, a colon after an operand belongs to a slice.

    https://www.postgresql.org/docs/current/arrays.html#ARRAYS-ACCESSING
    """
    if "\0" in sql:
        raise DatabaseError("the statement has a NUL character")
    at, operand = 0, False
    subscripts: list[bool] = []
    while at < len(sql):
        match = TOKEN.match(sql, at)
        assert match is not None, "the last alternative takes any character"
        kind, text = match.lastgroup or "", match[0]
        at = match.end()
        if kind == "comment":
            at = _end_of_comment(sql, at)
            kind, text = "space", " "
        elif kind == "parameter" and operand and subscripts and subscripts[-1]:
            kind, text, at = "other", ":", match.start() + 1
        if kind != "space":
            if text in ("[", "("):
                subscripts.append(text == "[" and operand)
            elif text in ("]", ")") and subscripts:
                subscripts.pop()
            operand = text in ("]", ")") or (kind in OPERANDS and text.lower() not in NO_OPERANDS)
        yield kind, text


def _end_of_comment(sql: str, at: int) -> int:
    """Where a comment ends that began before `at`; comments nest."""
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    raise DatabaseError("a comment in the statement has no end")


def _joined(fragments: Sequence[str], places: Sequence[int], written: Sequence[str]) -> str:
    """The fragments with the parameters between them, as they are `written`."""
    parts = [fragments[0]]
    for place, fragment in zip(places, fragments[1:], strict=True):
        parts += [written[place], fragment]
    return "".join(parts).strip()


def _literal(value: str | None) -> str:
    if value is None:
        return "null"
    return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "' "


def _check_owners(tokens: Sequence[tuple[str, str]]) -> None:
    """Refuse what is qualified with the name of one of the platform's schemas."""
    for name in _names(tokens, "."):
        if name == PLATFORM or name.startswith(f"{PLATFORM}_"):
            raise RuleBroken(f"{name} is not the app's own: names that begin with {PLATFORM}_ belong to the platform")


def _check_calls(tokens: Sequence[tuple[str, str]]) -> None:
    """Refuse calls of functions that change the session."""
    for name in _names(tokens, "("):
        if name in OUTLIVING:
            raise RuleBroken(f"{name} cannot be called here: {OUTLIVING[name]}")


def _names(tokens: Sequence[tuple[str, str]], before: str) -> Iterator[str]:
    """The names that stand before this."""
    for (kind, text), (_, after) in pairwise(tokens):
        if after == before and kind in ("word", "quoted"):
            yield text.strip('"') if kind == "quoted" else text.lower()


def _check(words: list[str]) -> None:
    reason = FORBIDDEN.get(words[0])
    if reason is None and _is_temporary(words):
        reason = "what is temporary would outlive the call; use a common table expression"
    if reason is not None:
        raise RuleBroken(f"this statement cannot be run here: {reason}")


def _is_temporary(words: list[str]) -> bool:
    if words[0] == "create":
        what = next((word for word in words[1:] if word not in BEFORE_TEMPORARY), "")
        return what in TEMPORARY or "pg_temp" in words
    triples = zip(["", *words], words, words[1:], strict=False)
    return any(
        into == "into" and after in TEMPORARY and before not in ("insert", "merge") for before, into, after in triples
    )


def _reads_only(words: list[str]) -> bool:
    """Whether a statement looks as if it only read. A function that it calls may still write."""
    if words[0] in ROWS | COMMANDS or WRITING_WORDS.intersection(words):
        return False
    return not any(word == "for" and after in LOCKING_WORDS for word, after in pairwise(words))
