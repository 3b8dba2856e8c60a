"""Questions about the queues of one app: how much waits in each, since when, what runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiary.engine.places import Log
from apiary.runtime.transaction import now_microseconds


def queues(
    log: Log, *, declared: Mapping[str, Mapping[str, Any]], running: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """The queues of an app, that without a name first, and those that are not `declared` any more and hold calls.

    Of each, how many calls `wait` that are due and `later` that are not, since when the `oldest` is due (microseconds
    since 1970), and how many run. That is known for certain where the process that runs the queue has told how many are
    `running`; else only workflows are counted.
    """
    now = now_microseconds()
    waiting = {row["queue"]: row for row in log.ask("log_queues", {"now": now})}
    begun = {row["queue"]: row["calls"] for row in log.ask("log_queues_begun", {})}
    paused = {row["queue"] for row in log.ask("log_queues_paused", {})}
    names = ["", *sorted({*declared, *waiting, *begun} - {""})]
    found = []
    for name in names:
        row, workflows = waiting.get(name), begun.get(name, 0)
        runs = workflows if running is None else running.get(name, workflows)
        due = row["due"] if row is not None else 0
        limits = declared.get(name, {})
        found.append(
            {
                "queue": name,
                "waiting": max(0, due - max(0, runs - workflows)),
                "later": row["calls"] - due if row is not None else 0,
                "running": runs,
                "oldest": row["oldest"] if row is not None else None,
                "paused": name in paused,
                "concurrency": limits.get("concurrency"),
                "rate": limits.get("rate"),
                "fair_by": limits.get("fair_by"),
            }
        )
    return found
