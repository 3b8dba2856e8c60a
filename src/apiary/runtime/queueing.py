"""Queues that an app declares, and the terms on which a call waits in one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from apiary.runtime.errors import DeclarationError, RuleBroken
from apiary.runtime.session import Queued

if TYPE_CHECKING:
    from apiary.runtime.call import Program
    from apiary.runtime.declaration import Function

QUEUE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
MAX_CONCURRENCY = 1_000_000
MAX_PRIORITY = 1000
MAX_UNIQUE_BYTES = 500
MAX_SHARE_BYTES = 200
"""A longer value of the argument by which a queue is fair is known by its digest."""
MAX_DELAY_SECONDS = 100 * 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of an app.

    At most `concurrency` of its calls run at the same time, and not more than a number of them begin in a number of
    seconds (`rate`). Calls with different values of the argument `fair_by` take turns.
    """

    name: str
    concurrency: int | None = None
    rate: tuple[int, float] | None = None
    fair_by: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How a call waits: so many seconds, or until a moment (microseconds since 1970); before those of less priority.

    `unique`: while a call of the function waits under this name, no other one is put beside it. `quiet`: it takes the
    arguments of the latest, and waits for its seconds anew.
    """

    delay: float = 0.0
    at: int | None = None
    priority: int = 0
    unique: str | None = None
    quiet: bool = False

    def due(self, now: int) -> int:
        """When the call may begin that is put into the queue now; microseconds since 1970."""
        return max(now, self.at) if self.at is not None else now + int(self.delay * 1e6)


AT_ONCE = Terms()


def queue_of(name: str, concurrency: Any, rate: Any, fair_by: Any) -> Queue:
    """A queue as it was declared; `DeclarationError` where it cannot be."""
    if not isinstance(name, str) or not QUEUE_NAME.match(name):
        raise DeclarationError(
            f"{name!r} cannot be the name of a queue",
            hint="use lower-case letters, digits and underscores, a letter first, 63 at most",
        )
    if concurrency is not None and not _is_count(concurrency):
        raise DeclarationError(f"concurrency is a number from 1 on, or None, not {concurrency!r}")
    if rate is not None:
        fits = isinstance(rate, tuple | list) and len(rate) == 2 and _is_count(rate[0]) and _is_seconds(rate[1])
        if not fits or rate[1] <= 0:
            raise DeclarationError(
                f"rate is a number of calls and a number of seconds, not {rate!r}",
                hint="rate=(100, 60): at most 100 begin within any 60 seconds",
            )
        rate = (rate[0], float(rate[1]))
    if fair_by is not None and not isinstance(fair_by, str):
        raise DeclarationError(f"fair_by is the name of an argument, not {fair_by!r}")
    return Queue(name, concurrency, rate, fair_by)


def terms_of(delay: Any, at: Any, priority: Any, unique: Any, debounce: Any) -> Terms:
    """The terms on which a call is to wait; `RuleBroken` where they make no sense."""
    for name, value in (("delay", delay), ("debounce", debounce)):
        if value is not None and not _is_seconds(value):
            raise RuleBroken(f"{name} is a number of seconds, not {value!r}")
    if sum(value is not None for value in (delay, at, debounce)) > 1:
        raise RuleBroken("of delay, at and debounce, a call has one")
    if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
        raise RuleBroken(f"at is a datetime with a time zone, not {at!r}")
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > MAX_PRIORITY:
        raise RuleBroken(f"priority is a number from {-MAX_PRIORITY} to {MAX_PRIORITY}, not {priority!r}")
    if unique is not None and (not isinstance(unique, str) or not _fits(unique)):
        raise RuleBroken(f"unique is text without NUL, of 1 to {MAX_UNIQUE_BYTES} bytes in UTF-8")
    if debounce is not None and unique is None:
        raise RuleBroken(
            "debounce needs unique: the name under which calls replace each other",
            hint='with_options(unique=f"user {user}", debounce=5)',
        )
    moment = None if at is None else int(at.timestamp() * 1e6)
    return Terms(float(delay or debounce or 0.0), moment, priority, unique, debounce is not None)


def checked_queues(queues: Mapping[str, Queue], functions: Iterable[Function[..., Any]]) -> Mapping[str, Queue]:
    """The queues of an app; `DeclarationError` where a function names one that is not there, or does not fit it."""
    for function in functions:
        name = function.options.queue
        if name is None:
            continue
        queue = queues.get(name)
        if queue is None:
            raise DeclarationError(
                f"{function.name} is for the queue {name!r}, which the app does not have",
                hint=f"declare it: app.queue({name!r}); there are: {', '.join(sorted(queues)) or 'none'}",
            )
        if queue.fair_by is not None and queue.fair_by not in function.parameters:
            raise DeclarationError(
                f"the queue {name} is fair by {queue.fair_by}, which is no argument of {function.name}",
            )
    return queues


def queued_call(
    program: Program,
    function: Function[..., Any],
    encoded: bytes,
    terms: Terms,
    *,
    id: bytes,
    caller: str,
    roles: Iterable[str],
    parent: bytes | None,
    now: int,
    step: int | None = None,
    key: str | None = None,
) -> Queued:
    """A call of a function as it is put into the queue now (microseconds since 1970), on these terms.

    A workflow has the version on which it ends, unless it has to wait for its turn: then it gets that when it begins.
    """
    queue = program.queues.get(function.options.queue or "")
    share = "" if queue is None or queue.fair_by is None else _share(json.loads(encoded).get(queue.fair_by))
    is_workflow = function.kind.value == "workflow"
    return Queued(
        id=id,
        function=function.name,
        input=encoded,
        caller=caller,
        parent=parent,
        due=terms.due(now),
        version=program.version if is_workflow and queue is None else None,
        roles=tuple(sorted(roles)) if is_workflow else (),
        step=step,
        epoch=1 if is_workflow else 0,
        queue="" if queue is None else queue.name,
        share=share,
        priority=terms.priority,
        unique=terms.unique,
        delayed=terms.delay > 0 or terms.at is not None,
        quiet=terms.quiet,
        key=key,
    )


def _share(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    if len(text) <= MAX_SHARE_BYTES:
        return text
    return hashlib.sha256(text.encode()).hexdigest()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_CONCURRENCY


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_DELAY_SECONDS


def _fits(text: str) -> bool:
    try:
        return bool(text) and "\0" not in text and len(text.encode()) <= MAX_UNIQUE_BYTES
    except UnicodeEncodeError:
        return False
