"""Call ids: UUID version 7 (RFC 9562), 16 bytes, ordered by time within a process."""

from __future__ import annotations

import os
import struct
import time
from itertools import count
from os import urandom

DRAWN_AT_ONCE = 128

_sequence = count(int.from_bytes(urandom(2), "big"))
_drawn: list[int] = []
os.register_at_fork(after_in_child=_drawn.clear)


def new_id() -> bytes:
    """A new UUIDv7: 48 bits of milliseconds, 12 bits of sequence, 62 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    sequence = next(_sequence) & 0xFFF
    try:
        drawn = _drawn.pop()
    except IndexError:
        drawn, *more = struct.unpack(f"{DRAWN_AT_ONCE}Q", urandom(8 * DRAWN_AT_ONCE))
        _drawn.extend(more)
    random = drawn & 0x3FFF_FFFF_FFFF_FFFF
    value = milliseconds << 80 | 0x7 << 76 | sequence << 64 | 0x2 << 62 | random
    return value.to_bytes(16, "big")


def id_text(identifier: bytes) -> str:
    """The usual form of an id: 8-4-4-4-12 hexadecimal digits."""
    text = identifier.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_seconds(identifier: bytes) -> float:
    """When an id was made, in seconds since 1970, by the clock of the machine that made it."""
    return int.from_bytes(identifier[:6], "big") / 1000


def id_bytes(text: str) -> bytes:
    """The 16 bytes of an id in its usual form; `ValueError` when it is none."""
    digits = text.replace("-", "")
    if len(digits) != 32:
        raise ValueError(f"{text!r} is not an id")
    return bytes.fromhex(digits)
