"""What a call read and wrote, in the form in which it travels with the record of the call and lies in the log.

One MessagePack value: the schema at the beginning of the call, how many rows were left out, and the events in their
order. Made in the call, so it is cheap to make; whoever reads the log takes it apart. What many calls share (the text
of a statement, the columns of tables) is a term, told once and known by a hash of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

WROTE = 0
"""A row was written: table, row id before and after, values before and after (`None`: there was no such row)."""
UNREAD = 1
"""The same of a row whose values cannot be read: table, row id before and after, operation."""
SCHEMA = 2
"""A statement changed the schema: the schema from now on, the text of the statement."""
RAN = 3
"""A statement ran: its term, its parameters by name, the rows that it gave or the number of those that it changed."""
KEYS = 4
"""The same, where that was too much to keep whole: the keys in the rows that it gave, or the number of rows."""
FAILED = 5
"""A statement failed: its term, its parameters by name (`None`: they have no form here), the problem as JSON."""
DREW = 6
"""The call drew these random bytes."""
FORMAT = 1

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

Event = tuple[Any, ...]


class Terms:
    """Terms that are not in the database yet. All sessions of an engine tell theirs, one of them writes them."""

    def __init__(self) -> None:
        self.unwritten: deque[tuple[int, str]] = deque()

    def tell(self, term: str) -> int:
        """The number of a term, which is the same in every process."""
        number = int.from_bytes(blake2b(term.encode(), digest_size=8).digest()) >> 1
        self.unwritten.append((number, term))
        return number

    def forget(self, count: int) -> None:
        """The first of them are in the database, for certain."""
        for _ in range(count):
            self.unwritten.popleft()


def pack(schema: int, left_out: int, events: Sequence[Any]) -> bytes:
    """The effects of a call. Events may be packed already (`pack_event`). `left_out` rows were too many to keep."""
    return _encode((FORMAT, schema, left_out, events))


def pack_event(event: Event) -> msgspec.Raw:
    """One event, packed before the others, so that nothing of it has to be kept. It has a length, in bytes."""
    return msgspec.Raw(_encode(event))


def unpack(effects: bytes) -> tuple[int, int, list[list[Any]]]:
    """The schema at the beginning, the number of rows left out, and the events."""
    form, schema, left_out, events = _decode(effects)
    assert form == FORMAT
    return schema, left_out, events


DROPPED = pack(0, -1, ())
"""In the place of what a query read, where that could not be written as fast as it was read."""
