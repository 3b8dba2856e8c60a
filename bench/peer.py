"""The protocol of a peer: a product that is set up, loaded, measured through its own front door, and ended.

To add a peer: one file in `bench/peers/` with a class that has these members, and a line in `bench/peers/__init__.py`.
Every peer answers POST /apps/{app}/{function} with the same JSON, on a loopback port.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from bench.mix import Workload


class Peer(Protocol):
    name: str
    guarantees: str
    lacks: str
    port: int

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
