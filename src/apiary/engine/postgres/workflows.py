"""The rows of workflows in PostgreSQL, for the session of a lane. Standard library only: backends load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from apiary.runtime.errors import ConstraintViolated, Duplicate
from apiary.runtime.machine import WHOLE, Step
from apiary.runtime.session import MESSAGE, Instance, Queued
from apiary.runtime.transaction import now_microseconds


class WorkflowRows:
    """What `WorkflowSession` adds to a session."""

    enqueued: list[Queued]

    def enqueue(self, queued: Queued) -> bytes:
        row = queued_row(queued)
        try:
            if queued.unique is None:
                self._platform("enqueue", row)
                self.enqueued.append(queued)
            else:
                self.enqueued += map(row_queued, self._platform("enqueue_unique", (*row, int(queued.quiet))))
        except ConstraintViolated as error:
            raise Duplicate from error
        return self.enqueued[-1].id

    def claim(self, identifier: bytes) -> Queued | None:
        rows = self._platform("claim", (uuid_of(identifier), now_microseconds()))
        return row_queued(rows[0]) if rows else None

    def instance(self, identifier: bytes | None, key: str | None) -> Instance | None:
        rows = self._platform("instance", (uuid_of(identifier), key))
        return row_instance(rows[0]) if rows else None

    def keep_instance(self, instance: Instance, *, fresh: bool) -> None:
        try:
            if fresh:
                self._platform("insert_instance", instance_row(instance))
            else:
                self._platform("update_instance", changes(instance))
        except ConstraintViolated as error:
            raise Duplicate from error

    def drop_instance(self, identifier: bytes) -> None:
        self._platform("drop_instance", (uuid_of(identifier),))

    def steps(self, workflow: bytes, first: int, end: int, most: int = WHOLE) -> Sequence[Step]:
        rows = self._platform("steps", (uuid_of(workflow), first, end, most))
        return [
            Step(number, bytes_of(step), kind, function, given.encode(), output and output.encode(), error, omitted)
            for number, step, kind, function, given, output, error, omitted in rows
        ]

    def take_message(self, workflow: bytes, topic: str) -> bytes | None:
        rows = self._platform("take_message", (uuid_of(workflow), topic))
        return str(rows[0][0]).encode() if rows else None

    def send(self, workflow: bytes, topic: str, value: bytes, identifier: bytes) -> bool:
        sent = self._platform("send", (uuid_of(workflow), topic, value.decode(), uuid_of(identifier)))[0][0]
        if sent:
            self.wake(workflow, MESSAGE)
        return bool(sent)

    def check_constraints(self) -> None:
        self._platform("check_constraints", ())

    def publish(self, workflow: bytes, name: str, value: bytes) -> None:
        self._platform("publish", (uuid_of(workflow), name, value.decode()))

    def wake(self, workflow: bytes, waits: int | None) -> None:
        self.enqueued += map(row_queued, self._platform("wake", (uuid_of(workflow), now_microseconds(), waits)))

    def pause(self, queue: str, *, paused: bool) -> None:
        self._platform("pause" if paused else "unpause", (queue,))

    def _platform(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        """The rows of one of the engine's own statements, by its name."""
        raise NotImplementedError


def row_queued(row: Sequence[Any]) -> Queued:
    """A row of the queue."""
    values = list(row)
    values[0], values[4] = bytes_of(row[0]), bytes_of(row[4]) if row[4] else None
    values[2], values[9] = row[2].encode(), tuple(json.loads(row[9] or "[]"))
    return Queued(*values)


def queued_row(queued: Queued) -> tuple[Any, ...]:
    """The columns of a new row of the queue."""
    return (
        uuid_of(queued.id),
        queued.function,
        queued.input.decode(),
        queued.caller,
        uuid_of(queued.parent),
        queued.due,
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
    instance.id = bytes_of(row[0])
    instance.input = row[3].encode()
    instance.roles = tuple(json.loads(row[5] or "[]"))
    instance.parent = bytes_of(row[7]) if row[7] else None
    return instance


def instance_row(instance: Instance) -> tuple[Any, ...]:
    """A workflow as the columns of a new row, in the order of its fields."""
    return (
        uuid_of(instance.id),
        instance.function,
        instance.version or None,  # one that waits for its turn in a queue has none yet
        instance.input.decode(),
        instance.caller,
        json.dumps(instance.roles),
        instance.key,
        uuid_of(instance.parent),
        instance.step,
        instance.started,
        instance.epoch,
        instance.first,
        instance.issued,
        instance.waits,
        int(instance.acting),  # a backend takes no booleans for statements of the platform's own
        instance.due,
        instance.deadline,
        instance.state,
        instance.problem,
        instance.topic,
    )


def changes(instance: Instance) -> tuple[Any, ...]:
    """What may change of a workflow."""
    row = instance_row(instance)
    return (row[0], row[2], row[3], row[9], *row[11:])


def uuid_of(identifier: bytes | None) -> UUID | None:
    """An id as PostgreSQL has it."""
    return None if identifier is None else UUID(bytes=identifier)


def bytes_of(value: Any) -> bytes:
    """An id as we have it."""
    return UUID(str(value)).bytes
