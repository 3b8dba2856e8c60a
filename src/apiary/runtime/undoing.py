"""What a workflow that failed is still to do: undo what was done, the last first, and end with what it failed with.

Where that takes more than one run, it is written into its row in the queue, and followed without the body: that might
come elsewhere now, after part of it was undone. It is written as it is, secrets included, so it leaves with that row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apiary.runtime.session import NEVER, Instance, WorkflowSession

CANCELLING = "cancelling"
"""The state of a workflow that ends at its next step: cancelled or, where it has a problem, given up for that."""
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
    `children` were cancelled, and end before anything is undone. `counted`: an earlier release has begun this, which
    numbered what it undid in its order, not by what it undid.
    """

    status: str
    error: dict[str, Any]
    cause: BaseException | None
    lines: list[dict[str, Any]] = field(default_factory=list)
    undos: list[Undo] = field(default_factory=list)
    actions: list[tuple[int, str, bytes]] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    counted: bool = False

    def remained(self, undo: Undo, why: BaseException) -> None:
        """Something could not be undone."""
        self.error.setdefault("not_undone", []).append(f"{undo.function}: {type(why).__name__}: {why}")

    def written(self) -> str:
        """All of it but the exception, as JSON."""
        undos = [[undo.number, undo.function, undo.input and undo.input.decode()] for undo in self.undos]
        actions = [[number, function, given.decode()] for number, function, given in self.actions]
        members = {
            "status": self.status,
            "error": self.error,
            "lines": self.lines,
            "undos": undos,
            "actions": actions,
            "children": self.children,
            "counted": self.counted,
        }
        return json.dumps(members)


def read_failure(written: str) -> Failure:
    """What was written down."""
    members: Mapping[str, Any] = json.loads(written)
    return Failure(
        members["status"],
        members["error"],
        None,
        members["lines"],
        [Undo(number, function, given and given.encode()) for number, function, given in members["undos"]],
        [(number, function, given.encode()) for number, function, given in members["actions"]],
        members["children"],
        members.get("counted", True),
    )


def end_early(session: WorkflowSession, instance: Instance, version: str, problem: str | None = None) -> None:
    """Let a workflow end at its next step, as cancelled or, for a `problem` (JSON), as failed; it undoes first."""
    if instance.state != UNDOING:
        given_up = instance.problem if instance.state == CANCELLING else None
        instance.state, instance.problem, instance.acting = CANCELLING, problem or given_up, False
        if not instance.version:  # it does not wait for its turn to be told
            instance.version, instance.due = version, NEVER
        session.keep_instance(instance, fresh=False)
    session.wake(instance.id, None)
