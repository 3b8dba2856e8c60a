"""How many calls of an app may be in flight; more are refused, so that those that run are answered in time.

Who waits for the end of a workflow waits for as long as that takes, and needs nothing meanwhile. So they are counted
apart: however many they are, other calls find room.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from apiary.platform.flights import InFlight
from apiary.platform.messages import Ask, Invoke
from apiary.runtime.control import RESULT
from apiary.runtime.errors import Overloaded


class Admission:
    """Lets so many calls of each of the two sorts in."""

    def __init__(self, app: str, most: int) -> None:
        self._app = app
        self._most = most

    def check(self, message: Invoke, flights: Collection[InFlight], held: int, manifest: Mapping[str, Any]) -> None:
        """`Overloaded` where there is no room for one more.

        `flights` are those that a host has; `held`: so many more have none now.
        """
        if held + len(flights) < self._most:
            return
        functions = manifest.get("functions", {})
        waiting = sum(_waits(flight.message, functions) for flight in flights)
        if _waits(message, functions):
            if waiting >= self._most:
                raise Overloaded(f"{self._most} callers wait for workflows of {self._app} already; ask again later")
        elif held + len(flights) - waiting >= self._most:
            raise Overloaded(f"{self._most} calls of {self._app} are waiting already; send it again later")


def _waits(message: Invoke | Ask, functions: Mapping[str, Any]) -> bool:
    """Whether the answer is the end of a workflow."""
    if isinstance(message, Ask):
        return False
    return message.function == RESULT or functions.get(message.function, {}).get("kind") == "workflow"
