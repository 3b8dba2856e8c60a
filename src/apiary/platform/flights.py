"""Calls and questions on their way: sent to a host, or waiting for one, and not answered yet."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apiary.platform.messages import Answer, Ask, Invoke
from apiary.runtime.errors import Error, Unavailable
from apiary.runtime.ids import id_text


@dataclass(slots=True, eq=False)
class InFlight:
    """A call that was sent and has no answer yet. `crashes` counts the hosts that died while they ran it.

    `within` is how many seconds the answer may take, where that does not follow from its function.
    """

    message: Invoke | Ask
    answer: asyncio.Future[Answer]
    crashes: int = 0
    sent: float = field(default_factory=time.monotonic)
    within: float | None = None

    def fail(self, error: Error) -> None:
        """Answer it with an error, unless it has its answer."""
        if not self.answer.done():
            problem = {**error.problem(), "call_id": id_text(self.message.id)}
            self.answer.set_result(Answer(self.message.id, b"", json.dumps(problem).encode()))


def acted_for(flight: InFlight, others: Iterable[InFlight], functions: Mapping[str, Any]) -> InFlight | None:
    """The one among `others` that runs an action under the same idempotency key: the outcome of this call is its own.

    One that nobody waits for any more (its answer was cancelled) would tell nobody when it ends. `functions`: of the
    version that runs the others, as its manifest has them.
    """
    key = flight.message.key if isinstance(flight.message, Invoke) else None
    if key is None:
        return None
    for other in others:
        message = other.message
        waited_for = other is not flight and not other.answer.done()
        if waited_for and isinstance(message, Invoke) and message.key == key:
            return other if functions.get(message.function, {}).get("kind") == "action" else None
    return None


def gone(message: str) -> Unavailable:
    """The error of a call whose host went away and cannot be replaced."""
    return Unavailable(message, hint="send the call again; with an idempotency key it takes effect once")
