"""What an engine must offer the runtime inside a transaction, and the values that pass between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from apiary.runtime.result import Result


@dataclass(frozen=True, slots=True)
class Call:
    """One request to run a function.

    `input` is a JSON object (UTF-8). `key` is the caller's idempotency key. `lax` says that the values come
    from a query string, where every value is text. `digest` stands for its secrets in the record, where it has a key:
    made before the call gets to a lane, because that is slow on purpose.
    """

    id: bytes
    function: str
    input: bytes
    caller: str = ""
    roles: frozenset[str] = frozenset()
    key: str | None = None
    parent: bytes | None = None
    attempt: int = 1
    queued: bool = False
    lax: bool = False
    digest: str | None = None


@dataclass(slots=True)
class Record:
    """The row that the log keeps of a call. Times in microseconds, `started` since 1970 (UTC).

    `status` is `ok`, `rejected`, `failed` (the function raised) or `stopped` (it was ended by the platform,
    which is no outcome: the call may run again). `lines` and `nested` are JSON lists: what the function
    logged, and the functions it called inside its own transaction. `queued` says that it came from the queue.
    """

    id: bytes
    function: str
    kind: str
    version: str
    caller: str
    attempt: int
    started: int
    duration: int
    status: str
    input: bytes
    output: bytes | None = None
    error: str | None = None
    lines: str | None = None
    parent: bytes | None = None
    key: str | None = None
    nested: str | None = None
    queued: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to: `output` (JSON) where `error` is none.

    `replayed` is the id of the earlier call whose recorded outcome this is, if so. `cause` is the
    exception of the user's code, for callers in the same process. `duration` is in microseconds.
    """

    output: bytes = b""
    error: dict[str, Any] | None = None
    replayed: bytes | None = None
    cause: BaseException | None = None
    duration: int = 0


@dataclass(frozen=True, slots=True)
class Queued:
    """A call that waits in the queue until `due` (microseconds since 1970).

    `attempts` came to no outcome: the platform ended them, or they were lost with their process, as `deaths` were.
    """

    id: bytes
    function: str
    input: bytes
    caller: str
    parent: bytes | None
    due: int
    attempts: int = 0
    deaths: int = 0


Part = Literal["call", "nested"]
"""A part of a transaction that can be undone by itself. Undoing or releasing a call ends all that is nested in it."""


class Session(Protocol):
    """A transaction of some engine, as the runtime sees it. Where it is not `recording`, records are left out."""

    recording: bool

    def execute(self, sql: str, parameters: Mapping[str, Any], read_only: bool) -> Result:
        """Run one statement of the user's function; `RuleBroken` where it writes and `read_only` is set."""

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Run one statement once for each row; returns how many rows changed."""

    def savepoint(self, part: Part) -> None:
        """Begin a part that can be undone by itself."""

    def release(self, part: Part) -> None:
        """Keep the latest part of this kind."""

    def undo(self, part: Part) -> None:
        """Undo the latest part of this kind, what it put into the queue included, and end it."""

    def enqueue(self, queued: Queued) -> None:
        """Put a call into the queue, in this transaction."""

    def record(self, record: Record) -> None:
        """Write the record of a call, in this transaction; raises `Duplicate` where there is one already."""
