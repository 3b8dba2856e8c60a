"""What a look at a machine or a database finds, for `apiary doctor`. An engine's own look is its `health.py`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: whether it is `good`, what was `found`, and what to do about it, if anything."""

    name: str
    good: bool
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)
