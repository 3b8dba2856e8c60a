"""The servers that share one database, as each of them sees it: who lives, and what those left that do not.

A server and each of its hosts have an identity, which is fresh for every process and never used again. A server keeps
its lease by a sign of life about every second. Whoever finds a lease that has run out declares that server lost, and
from then on nothing that its hosts began can be committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

BEATS = 3
"""Signs of life in a lease."""


@dataclass(frozen=True, slots=True)
class Left:
    """A host that is gone and may have left calls behind. `ended`: nothing that it began can be committed any more."""

    host: UUID
    app: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Beat:
    """What a server hears with every sign of life. `server` is its identity.

    `expelled`: it was declared lost, and has joined again under this identity; its hosts must have new ones, too.
    `others`: the servers that live beside it; `leaving`: those that are lost, whose hosts may still do something.
    `taken`: the apps whose queue a host of another server runs.
    """

    server: str
    expelled: bool
    others: frozenset[str]
    leaving: frozenset[str]
    taken: frozenset[str]
    left: Sequence[Left]


@dataclass(frozen=True, slots=True)
class Changed:
    """Somebody told all servers of a change. `what`: `registry` or `deployment`."""

    what: str


@dataclass(frozen=True, slots=True)
class Awaited:
    """A server that has not followed a deployment so far yet, or cannot, for some `problem`."""

    description: str
    problem: str | None


Tell = Callable[[Beat | Changed], None]


class Members(Protocol):
    """The servers of one database, seen by one of them, whose identity is `server`.

    `alone`: it is the only one, for good.
    """

    alone: bool

    def join(self, description: str, tell: Tell) -> None:
        """Become one of them. `tell` is called from another thread, until `leave`."""

    def add_host(self, server: str, host: UUID, app: str, version: str) -> bool:
        """Make a new process known before it opens its database; `False` where this server was declared lost."""

    def end_host(self, host: UUID, *, served: bool) -> None:
        """A process of this server has ended. If it `served`, it may have left calls behind, and others hear of it."""

    def forget(self, hosts: Sequence[UUID]) -> None:
        """What these hosts left has been taken over."""

    def acts(self, server: str) -> bool:
        """Whether a server may do something yet: it lives, or its hosts have not ended."""

    def acknowledge(self, server: str, deployment: str, state: str, problem: str | None) -> None:
        """This server has followed a deployment to this state, or cannot."""

    def awaited(self, server: str, deployment: str, state: str) -> list[Awaited]:
        """The others that have not come to this state of a deployment yet, or cannot."""

    def conclude(self, deployment: str) -> None:
        """A deployment is over."""

    def claim_queue(self, server: str, app: str) -> bool:
        """Whether hosts of this server run the queue of an app; nobody else's do then, until this server is gone."""

    def release_queue(self, server: str, app: str) -> None:
        """No host of this server runs the queue of an app any more."""

    def hurry(self) -> None:
        """Give the next sign of life at once."""

    def listed(self) -> list[dict[str, Any]]:
        """The servers with their hosts, in JSON's types."""

    def leave(self) -> None:
        """Be none of them any more; the hosts have ended."""


class Alone:
    """One server owns its folder and has nobody beside it."""

    alone = True

    def join(self, description: str, tell: Tell) -> None:
        pass

    def add_host(self, server: str, host: UUID, app: str, version: str) -> bool:
        return True

    def end_host(self, host: UUID, *, served: bool) -> None:
        pass

    def forget(self, hosts: Sequence[UUID]) -> None:
        pass

    def acts(self, server: str) -> bool:
        return False

    def acknowledge(self, server: str, deployment: str, state: str, problem: str | None) -> None:
        pass

    def awaited(self, server: str, deployment: str, state: str) -> list[Awaited]:
        return []

    def conclude(self, deployment: str) -> None:
        pass

    def claim_queue(self, server: str, app: str) -> bool:
        return True

    def release_queue(self, server: str, app: str) -> None:
        pass

    def hurry(self) -> None:
        pass

    def listed(self) -> list[dict[str, Any]]:
        return []

    def leave(self) -> None:
        pass
