"""What a lane and a backend say to each other: a header in JSON, a line break, then inputs or outputs in a row.

These are JSON already, and are not written as JSON a second time. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from apiary.engine.protocol import Committed
from apiary.runtime.session import Call, Outcome, Queued, Record

RECORD_FIELDS = [field.name for field in fields(Record)]
QUEUED_FIELDS = [field.name for field in fields(Queued)]


def pack_batch(calls: Sequence[Call], records: Sequence[Record], *, recording: bool, read_only: bool) -> bytes:
    """What a backend is asked to run."""
    header = {
        "recording": recording,
        "read_only": read_only,
        "calls": [
            (
                call.id.hex(),
                call.function,
                len(call.input),
                call.caller,
                list(call.roles),
                call.key,
                call.parent.hex() if call.parent else None,
                call.attempt,
                call.queued,
                call.lax,
                call.digest,
            )
            for call in calls
        ],
        "records": [_plain(record, RECORD_FIELDS) for record in records],
    }
    return b"".join([_json(header), b"\n", *(call.input for call in calls)])


def unpack_batch(message: bytes) -> tuple[dict[str, Any], list[Call], list[Record]]:
    """The header of a batch, its calls, and the records to write."""
    end = message.index(b"\n")
    header = json.loads(message[:end])
    calls, at = [], end + 1
    for identifier, function, size, caller, roles, key, parent, attempt, queued, lax, digest in header["calls"]:
        calls.append(
            Call(
                bytes.fromhex(identifier),
                function,
                message[at : at + size],
                caller,
                frozenset(roles),
                key,
                bytes.fromhex(parent) if parent else None,
                attempt,
                queued,
                lax,
                digest,
            )
        )
        at += size
    return header, calls, [Record(**_back(record)) for record in header["records"]]


def pack_done(done: Committed, written: Sequence[Record], records: Sequence[Record], memory: int) -> bytes:
    """What a batch came to. `written` are the records that it was given, `records` those of its queries.

    `memory`: how many bytes the backend has for itself now.
    """
    lost = set(map(id, done.lost))
    header = {
        "outcomes": [
            (len(outcome.output), outcome.error, outcome.replayed.hex() if outcome.replayed else None, outcome.duration)
            for outcome in done.outcomes
        ],
        "queued": [_plain(queued, QUEUED_FIELDS) for queued in done.queued],
        "lost": [number for number, record in enumerate(written) if id(record) in lost],
        "records": [_plain(record, RECORD_FIELDS) for record in records],
        "memory": memory,
    }
    return b"".join([_json(header), b"\n", *(outcome.output for outcome in done.outcomes)])


def unpack_done(message: bytes, written: Sequence[Record]) -> tuple[Committed, list[Record], int]:
    """What a batch came to, the records of its queries, and the memory of the backend."""
    end = message.index(b"\n")
    header = json.loads(message[:end])
    outcomes, at = [], end + 1
    for size, error, replayed, duration in header["outcomes"]:
        output = message[at : at + size]
        outcomes.append(Outcome(output, error, bytes.fromhex(replayed) if replayed else None, None, duration))
        at += size
    done = Committed(
        outcomes,
        [Queued(**_back(queued)) for queued in header["queued"]],
        [written[number] for number in header["lost"]],
        durable=True,
    )
    return done, [Record(**_back(record)) for record in header["records"]], header["memory"]


def _plain(value: Record | Queued, names: Sequence[str]) -> dict[str, Any]:
    """The fields as JSON knows them: ids in hexadecimal, JSON as text."""
    found = {name: getattr(value, name) for name in names}
    for name in ("id", "parent"):
        found[name] = found[name].hex() if found[name] else None
    for name in ("input", "output"):
        found[name] = found[name].decode() if found.get(name) is not None else None
    if "output" not in names:
        del found["output"]
    return found


def _back(found: dict[str, Any]) -> dict[str, Any]:
    for name in ("id", "parent"):
        found[name] = bytes.fromhex(found[name]) if found[name] else None
    for name in ("input", "output"):
        if found.get(name) is not None:
            found[name] = found[name].encode()
    return found


def _json(header: dict[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()
