"""What hosts tell unasked, of calls for whose end nobody waits and of the log, as events."""

from __future__ import annotations

import json
import logging

from apiary.events import CallEnded, RecordsDropped, WorkflowBlocked
from apiary.platform.messages import Dropped, Ran
from apiary.runtime.errors import HostCrashed, from_problem
from apiary.runtime.ids import id_text

log = logging.getLogger("apiary")


def event_of(app: str, news: Ran | Dropped) -> CallEnded | WorkflowBlocked | RecordsDropped:
    """The event; what has been given up is told on the server's output, too."""
    if isinstance(news, Dropped):
        return RecordsDropped(app, news.records, news.effects)
    problem = json.loads(news.error) if news.error else None
    if problem is not None and isinstance(from_problem(problem), HostCrashed):
        log.error("the queued call %s of %s is given up: %s", id_text(news.id), app, problem["detail"])
    if news.blocked:
        return WorkflowBlocked(app, news.function, news.id, problem or {})
    return CallEnded(app, news.function, news.id, news.duration, problem, queued=True)
