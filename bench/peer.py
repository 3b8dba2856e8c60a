"""The protocol of a peer: a product that is set up, loaded, measured through its own front door, and ended.

To add a peer: one file in `bench/peers/` with a class that has these members, and a line in `bench/peers/__init__.py`.
Every peer answers POST {prefix}{app}/{function} with the same JSON, on a loopback port, or is a `Library`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bench.closed_loop import Measured
from bench.mix import Workload
from bench.postgres import Postgres
from bench.probe import Connection


class Peer(Protocol):
    """What the harness asks of every peer.

    `lacks`: what others guarantee and it does not; tables tell it. A `floor` is no product: its answers are its own.
    """

    name: str
    workloads: frozenset[str]
    guarantees: str
    lacks: str
    port: int
    prefix: str
    floor: bool

    def set_up(self, workload: Workload) -> None:
        """Start everything, make the tables, load the data set."""

    def tune(self, trial: Callable[[], float]) -> None:
        """Choose among settings by `trial`, which loads the peer briefly and returns requests/s."""

    def launch(self) -> None:
        """Start the front door again after `halt`; returns before it answers."""

    def halt(self) -> None:
        """End the front door only; a separate database server stays."""

    def processes(self) -> Mapping[str, list[int]]:
        """The ids of the running processes by their role."""

    def network(self) -> list[int]:
        """The ids of the processes that stand for a network within the peer; none where all is on one machine."""

    def settings(self) -> Mapping[str, str]:
        """What a reader needs to judge the set-up."""

    def tear_down(self) -> None:
        """End everything and remove its files."""


@runtime_checkable
class Deploys(Protocol):
    """A peer that takes new code while it serves."""

    def deploy(self, app_folder: Path) -> None:
        """Put a changed version of the app into service; returns when the deploying command ends."""


@runtime_checkable
class Library(Protocol):
    """A peer without a front door of its own: it is called, and loaded, inside its program."""

    def call(self, workload: Workload, function: str, arguments: Mapping[str, Any]) -> Any:
        """The result of one call; raises `CallFailed`."""

    def load(self, workload: Workload, keys: str, seed: int, clients: int, seconds: float) -> Measured:
        """A closed loop of so many clients."""


@runtime_checkable
class Queues(Protocol):
    """A peer that takes calls for later over HTTP."""

    def enqueue(self, connection: Connection, path: str, arguments: dict[str, Any]) -> Any:
        """Enqueue a call of the function at this path, wait for it as the product recommends, return its result."""


@runtime_checkable
class KeepsDataInPostgres(Protocol):
    """A peer with a PostgreSQL of its own."""

    postgres: Postgres
