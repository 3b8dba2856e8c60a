"""`beat`: how an action that takes long says that it is getting on. `engine/actions.py` listens."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

listener: ContextVar[Callable[[], None] | None] = ContextVar("apiary_beat", default=None)


def beat() -> None:
    """Say that the action which calls this is getting on: its `timeout` begins anew.

    Raises `DeadlineExceeded` where its time was over before, so that an action that was given up does not go on.
    Outside of an action that Apiary runs, this does nothing.
    """
    heard = listener.get()
    if heard is not None:
        heard()
