"""The machine of a workflow: what its next operation means, given what is recorded. Values only, no database.

A workflow is ordinary Python that runs again from its records. Its operations are numbered in the order in which it
asks for them. What is recorded under a number is the answer; what is not is to be done, by `advance.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from apiary.runtime.errors import Nondeterministic
from apiary.runtime.plain import same_json

UNDO_FROM = 1 << 40
"""What undoes a step has the number of that step, this much and one higher: the body may be anywhere when it begins."""
CONTINUED = 1 << 41
"""Under this number a workflow that has begun again keeps the arguments with which it began first."""
PAGE = 500
PAGES = 4
"""So many are held: a body may ask for early results while it begins late steps, or undoes them."""
MAX_HELD_BYTES = 8192
"""Larger arguments and results are read by themselves, when they are asked for."""
WHOLE = 1 << 62
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
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a workflow asks for: a function and its arguments (JSON), or something of the platform's."""

    op: Op
    name: str
    input: bytes


@dataclass(frozen=True, slots=True)
class Step:
    """What is recorded of an operation: its outcome is `output` (JSON) where `error` (JSON) is none.

    `omitted`: it has arguments and an output, of which one is large, and they are not here.
    """

    number: int
    id: bytes
    kind: str
    function: str
    input: bytes
    output: bytes | None = None
    error: str | None = None
    omitted: bool = False


Load = Callable[[int, int, int], Sequence[Step]]
"""The recorded steps from a number on, below another one, in order, without what has more bytes than this."""


class History:
    """The steps of a workflow that are recorded, read a page at a time, since there may be very many.

    What is large is read when it is asked for, and not held. `fresh`: in the tables is nothing but what was added.
    """

    def __init__(self, load: Load, *, fresh: bool = False) -> None:
        self._load = load
        self._fresh = fresh
        self._added: dict[int, Step] = {}
        self._pages: dict[int, dict[int, Step]] = {}
        self._last: Step | None = None

    def add(self, step: Step, *, in_table: bool) -> None:
        """Remember a step that was just recorded; one that is in no table yet, as a whole."""
        if in_table and len(step.input) + len(step.output or b"") > MAX_HELD_BYTES:
            self._last = step
            step = replace(step, input=b"", output=None, omitted=True)
        self._added[step.number] = step

    def get(self, number: int) -> Step | None:
        """What is recorded under this number, as a whole."""
        step = self._added.get(number)
        if step is None and not self._fresh:
            step = self._page(number).get(number)
        if step is None or not step.omitted:
            return step
        if self._last is None or self._last.number != number:
            (self._last,) = self._load(number, number + 1, WHOLE)
        return self._last

    def _page(self, number: int) -> dict[int, Step]:
        first = number - number % PAGE
        page = self._pages.pop(first, None)
        if page is None:
            page = {step.number: step for step in self._load(first, first + PAGE, MAX_HELD_BYTES)}
            if len(self._pages) == PAGES:
                del self._pages[next(iter(self._pages))]
        self._pages[first] = page  # the last is the one that was used last
        return page


class Machine:
    """Numbers the operations of one workflow, and holds each against its record."""

    def __init__(self, workflow: bytes, history: History, first: int) -> None:
        self.workflow = workflow
        self.next = first
        self._history = history

    def begin(self, operation: Operation, *, undoes: int | None = None) -> tuple[int, Step | None]:
        """The number of the next operation, and its record if it has one; `Nondeterministic` where that is another.

        `undoes`: it is not of the body, but undoes the one of this number.
        """
        if undoes is not None:
            number = UNDO_FROM + undoes + 1
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

    def take_back(self) -> None:
        """The operation of the body that was begun last is not: it is asked for in the next run."""
        self.next -= 1

    def record(self, step: Step, *, in_table: bool) -> None:
        """An operation was done, and its record written, if it is `in_table`."""
        self._history.add(step, in_table=in_table)

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
