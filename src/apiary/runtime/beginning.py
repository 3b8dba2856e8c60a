"""How workflows begin: at once, later in their queue, or not again, where the same call has begun one before."""

from __future__ import annotations

import json

from apiary.runtime.call import Bound, Program
from apiary.runtime.errors import Error, KeyReused
from apiary.runtime.ids import id_text
from apiary.runtime.machine import CONTINUED
from apiary.runtime.plain import same_json
from apiary.runtime.queueing import AT_ONCE, queued_call
from apiary.runtime.repeated import check_first_caller
from apiary.runtime.session import NEVER, Call, Instance, Outcome, Pause, WorkflowSession
from apiary.runtime.transaction import check_roles, now_microseconds


def begun(program: Program, bound: Bound, call: Call) -> Instance:
    """A workflow that begins now."""
    started = now_microseconds()
    return Instance(
        id=call.id,
        function=call.function,
        version=program.version,
        input=call.input,
        caller=call.caller,
        roles=tuple(call.roles),
        key=call.key,
        parent=call.parent,
        step=call.step,
        started=started,
        deadline=deadline_of(bound, started),
    )


def deadline_of(bound: Bound, started: int) -> int:
    """Until when a workflow may take that began at `started`; both in microseconds since 1970."""
    lifetime = bound.function.options.lifetime
    return NEVER if lifetime is None else started + int(lifetime * 1e6)


def left_to_queue(program: Program, bound: Bound, call: Call, session: WorkflowSession) -> Outcome:
    """A workflow that somebody starts waits in its queue like those that transactions leave there."""
    function = bound.function
    check_roles(function, call.roles)
    try:
        bound.codec.decode(call)
    except Error:
        raise
    except Exception:  # noqa: BLE001 - of the user's types: it is recorded when the workflow begins
        pass
    queued = queued_call(
        program,
        function,
        call.input or b"{}",
        AT_ONCE,
        id=call.id,
        caller=call.caller,
        roles=call.roles,
        parent=call.parent,
        now=now_microseconds(),
        step=call.step,
        key=call.key,
    )
    session.enqueue(queued)
    return Outcome(pause=Pause(NEVER, queued.epoch))


def first_input(session: WorkflowSession, instance: Instance, otherwise: bytes | None = None) -> bytes:
    """The arguments with which a workflow was begun, as a record shows them where it has begun again since then.

    To those who called it, these are its arguments.
    """
    steps = session.steps(instance.id, CONTINUED, CONTINUED + 1) if instance.first else ()
    return steps[0].input if steps else otherwise or instance.input


def joined(bound: Bound, call: Call, found: Instance, first: bytes) -> Outcome:
    """The answer to a call that repeats one which has begun: the same end, when it comes."""
    check_roles(bound.function, call.roles)
    check_first_caller(found.caller, call)
    try:
        same = first is not found.input and bound.codec.has_secrets
        same = same or same_json(json.loads(first), json.loads(call.input or b"{}"))
    except (ValueError, RecursionError):
        bound.codec.decode(call)
        same = False
    if found.function != call.function or not same:
        raise KeyReused(
            f"the idempotency key was used for another call of {found.function}", first_call_id=id_text(found.id)
        )
    return Outcome(pause=Pause(NEVER, found.epoch, of=found.id))
