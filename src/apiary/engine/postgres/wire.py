"""What a lane and a backend say to each other: a header in JSON, a line break, then inputs or outputs in a row.

These are JSON already, and are not written as JSON a second time. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from apiary.engine.protocol import Committed
from apiary.runtime.session import Call, Outcome, Pause, Queued, Record

RECORD_FIELDS = [field.name for field in fields(Record)]
QUEUED_FIELDS = [field.name for field in fields(Queued)]


def pack_batch(calls: Sequence[Call], records: Sequence[Record], options: Mapping[str, Any]) -> bytes:
    """What a backend is asked to run. `options` come back as members of the header."""
    header = {**options, "calls": list(map(_call, calls)), "records": [_plain(record) for record in records]}
    return b"".join([_json(header), b"\n", *(call.input for call in calls)])


def unpack_batch(message: bytes) -> tuple[dict[str, Any], list[Call], list[Record]]:
    """The header of a batch, its calls, and the records to write."""
    end = message.index(b"\n")
    header = json.loads(message[:end])
    calls, at = [], end + 1
    for size, *row in header["calls"]:
        calls.append(_call_back(message[at : at + size], *row))
        at += size
    return header, calls, [Record(**_back(record)) for record in header["records"]]


def pack_done(done: Committed, written: Sequence[Record], records: Sequence[Record], memory: int) -> bytes:
    """What a batch came to. `written` are the records that it was given, `records` those of its queries.

    `memory`: how many bytes the backend has for itself now.
    """
    lost = set(map(id, done.lost))
    header = {
        "outcomes": [
            (
                len(outcome.output),
                outcome.error,
                _hex(outcome.replayed),
                outcome.duration,
                outcome.pause and _pause(outcome.pause),
            )
            for outcome in done.outcomes
        ],
        "queued": [_plain(queued) for queued in done.queued],
        "lost": [number for number, record in enumerate(written) if id(record) in lost],
        "records": [_plain(record) for record in records],
        "memory": memory,
    }
    return b"".join([_json(header), b"\n", *(outcome.output for outcome in done.outcomes)])


def unpack_done(message: bytes, written: Sequence[Record]) -> tuple[Committed, list[Record], int]:
    """What a batch came to, the records of its queries, and the memory of the backend."""
    end = message.index(b"\n")
    header = json.loads(message[:end])
    outcomes, at = [], end + 1
    for size, error, replayed, duration, pause in header["outcomes"]:
        output = message[at : at + size]
        paused = None if pause is None else _pause_back(*pause)
        outcomes.append(Outcome(output, error, _bytes(replayed), None, duration, paused))
        at += size
    done = Committed(
        outcomes,
        [Queued(**_back(queued)) for queued in header["queued"]],
        [written[number] for number in header["lost"]],
        durable=True,
    )
    return done, [Record(**_back(record)) for record in header["records"]], header["memory"]


def _call(call: Call) -> list[Any]:
    """The fields of a call, the length of its input in place of that."""
    return [
        len(call.input),
        call.id.hex(),
        call.function,
        call.caller,
        list(call.roles),
        call.key,
        _hex(call.parent),
        call.attempt,
        call.queued,
        call.lax,
        call.digest,
        call.step,
        call.epoch,
        [_plain(record) for record in call.arrived],
        call.detached,
        call.careful,
        call.claimed,
    ]


def _call_back(given: bytes, identifier: str, function: str, caller: str, roles: list[str], *rest: Any) -> Call:
    key, parent, attempt, queued, lax, digest, step, epoch, arrived, detached, careful, claimed = rest
    return Call(
        bytes.fromhex(identifier),
        function,
        given,
        caller,
        frozenset(roles),
        key,
        _bytes(parent),
        attempt,
        queued,
        lax,
        digest,
        step,
        epoch,
        tuple(Record(**_back(record)) for record in arrived),
        detached,
        careful,
        claimed,
    )


def _pause(pause: Pause) -> list[Any]:
    actions = [[call.input.decode(), *_call(call)[1:]] for call in pause.actions]
    return [pause.due, pause.epoch, _hex(pause.of), pause.careful, pause.waiting, actions]


def _pause_back(due: int, epoch: int, of: str | None, careful: bool, waiting: bool, actions: list[list[Any]]) -> Pause:
    found = tuple(_call_back(given.encode(), *row) for given, *row in actions)
    return Pause(due, epoch, found, _bytes(of), careful, waiting)


def _plain(value: Record | Queued) -> dict[str, Any]:
    """The fields as JSON knows them: ids in hexadecimal, JSON as text."""
    found = {name: getattr(value, name) for name in (RECORD_FIELDS if isinstance(value, Record) else QUEUED_FIELDS)}
    for name in ("id", "parent"):
        found[name] = _hex(found[name])
    for name in ("input", "output"):
        if found.get(name) is not None:
            found[name] = found[name].decode()
    return found


def _back(found: dict[str, Any]) -> dict[str, Any]:
    for name in ("id", "parent"):
        found[name] = _bytes(found[name])
    for name in ("input", "output"):
        if found.get(name) is not None:
            found[name] = found[name].encode()
    if "roles" in found:
        found["roles"] = tuple(found["roles"])
    return found


def _hex(identifier: bytes | None) -> str | None:
    return None if identifier is None else identifier.hex()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _json(header: dict[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()
