"""What hosts tell of calls for whose end nobody waits, as events."""

from __future__ import annotations

import json
import logging

from apiary.events import CallEnded, WorkflowBlocked
from apiary.platform.messages import Ran
from apiary.runtime.errors import HostCrashed, from_problem
from apiary.runtime.ids import id_text

log = logging.getLogger("apiary")


def event_of(app: str, ran: Ran) -> CallEnded | WorkflowBlocked:
    """The event; what has been given up is told on the server's output, too."""
    problem = json.loads(ran.error) if ran.error else None
    if problem is not None and isinstance(from_problem(problem), HostCrashed):
        log.error("the queued call %s of %s is given up: %s", id_text(ran.id), app, problem["detail"])
    if ran.blocked:
        return WorkflowBlocked(app, ran.function, ran.id, problem or {})
    return CallEnded(app, ran.function, ran.id, ran.duration, problem, queued=True)
