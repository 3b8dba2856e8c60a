"""What a workflow that failed is still to do: undo what was done, the last first, and end with what it failed with.

Where that takes more than one run, it is written down, and followed without the body: that might come elsewhere now,
after part of it was undone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNDOING = "undoing"
"""The state of a workflow whose undoing was written down."""


@dataclass(frozen=True, slots=True)
class Undo:
    """An operation, by its number, and the function that undoes it, with these arguments or with its result."""

    number: int
    function: str
    input: bytes | None


@dataclass(slots=True)
class Failure:
    """What a workflow failed with, as its record will tell it, and what could not be undone.

    `undos` are in the order in which they were asked for; `actions` were begun, each a number, a function, arguments.
    """

    status: str
    error: dict[str, Any]
    cause: BaseException | None
    lines: list[dict[str, Any]] = field(default_factory=list)
    undos: list[Undo] = field(default_factory=list)
    actions: list[tuple[int, str, bytes]] = field(default_factory=list)

    def remained(self, undo: Undo, why: BaseException) -> None:
        """Something could not be undone."""
        self.error.setdefault("not_undone", []).append(f"{undo.function}: {type(why).__name__}: {why}")

    def written(self) -> bytes:
        """All of it but the exception, as JSON."""
        undos = [[undo.number, undo.function, undo.input and undo.input.decode()] for undo in self.undos]
        actions = [[number, function, given.decode()] for number, function, given in self.actions]
        members = {"status": self.status, "error": self.error, "lines": self.lines, "undos": undos, "actions": actions}
        return json.dumps(members).encode()


def read_failure(written: bytes) -> Failure:
    """What was written down."""
    members: Mapping[str, Any] = json.loads(written)
    return Failure(
        members["status"],
        members["error"],
        None,
        members["lines"],
        [Undo(number, function, given and given.encode()) for number, function, given in members["undos"]],
        [(number, function, given.encode()) for number, function, given in members["actions"]],
    )
