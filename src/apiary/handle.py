"""`WorkflowHandle`: a workflow as those see it who started it, in this process or over HTTP."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from apiary.runtime.errors import WrongArguments

R = TypeVar("R")

WAIT_SECONDS = 25.0
"""So long one question for a result waits at most: less than what most proxies allow."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a workflow returned: `output` is JSON."""

    function: str
    output: bytes


class Workflows(Protocol):
    """Where workflows are, and how they are reached."""

    def show(self, workflow: str, steps: int) -> dict[str, Any]:
        """Everything about a workflow, and so many of its steps."""

    def end(self, workflow: str, seconds: float) -> Ended | None:
        """What it returned, where it has ended or does within so many seconds; raises what it ended with."""

    def export(self, workflow: str) -> dict[str, Any]:
        """What a workflow did, whole."""

    def control(self, operation: str, workflow: str, arguments: dict[str, Any]) -> Any:
        """Send to a workflow, cancel it, let it go on, fork it."""


class WorkflowHandle(Generic[R]):
    """A workflow that was started. It goes on whatever becomes of the handle; `id` is enough to find it again."""

    def __init__(self, workflows: Workflows, identifier: str, decode: Callable[[Ended], R]) -> None:
        if not isinstance(identifier, str) or not identifier.strip():
            raise WrongArguments(f"the id of a workflow is text, not {identifier!r:.50}")
        self.id = identifier
        self._workflows = workflows
        self._decode = decode

    def result(self, timeout: float | None = None) -> R:
        """What the workflow returns, once it has ended; raises what it raised.

        `TimeoutError` where it has not ended within `timeout` seconds: it goes on. `InternalError` where it cannot go
        on before somebody mends it.
        """
        _check_timeout(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_SECONDS if end is None else end - time.monotonic()
            ended = self._workflows.end(self.id, max(0.0, min(left, WAIT_SECONDS)))
            if ended is not None:
                return self._decode(ended)
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"the workflow {self.id} has not ended within {timeout:g} s; it goes on")

    def status(self) -> str:
        """How it stands: `queued`, `running`, `waiting`, `blocked`, `cancelling`, `undoing`.

        Or how it ended: `ok`, `rejected`, `failed`, `cancelled`.
        """
        return str(self._workflows.show(self.id, 1)["status"])

    def published(self, name: str) -> Any:
        """The value that it lets others read under this name; `None` where there is none yet."""
        return self._workflows.show(self.id, 1)["published"].get(name)

    def send(self, topic: str, value: Any = None) -> None:
        """Leave a message for it; `Conflict` where it has ended."""
        self._workflows.control("send", self.id, {"topic": topic, "value": value})

    def cancel(self) -> None:
        """End it at its next step, and the workflows that it started; what was done is undone as far as it says how.

        Its result is `Cancelled` then.
        """
        self._workflows.control("cancel", self.id, {})

    def resume(self) -> None:
        """Let it try again, where it was blocked."""
        self._workflows.control("resume", self.id, {})

    def fork(self, step: int | None = None, version: str | None = None) -> WorkflowHandle[R]:
        """Begin a new workflow with what this one has recorded below a step (by default, all).

        It goes on from there, on the version of the app that serves or the one that is named.
        """
        found = self._workflows.control("fork", self.id, {"step": step, "version": version})
        return WorkflowHandle(self._workflows, found["id"], self._decode)

    def show(self) -> dict[str, Any]:
        """Everything about it, as `GET /api/v1/workflows/{id}` has it: status, steps, what it waits for."""
        return self._workflows.show(self.id, 1000)

    def export(self) -> dict[str, Any]:
        """What it did, whole, for `apiary.testing.replay`, with stars for secrets; `Conflict` where not all is kept."""
        return self._workflows.export(self.id)

    def __repr__(self) -> str:
        return f"<workflow {self.id}>"


def _check_timeout(timeout: Any) -> None:
    """`WrongArguments` for what is no number of seconds: with a NaN, the end of waiting never comes."""
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and (not number or math.isnan(timeout)):
        raise WrongArguments(f"a timeout is a number of seconds, or None, not {timeout!r:.50}")
