"""The rows of workflows in PostgreSQL, for the session of a lane. Standard library only: backends load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from apiary.runtime.errors import ConstraintViolated, Duplicate
from apiary.runtime.machine import Step
from apiary.runtime.session import MESSAGE, Instance, Queued
from apiary.runtime.transaction import now_microseconds


class WorkflowRows:
    """What `WorkflowSession` adds to a session."""

    enqueued: list[Queued]

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

    def steps(self, workflow: bytes, first: int, end: int) -> Sequence[Step]:
        rows = self._platform("steps", (uuid_of(workflow), first, end))
        return [
            Step(number, bytes_of(identifier), kind, function, given.encode(), output and output.encode(), error)
            for number, identifier, kind, function, given, output, error in rows
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

    def _platform(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        """The rows of one of the engine's own statements, by its name."""
        raise NotImplementedError


def row_queued(row: Sequence[Any]) -> Queued:
    """A row of the queue."""
    identifier, function, given, caller, parent, due, attempts, deaths, version, roles, step, epoch = row
    return Queued(
        bytes_of(identifier),
        function,
        given.encode(),
        caller,
        bytes_of(parent) if parent else None,
        due,
        attempts,
        deaths,
        version,
        tuple(json.loads(roles)) if roles else (),
        step,
        epoch,
    )


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
        json.dumps(queued.roles) if queued.version else None,
        queued.step,
        queued.epoch,
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
        instance.version,
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
    return (row[0], row[3], row[9], *row[11:])


def uuid_of(identifier: bytes | None) -> UUID | None:
    """An id as PostgreSQL has it."""
    return None if identifier is None else UUID(bytes=identifier)


def bytes_of(value: Any) -> bytes:
    """An id as we have it."""
    return UUID(str(value)).bytes
