"""Call ids: UUID version 7 (RFC 9562), 16 bytes, ordered by time within a process."""

from __future__ import annotations

import os
import time
from itertools import count

_sequence = count(int.from_bytes(os.urandom(2), "big"))


def new_id() -> bytes:
    """A new UUIDv7: 48 bits of milliseconds, 12 bits of sequence, 62 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    sequence = next(_sequence) & 0xFFF
    random = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = milliseconds << 80 | 0x7 << 76 | sequence << 64 | 0x2 << 62 | random
    return value.to_bytes(16, "big")


def id_text(identifier: bytes) -> str:
    """The usual form of an id: 8-4-4-4-12 hexadecimal digits."""
    text = identifier.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_bytes(text: str) -> bytes:
    """The 16 bytes of an id in its usual form; `ValueError` when it is none."""
    identifier = bytes.fromhex(text.replace("-", ""))
    if len(identifier) != 16:
        raise ValueError(f"{text!r} is not an id")
    return identifier
