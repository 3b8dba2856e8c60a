"""What a workload is, as data: operations, their shares, and how their arguments are drawn.

One description, two renderings: `lua.py` turns it into a wrk script, `stream.py` into requests for the open-loop
driver, the latency probe and the floor. Expressions are arithmetic that Lua and Python read alike.
"""

from dataclasses import dataclass

UNIFORM = "uniform"
ZIPF = "zipf"
ZIPF_EXPONENT = 1.5
SCATTER = 7919  # a prime: spreads the hot ranks of the Zipf law over the key space


@dataclass(frozen=True)
class Key:
    """A key in 1..count: uniform, or Zipf-distributed in the skewed variant."""

    count: int


@dataclass(frozen=True)
class Range:
    """A whole number in first..last, always uniform."""

    first: int
    last: int


@dataclass(frozen=True)
class Word:
    """One of some texts, skewed like a key. Texts hold letters, digits and spaces only."""

    words: tuple[str, ...]


Draw = Key | Range | Word


@dataclass(frozen=True)
class Operation:
    """One kind of request: `draws` are made in order, `sends` are the JSON arguments as expressions over them."""

    function: str
    share: float
    draws: dict[str, Draw]
    sends: dict[str, str]
    reads_only: bool = False


@dataclass(frozen=True)
class Load:
    """A loading function of the app: called as function(first, last) over 1..rows, `batch` rows a call."""

    function: str
    rows: int
    batch: int


@dataclass(frozen=True)
class Workload:
    """A mix of operations on one app.

    `effects` names a query that counts what has taken effect, where each request has exactly one effect: the harness
    compares it with the answers received. `violations` names a query that must answer 0 after all runs. `clients`
    takes the place of the plan's number of clients. Calls of a `queued` workload are enqueued, and then waited for.
    """

    name: str
    app: str
    about: str
    operations: tuple[Operation, ...]
    load: tuple[Load, ...]
    effects: str | None = None
    violations: str | None = None
    clients: int | None = None
    queued: bool = False
    prefix: str = "/apps/"

    def path(self, function: str) -> str:
        return f"{self.prefix}{self.app}/{function}"
