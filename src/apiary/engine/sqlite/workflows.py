"""The rows of workflows in a SQLite file, for the session of a lane."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from apiary.engine.sqlite.errors import UNIQUE, extended_code, translate
from apiary.engine.statements import load_statements
from apiary.runtime.errors import ConstraintViolated, Duplicate
from apiary.runtime.machine import WHOLE, Step
from apiary.runtime.session import Instance, Queued, Record
from apiary.runtime.transaction import now_microseconds

SQL = load_statements("apiary.engine.sqlite", "statements.sql")


class WorkflowRows:
    """What `WorkflowSession` adds to a session."""

    connection: apsw.Connection
    enqueued: list[Queued]
    records: list[Record]

    def enqueue(self, queued: Queued) -> bytes:
        row = queued_row(queued)
        try:
            if queued.unique is None:
                self._ask("enqueue", *row)
                self.enqueued.append(queued)
            else:
                self.enqueued += map(row_queued, self._ask("enqueue_unique", *row, queued.quiet))
        except apsw.ConstraintError as error:
            raise Duplicate from error
        return self.enqueued[-1].id

    def claim(self, identifier: bytes) -> Queued | None:
        rows = self._ask("claim", identifier, now_microseconds())
        return row_queued(rows[0]) if rows else None

    def instance(self, identifier: bytes | None, key: str | None) -> Instance | None:
        for name, value in (("instance", identifier), ("instance_of_key", key)):
            rows = self._ask(name, value) if value is not None else []
            if rows:
                return row_instance(rows[0])
        return None

    def keep_instance(self, instance: Instance, *, fresh: bool) -> None:
        try:
            self._ask("insert_instance" if fresh else "update_instance", *instance_row(instance))
        except apsw.ConstraintError as error:
            if extended_code(error) in UNIQUE:
                raise Duplicate from None
            raise translate(error) from error

    def drop_instance(self, identifier: bytes) -> None:
        self._ask("dequeue", identifier)
        self._ask("forget_messages", identifier)

    def steps(self, workflow: bytes, first: int, end: int, most: int = WHOLE) -> Sequence[Step]:
        rows = self._ask("steps", workflow, first, end, most)
        return [
            Step(number, identifier, kind, function, given.encode(), output and output.encode(), error, bool(omitted))
            for number, identifier, kind, function, given, output, error, omitted in rows
        ]

    def take_message(self, workflow: bytes, topic: str) -> bytes | None:
        rows = self._ask("take_message", workflow, topic)
        value: bytes | None = rows[0][0].encode() if rows else None
        return value

    def send(self, workflow: bytes, topic: str, value: bytes, identifier: bytes) -> bool:
        if not self._ask("instance", workflow):
            return False
        self._ask("insert_message", identifier, workflow, topic, value.decode())
        self.wake(workflow, -1)
        return True

    def check_constraints(self) -> None:
        if self.connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
            raise ConstraintViolated("FOREIGN KEY constraint failed")

    def publish(self, workflow: bytes, name: str, value: bytes) -> None:
        self._ask("publish", workflow, name, value.decode())

    def wake(self, workflow: bytes, waits: int | None) -> None:
        self.enqueued += map(row_queued, self._ask("wake", workflow, now_microseconds(), waits))

    def pause(self, queue: str, *, paused: bool) -> None:
        self._ask("pause" if paused else "unpause", queue)

    def _ask(self, name: str, *parameters: Any) -> list[Any]:
        """The rows of one of the engine's own statements."""
        raise NotImplementedError


def row_queued(row: Sequence[Any]) -> Queued:
    """A row of the queue."""
    values = list(row)
    values[2], values[9] = row[2].encode(), tuple(json.loads(row[9] or "[]"))
    return Queued(*values)


def queued_row(queued: Queued) -> tuple[Any, ...]:
    """The columns of a new row of the queue."""
    return (
        queued.id,
        queued.function,
        queued.input.decode(),
        queued.caller,
        queued.parent,
        queued.due,
        0,
        queued.version,
        json.dumps(queued.roles) if queued.epoch else None,
        queued.step,
        queued.epoch,
        queued.queue,
        queued.share,
        queued.priority,
        queued.unique,
        int(queued.delayed),
        queued.key,
    )


def row_instance(row: Sequence[Any]) -> Instance:
    """A row of the queue as the workflow that it is."""
    instance = Instance(*row)
    instance.input = row[3].encode()
    instance.roles = tuple(json.loads(row[5] or "[]"))
    instance.acting = bool(row[14])
    return instance


def instance_row(instance: Instance) -> tuple[Any, ...]:
    """A workflow as the columns of its row, in the order of its fields."""
    return (
        instance.id,
        instance.function,
        instance.version or None,  # one that waits for its turn in a queue has none yet
        instance.input.decode(),
        instance.caller,
        json.dumps(instance.roles),
        instance.key,
        instance.parent,
        instance.step,
        instance.started,
        instance.epoch,
        instance.first,
        instance.issued,
        instance.waits,
        int(instance.acting),
        instance.due,
        instance.deadline,
        instance.state,
        instance.problem,
        instance.topic,
    )
