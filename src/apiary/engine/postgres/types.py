"""What the server's catalog says of types: asked once for each type that is not built in, and connection.

Standard library only: PostgreSQL itself loads this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

FIRST_OF_CATALOG = 10_000
"""From here on, what an OID means is written in the catalog and nowhere else."""

BOOL, BYTEA, INT8, INT2, INT4, TEXT, JSON = 16, 17, 20, 21, 23, 25, 114
FLOAT4, FLOAT8, BPCHAR, VARCHAR, DATE, TIME = 700, 701, 1042, 1043, 1082, 1083
TIMESTAMP, TIMESTAMPTZ, INTERVAL, TIMETZ, NUMERIC, RECORD, UUID, JSONB = 1114, 1184, 1186, 1266, 1700, 2249, 2950, 3802

ARRAYS = {
    1000: BOOL, 1001: BYTEA, 1016: INT8, 1005: INT2, 1007: INT4, 1009: TEXT, 199: JSON, 1021: FLOAT4, 1022: FLOAT8,
    1014: BPCHAR, 1015: VARCHAR, 1182: DATE, 1183: TIME, 1115: TIMESTAMP, 1185: TIMESTAMPTZ, 1187: INTERVAL,
    1270: TIMETZ, 1231: NUMERIC, 2287: RECORD, 2951: UUID, 3807: JSONB,
}  # fmt: skip
"""The type of the elements of the built-in array types that need care, by OID."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a type is in the end: the OID of its base type and, where it is an array, that of its elements."""

    base: int
    element: int | None = None
    is_row: bool = False


PLAIN = frozenset(
    {BOOL, BYTEA, INT8, INT2, INT4, TEXT, JSON, FLOAT4, FLOAT8, BPCHAR, VARCHAR, DATE, TIME, TIMESTAMP, TIMESTAMPTZ,
     INTERVAL, TIMETZ, NUMERIC, RECORD, UUID, JSONB}
)  # fmt: skip
"""The most common types, which are what they are."""


class Types:
    """The types of one database. `ask` gives the row of the statement `type` for an OID, or nothing."""

    def __init__(self, ask: Callable[[int], Sequence[Any] | None]) -> None:
        self._ask = ask
        self._known: dict[int, Kind] = {}

    def kind(self, oid: int) -> Kind:
        """What a type is; domains are what they are made of."""
        found = self._known.get(oid)
        if found is None:
            found = self._known[oid] = self._look_up(oid)
        return found

    def _look_up(self, oid: int) -> Kind:
        if oid < FIRST_OF_CATALOG and (oid in ARRAYS or oid in PLAIN):
            element = ARRAYS.get(oid)
            return Kind(oid, element, RECORD in (oid, element))
        row = self._ask(oid)
        if row is None:
            return Kind(oid)
        kind, base, element = row
        if kind == "d":
            return self.kind(base)
        if element is not None:
            inner = self.kind(element)
            return replace(inner, base=oid, element=inner.base)
        return Kind(oid, is_row=kind == "c" or oid == RECORD)
