"""Two lanes in one: a call runs inside the database, unless its function asks to be run beside it.

Workflows run beside it then, too, with all that they run: they may run functions of both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

from apiary.engine.postgres.lane import PostgresLane
from apiary.engine.protocol import Committed
from apiary.runtime.call import Program
from apiary.runtime.declaration import Kind
from apiary.runtime.session import Call, Record

BESIDE = "host"


class PlacedLane:
    """A lane of an app that has functions of both kinds. What belongs to one batch may commit in two transactions."""

    def __init__(self, inside: PostgresLane, beside: PostgresLane, program: Program) -> None:
        self._inside = inside
        self._beside = beside
        functions = {name: bound.function for name, bound in program.functions.items()}
        self._functions = {
            name
            for name, function in functions.items()
            if function.options.placement == BESIDE or function.kind is Kind.WORKFLOW
        }

    def run(self, calls: Sequence[Call], records: Sequence[Record] = ()) -> Committed:
        """Run each call where it belongs."""
        there = [call for call in calls if call.function in self._functions]
        if not there:
            return self._inside.run(calls, records)
        here = [call for call in calls if call.function not in self._functions]
        first = self._inside.run(here, records) if here or records else Committed((), durable=True)
        second = self._beside.run(there)
        outcomes = dict(zip(map(id, [*here, *there]), [*first.outcomes, *second.outcomes], strict=True))
        return Committed(
            [outcomes[id(call)] for call in calls],
            [*first.queued, *second.queued],
            [*first.lost, *second.lost],
            durable=True,
            doubt=first.doubt or second.doubt,
        )

    def begin(self) -> bool:
        """Each run begins by itself."""
        return True

    def open(self) -> None:
        """Connect both."""
        self._inside.open()
        self._beside.open()

    def take_records(self) -> list[Record]:
        return self._inside.take_records() + self._beside.take_records()

    def confirm(self, done: Committed) -> None:
        """What is read here is durable."""

    def interrupt(self) -> None:
        self._inside.interrupt()
        self._beside.interrupt()

    def close(self) -> None:
        self._inside.close()
        self._beside.close()
