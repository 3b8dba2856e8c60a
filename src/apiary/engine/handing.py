"""Gives calls of the queue to whoever runs them: lanes, the runner of actions, or what looks after workflows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from apiary.engine.backlog import Backlog
from apiary.engine.flows import Act, Flows
from apiary.engine.jobs import Job, Reply
from apiary.engine.uncommitted import Uncommitted
from apiary.runtime.call import Program
from apiary.runtime.declaration import Kind
from apiary.runtime.session import Call, Outcome, Record


class Handing:
    """Takes from the backlog what may begin. `observe` is told what calls come to that are not workflows.

    `ready`: a lane is to ask again soon.
    """

    def __init__(
        self,
        program: Program,
        backlog: Backlog,
        flows: Flows,
        act: Act,
        write: Callable[[Record, Callable[[bool], None]], None],
        observe: Reply,
        ready: Callable[[], None],
    ) -> None:
        self._program = program
        self._backlog = backlog
        self._flows = flows
        self._act = act
        self._observe = observe
        self._ready = ready
        self.uncommitted = Uncommitted(program, write, self._ran)

    def jobs(self, limit: int) -> list[Job]:
        """Up to `limit` calls begin; those among them that the lane is to run that asks."""
        jobs = []
        taken = self._backlog.take(limit)
        if taken and len(taken) == limit:
            self._ready()  # there may be more, and of actions nothing is written that would wake a lane before they end
        for call in taken:
            bound = self._program.functions.get(call.function)
            kind = bound.function.kind if bound is not None else None
            if kind is Kind.WORKFLOW and call.epoch:
                self._flows.enter(call, self._backlog.done)
            elif bound is not None and kind is Kind.ACTION and call.claimed:
                self._act(call, bound, self.uncommitted.settle)
            else:
                jobs.append(Job(call, bound, self._claimed if kind is Kind.ACTION else self.uncommitted.settle))
        return jobs

    def _claimed(self, call: Call, outcome: Outcome) -> None:
        """An action may begin, with the arguments that it has by now."""
        if outcome.error is None and outcome.pause is None and outcome.replayed is None:
            begins = replace(call, input=outcome.output, claimed=True)
            self._act(begins, self._program.find(call.function), self.uncommitted.settle)
        else:
            self.uncommitted.settle(call, outcome)

    def _ran(self, call: Call, outcome: Outcome) -> None:
        self._backlog.done(call, outcome)
        if outcome.pause is None:
            self._observe(call, outcome)
