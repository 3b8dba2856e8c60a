"""What happens in a server, as values: whoever wants to watch (metrics, `apiary dev`) subscribes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call came to its end. `duration` in microseconds; `problem` is the problem document of a failure.

    `queued`: nobody waited for it.
    """

    app: str
    function: str
    call_id: bytes
    duration: int
    problem: dict[str, Any] | None
    queued: bool = False


@dataclass(frozen=True, slots=True)
class WorkflowBegun:
    """A workflow began, and its caller does not wait for its end (any more), of which `CallEnded` tells."""

    app: str
    function: str
    call_id: bytes


@dataclass(frozen=True, slots=True)
class WorkflowBlocked:
    """A workflow cannot go on before somebody mends it; `problem` is the problem document that says why."""

    app: str
    function: str
    call_id: bytes
    problem: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call did not reach its host. The names are the client's, and may be any text; `code` is the platform's."""

    app: str
    function: str
    code: str


@dataclass(frozen=True, slots=True)
class Migrating:
    """A new version of an app begins to migrate; calls that write wait until it has ended."""

    app: str
    version: str
    migrations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Activated:
    """A version of an app began to serve. `migrations` are those that were applied for it."""

    app: str
    version: str
    migrations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostDied:
    """A host ended without being asked to; it is started again. `calls` were in flight."""

    app: str
    version: str
    pid: int
    reason: str
    calls: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """A host of this app has taken over all that other hosts left, whose identities these are.

    `lost`: they were hosts of a server that is lost; else they were of this one.
    """

    app: str
    hosts: tuple[str, ...]
    lost: bool


@dataclass(frozen=True, slots=True)
class WorkflowsDropped:
    """Of so many workflows, which ended long ago, what they did is not kept any more; these were so many steps."""

    app: str
    workflows: int
    steps: int


@dataclass(frozen=True, slots=True)
class RecordsDropped:
    """So many records of queries were not written, and so many without what they read: the log could not keep up."""

    app: str
    records: int
    effects: int


Event = (
    CallEnded
    | CallRefused
    | WorkflowBegun
    | WorkflowBlocked
    | WorkflowsDropped
    | Migrating
    | Activated
    | HostDied
    | Adopted
    | RecordsDropped
)
Watcher = Callable[[Event], None]
