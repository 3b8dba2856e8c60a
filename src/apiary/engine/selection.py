"""Reads a `select`, as far as its text alone tells: of which tables its rows are made, and where columns may be added.

Columns that are added to the end of the list of a plain select change neither the others nor which rows there are.
Where rows are joined to one (`distinct`, `group by`, aggregates, compounds) there is no such place. What is not
understood has none either: nothing is rewritten on a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

TOKEN = re.compile(
    r"""
      (?P<space>\s+ | --[^\n]* | /\*.*?(?:\*/|$))
    | (?P<string>'[^']*(?:''[^']*)*')
    | (?P<quoted>"[^"]*(?:""[^"]*)*" | `[^`]*(?:``[^`]*)*` | \[[^\]]*\])
    | (?P<parameter>[:@$]\w+)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
JOINED = frozenset({"distinct", "union", "intersect", "except", "group", "having", "over", "window"})
"""Words of a select whose rows are no rows of its tables, or are made of several."""
AGGREGATES = frozenset(
    {"avg", "count", "group_concat", "json_group_array", "json_group_object", "jsonb_group_array", "jsonb_group_object",
     "max", "median", "min", "percentile", "percentile_cont", "percentile_disc", "string_agg", "sum", "total"}
)  # fmt: skip
AFTER_TABLES = frozenset({"where", "order", "limit"})
NO_ALIAS = AFTER_TABLES | frozenset(
    {"cross", "full", "indexed", "inner", "join", "left", "natural", "not", "on", "outer", "right", "using"}
)


@dataclass(frozen=True, slots=True)
class Source:
    """A table in the list of those that a select reads, and the name by which the select knows it, as it is written."""

    table: str
    alias: str


@dataclass(frozen=True, slots=True)
class Selection:
    """A plain select. Columns may be added before the character at `place`.

    `simple`: no column of its result is of anything but its `sources`. `nested`: what else it may read, in lower case.
    """

    sources: tuple[Source, ...]
    place: int
    simple: bool
    nested: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int
    depth: int

    @property
    def word(self) -> str:
        """The word, in lower case; empty where it is none."""
        return self.text.lower() if self.kind == "word" else ""

    @property
    def name(self) -> str | None:
        """The name that is written here, if one is."""
        if self.kind == "word":
            return self.text
        if self.kind == "quoted":
            end = self.text[-1]
            return self.text[1:-1].replace(end * 2, end)
        return None


def selection(sql: str) -> Selection | None:
    """What a select is made of; none where it is no plain one."""
    tokens = list(_tokens(sql))
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    outer = [token for token in tokens if token.depth == 0]
    begins = next((token for token in outer if token.word), None)
    if begins is None or begins.word not in ("select", "with"):
        return None
    first = next((token for token in outer if token.word in ("select", "values")), None)
    own = [token for token in outer if first is not None and token.at > first.at]
    start = next((token for token in own if token.word == "from"), None)
    if first is None or first.word != "select" or start is None or JOINED & {token.word for token in own}:
        return None
    listed = [token for token in tokens if first.at < token.at < start.at]
    if _aggregates(listed):
        return None
    shadowed = {token.text.lower() for token in outer if token.at < first.at and token.kind in ("word", "quoted")}
    after = [token for token in tokens if token.at > start.at]
    sources, plain = _sources(after)
    known = tuple(source for source in sources if source.table.lower() not in shadowed)
    simple = plain and first is begins and not any(token.word == "select" for token in listed)
    return Selection(known, start.at, simple, _nested(tokens))


def _tokens(sql: str) -> Iterator[_Token]:
    """The tokens but for spaces; a parenthesis has the depth of what is around it."""
    depth = 0
    for match in TOKEN.finditer(sql):
        kind, text = match.lastgroup or "", match[0]
        if kind == "space":
            continue
        depth -= text == ")"
        yield _Token(kind, text, match.start(), depth)
        depth += text == "("


def _nested(tokens: Sequence[_Token]) -> frozenset[str]:
    """The names in parentheses that may be those of tables."""
    inner = ((before, token) for before, token in pairwise(tokens) if token.depth and token.name is not None)
    return frozenset(
        str(token.name).lower()
        for before, token in inner
        if before.word in ("from", "join") or before.text in (",", ".")
    )


def _aggregates(listed: Sequence[_Token]) -> bool:
    """Whether a list of columns has an aggregate of its own, or one in a subquery that may belong here."""
    for position, token in enumerate(listed[:-1]):
        if token.word in AGGREGATES and listed[position + 1].text == "(":
            inside = [other for other in listed if other.depth == token.depth]
            if token.depth == 0 or not any(other.word == "from" for other in inside):
                return True
    return False


def _sources(tokens: Sequence[_Token]) -> tuple[list[Source], bool]:
    """The tables in a `from`, and whether there is nothing else in it."""
    sources: list[Source] = []
    plain = expected = True
    rest = [*tokens, _Token("end", "", 1 << 62, 0)]
    for position, token in enumerate(rest[:-1]):
        if token.depth:
            continue
        if token.word in AFTER_TABLES:
            break
        if token.text == "," or token.word == "join":
            expected = True
        elif expected and token.text == "(":
            plain = expected = False
        elif expected and token.name is not None and rest[position + 1].text != ".":
            expected = False
            source = _source(token, rest[position + 1 :])
            plain = plain and source is not None
            sources += [source] if source is not None else []
    return sources, plain


def _source(token: _Token, after: Sequence[_Token]) -> Source | None:
    """The table that is named here, by its alias; none where it is a function that makes rows."""
    name = token.name or ""
    if after[0].text == "(":
        return None
    given = after[1] if after[0].word == "as" else after[0]
    has_alias = given.name is not None and given.word not in NO_ALIAS
    return Source(name, given.text if has_alias else token.text)
