"""The machine of a workflow: what its next operation means, given what is recorded. Values only, no database.

A workflow is ordinary Python that runs again from its records. Its operations are numbered in the order in which it
asks for them. What is recorded under a number is the answer; what is not is to be done, by `advance.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from apiary.runtime.errors import Nondeterministic

UNDO_FROM = 1 << 40
"""What a workflow undoes has numbers of its own, from here: its body may be anywhere when that begins."""
PAGE = 500
MAX_SHOWN = 200
VERSION_7 = 0x7 << 76
VARIANT = 0x2 << 62


class Op(StrEnum):
    """What a workflow asks for. The first four run a function of the app."""

    QUERY = "query"
    TRANSACTION = "transaction"
    ACTION = "action"
    WORKFLOW = "workflow"
    NOW = "now"
    SLEEP = "sleep"
    RECEIVE = "receive"
    SEND = "send"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a workflow asks for: a function and its arguments (JSON), or something of the platform's."""

    op: Op
    name: str
    input: bytes


@dataclass(frozen=True, slots=True)
class Step:
    """What is recorded of an operation: its outcome is `output` (JSON) where `error` (JSON) is none."""

    number: int
    id: bytes
    kind: str
    function: str
    input: bytes
    output: bytes | None = None
    error: str | None = None


Load = Callable[[int, int], Sequence[Step]]
"""The recorded steps from a number on, below another one, in order."""


class History:
    """The steps of a workflow that are recorded, read a page at a time, since there may be very many."""

    def __init__(self, load: Load | None) -> None:
        self._load = load
        self._page: dict[int, Step] = {}
        self._first = self._end = 0

    def add(self, step: Step) -> None:
        """Remember a step that was just recorded."""
        self._page[step.number] = step

    def get(self, number: int) -> Step | None:
        """What is recorded under this number."""
        if self._load is not None and not self._first <= number < self._end:
            self._first, self._end = number, number + PAGE
            self._page = {step.number: step for step in self._load(self._first, self._end)}
        return self._page.get(number)


class Machine:
    """Numbers the operations of one workflow, and holds each against its record."""

    def __init__(self, workflow: bytes, history: History, first: int) -> None:
        self.workflow = workflow
        self.next = first
        self._history = history
        self._undo_next = UNDO_FROM + first

    def begin(self, operation: Operation, *, undoing: bool = False) -> tuple[int, Step | None]:
        """The number of the next operation, and its record if it has one; `Nondeterministic` where that is another."""
        if undoing:
            number, self._undo_next = self._undo_next, self._undo_next + 1
        else:
            number, self.next = self.next, self.next + 1
        step = self._history.get(number)
        if step is not None and not fits(step, operation):
            raise Nondeterministic(
                f"step {number} was {_shown(step.kind, step.function, step.input)}, and is now "
                f"{_shown(operation.op, operation.name, operation.input)}",
                step=number,
            )
        return number, step

    def record(self, step: Step) -> None:
        """An operation was done."""
        self._history.add(step)

    def look(self, number: int) -> Step | None:
        """What is recorded under a number that was begun."""
        return self._history.get(number)


def fits(step: Step, operation: Operation) -> bool:
    """Whether a record is that of this operation."""
    if step.function != operation.name or step.kind != operation.op:
        return False
    return step.input == operation.input or json.loads(step.input) == json.loads(operation.input)


def step_id(workflow: bytes, number: int) -> bytes:
    """The id of the call that is a step: a UUIDv7 of the workflow's time, the same whenever it is asked for."""
    drawn = int.from_bytes(hashlib.sha256(workflow + number.to_bytes(8, "big")).digest()[:10], "big")
    sequence, random = drawn >> 62 & 0xFFF, drawn & 0x3FFF_FFFF_FFFF_FFFF
    time = int.from_bytes(workflow[:6], "big")
    return (time << 80 | VERSION_7 | sequence << 64 | VARIANT | random).to_bytes(16, "big")


def _shown(op: str, name: str, arguments: bytes) -> str:
    text = arguments.decode()
    return f"{op} {name}({text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'})"
