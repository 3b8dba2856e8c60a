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
from apiary.runtime.plain import same_json

UNDO_FROM = 1 << 40
"""What a workflow undoes has numbers of its own, above this one: its body may be anywhere when that begins."""
PAGE = 500
PAGES = 4
"""So many are held: a body may ask for early results while it begins late steps, or undoes them."""
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
    UNDO = "undo"


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
        self._added: dict[int, Step] = {}
        self._pages: dict[int, dict[int, Step]] = {}

    def add(self, step: Step) -> None:
        """Remember a step that was just recorded, and may be in no table yet."""
        self._added[step.number] = step

    def get(self, number: int) -> Step | None:
        """What is recorded under this number."""
        added = self._added.get(number)
        if added is not None or self._load is None:
            return added
        first = number - number % PAGE
        page = self._pages.pop(first, None)
        if page is None:
            page = {step.number: step for step in self._load(first, first + PAGE)}
            if len(self._pages) == PAGES:
                del self._pages[next(iter(self._pages))]
        self._pages[first] = page  # the last is the one that was used last
        return page.get(number)


class Machine:
    """Numbers the operations of one workflow, and holds each against its record."""

    def __init__(self, workflow: bytes, history: History, first: int) -> None:
        self.workflow = workflow
        self.next = first
        self._history = history
        self._undo_next = UNDO_FROM + first + 1

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

    def take_back(self, *, undoing: bool) -> None:
        """The operation that was begun last is not: it is asked for in the next run."""
        if undoing:
            self._undo_next -= 1
        else:
            self.next -= 1

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
    return step.input == operation.input or same_json(json.loads(step.input), json.loads(operation.input))


def step_id(workflow: bytes, number: int) -> bytes:
    """The id of the call that is a step: a UUIDv7 of the workflow's time, the same whenever it is asked for."""
    drawn = int.from_bytes(hashlib.sha256(workflow + number.to_bytes(8, "big")).digest()[:10], "big")
    sequence, random = drawn >> 62 & 0xFFF, drawn & 0x3FFF_FFFF_FFFF_FFFF
    time = int.from_bytes(workflow[:6], "big")
    return (time << 80 | VERSION_7 | sequence << 64 | VARIANT | random).to_bytes(16, "big")


def _shown(op: str, name: str, arguments: bytes) -> str:
    text = arguments.decode()
    return f"{op} {name}({text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'})"
