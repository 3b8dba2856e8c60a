"""What a function is declared with, beside its body: checked here for the decorators of `declaration.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apiary.runtime.errors import DeclarationError
from apiary.runtime.queueing import Queue

DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_ACTION_TIMEOUT_SECONDS = 60.0
OWN_OPTIONS = {
    "query": {"key", "placement"},
    "transaction": {"key", "placement", "queue"},
    "action": {"retries", "backoff", "attempt_timeout", "retry_on", "queue"},
    "workflow": {"queue", "lifetime", "schedule", "zone", "missed"},
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a decorator was told. Times in seconds; `retries` counts the attempts after the first.

    One attempt of an action may take `attempt_timeout`, and another one follows where it raises what is in `retry_on`.

    `lifetime`: so long a workflow may take in all; its `timeout` is what its own code may take between two steps. It
    begins by itself at the times of its `schedule`. `queue` is the name of the one in which its queued calls wait.
    """

    roles: frozenset[str] | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    key: str | None = None
    placement: str | None = None
    retries: int = 0
    backoff: float = 0.5
    attempt_timeout: float | None = None
    retry_on: tuple[type[BaseException], ...] = (BaseException,)
    lifetime: float | None = None
    schedule: str | None = None
    zone: str = "UTC"
    missed: str = "once"
    queue: str | None = None


def options_of(kind: str, given: dict[str, Any]) -> Options:
    """What the decorator of this kind of function was given, checked."""
    allowed = {"roles", "timeout"} | OWN_OPTIONS[kind]
    unknown = sorted(given.keys() - allowed)
    if unknown:
        raise DeclarationError(f"a {kind} has no option {unknown[0]!r}; it has {', '.join(sorted(allowed))}")
    named = {"roles": _roles(given.get("roles")), "queue": _queue(given.get("queue"))}
    options = Options(**{**given, **named, "retry_on": _classes(given.get("retry_on"))})
    _check_times(options)
    if not isinstance(options.retries, int) or not 0 <= options.retries <= 1000:
        raise DeclarationError(f"retries is a number from 0 to 1000, not {options.retries!r}")
    if options.missed not in ("once", "all", "skip"):
        raise DeclarationError(f'missed is "once", "all" or "skip", not {options.missed!r}')
    if not isinstance(options.schedule, str | None) or not isinstance(options.zone, str):
        raise DeclarationError("schedule and zone are text: a cron expression, and the name of a time zone")
    if options.placement not in (None, "database", "host"):
        raise DeclarationError(f'placement is "database" or "host", not {options.placement!r}')
    return options


def _roles(roles: Any) -> frozenset[str] | None:
    named = isinstance(roles, list | tuple | set | frozenset) and all(isinstance(role, str) for role in roles)
    if roles is not None and not named:
        raise DeclarationError(f"roles is a list of names, not {roles!r}")
    return None if roles is None else frozenset(roles)


def _queue(queue: Any) -> str | None:
    if not isinstance(queue, str | Queue | None):
        raise DeclarationError(f"queue is a queue of the app or its name, not {queue!r}")
    return queue.name if isinstance(queue, Queue) else queue


def _check_times(options: Options) -> None:
    times = {"timeout": options.timeout, "backoff": options.backoff}
    unlimited = {"attempt_timeout": options.attempt_timeout, "timeout of a workflow": options.lifetime}
    times |= {name: value for name, value in unlimited.items() if value is not None}
    for name, value in times.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
            raise DeclarationError(f"{name} is a positive number of seconds, not {value!r}")


def _classes(retry_on: Any) -> tuple[type[BaseException], ...]:
    classes = (BaseException,) if retry_on is None else retry_on if isinstance(retry_on, tuple | list) else (retry_on,)
    if not classes or not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise DeclarationError(f"retry_on is a class of exceptions, or several of them, not {retry_on!r}")
    return tuple(classes)
