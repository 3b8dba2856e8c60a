"""Drops what the log has of workflows that ended long ago, a little at a time, beside the engine that writes it.

Their steps and what they published go. Where a workflow was begun with an idempotency key, its own record stays,
because the key answers for ever: its arguments, its outcome, who called. Others go as a whole, and are not known then.
"""

from __future__ import annotations

from dataclasses import dataclass

from apiary.engine.places import Log
from apiary.runtime.control import DROPPED

MAX_WORKFLOWS = 50
MAX_STEPS = 1000
FIRST = bytes(16)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was dropped in one go. `after`: the workflow behind which to go on; none, where there are no more."""

    workflows: int
    steps: int
    after: bytes | None


def drop_workflows(log: Log, before: int, after: bytes = FIRST) -> Dropped:
    """Drop workflows that ended `before` (microseconds since 1970), those behind `after`, a few transactions long.

    What still runs is left alone, with what it began, but for what it did before it began again (`continue_as`).
    Interrupted anywhere, it is gone on with the next time.
    """
    workflows = steps = 0
    if after == FIRST:
        (steps,) = log.change([("retention_rounds", {"before": before, "limit": MAX_STEPS})])
        if steps >= MAX_STEPS:
            return Dropped(0, steps, FIRST)
    asked = {"before": before, "after": after, "until": _id_at(before), "told": DROPPED, "limit": MAX_WORKFLOWS}
    found = log.ask("retention_found", asked)
    for row in found:
        one = {"id": row["id"]}
        log.change([("retention_mark", {**one, "told": DROPPED})])  # first, so that nobody forks a part of it
        (gone,) = log.change([("retention_steps", {**one, "limit": MAX_STEPS - steps})])
        steps += gone
        if steps >= MAX_STEPS:
            return Dropped(workflows, steps, after)
        log.change([(name, one) for name in ("retention_published", "retention_stopped", "retention_record")])
        workflows += 1
        after = row["id"]
    return Dropped(workflows, steps, after if len(found) == MAX_WORKFLOWS else None)


def _id_at(microseconds: int) -> bytes:
    """The first id that a call of this time can have: what has a later one began later."""
    return (max(0, microseconds) // 1000).to_bytes(6, "big") + bytes(10)
