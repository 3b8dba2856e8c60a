"""What people and programs do to workflows from outside: send, cancel, resume, fork. Each is a call with a record.

They are small transactions of the platform's own, which run where those of the app do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from apiary.runtime.call import Program, problem_of
from apiary.runtime.errors import Conflict, Error, Forbidden, NotFound, UnknownFunction, WrongArguments
from apiary.runtime.ids import id_bytes, id_text
from apiary.runtime.machine import PAGE, Step, step_id
from apiary.runtime.session import NEVER, Call, Instance, Outcome, Record, WorkflowSession
from apiary.runtime.transaction import now_microseconds
from apiary.runtime.undoing import UNDOING

PREFIX = "apiary."
KIND = "platform"

Operation = Callable[[Program, Call, WorkflowSession, Mapping[str, Any]], Any]


def control(program: Program, call: Call, session: WorkflowSession) -> Outcome:
    """Run one of the operations in the open transaction; raises `Duplicate` where the call has a record already."""
    started = now_microseconds()
    operation = OPERATIONS.get(call.function)
    if operation is None:
        raise UnknownFunction(f"the platform has no operation {call.function}")
    if "admin" not in call.roles:
        raise Forbidden("this is for administrators", hint="use the admin key of the server")
    session.savepoint("call")
    try:
        arguments = json.loads(call.input)
        output = program.to_json(operation(program, call, session, arguments))
        session.record(_record(program, call, started, output))
    except Error as error:
        session.undo("call")
        return Outcome(error=problem_of(call, error), cause=error)
    except BaseException:
        session.undo("call")
        raise
    session.release("call")
    return Outcome(output, duration=now_microseconds() - started)


def _record(program: Program, call: Call, started: int, output: bytes) -> Record:
    return Record(
        id=call.id,
        function=call.function,
        kind=KIND,
        version=program.version,
        caller=call.caller,
        attempt=call.attempt,
        started=started,
        duration=now_microseconds() - started,
        status="ok",
        input=call.input,
        output=output,
        key=call.key,
    )


def _send(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> None:
    """A message for a workflow, on a topic."""
    workflow = _identifier(given)
    topic = given.get("topic")
    if not isinstance(topic, str):
        raise WrongArguments("a message has a topic, which is text")
    if not session.send(workflow, topic, program.to_json(given.get("value")), call.id):
        raise _not_running(session, workflow)


def _cancel(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> None:
    """End a workflow at its next step; what it has done is undone as far as it says how."""
    instance = _running(session, given)
    if instance.state != UNDOING:
        instance.state, instance.problem = "cancelling", None
    session.keep_instance(instance, fresh=False)
    session.wake(instance.id, None)


def _resume(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> None:
    """Let a workflow that is blocked try again."""
    instance = _running(session, given)
    if instance.state != "blocked":
        raise Conflict(f"the workflow {id_text(instance.id)} is not blocked")
    instance.state, instance.problem, instance.due = "", None, NEVER
    session.keep_instance(instance, fresh=False)
    session.wake(instance.id, None)


def _fork(program: Program, call: Call, session: WorkflowSession, given: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a new workflow with what another one has recorded below a step; it goes on from there, on this version."""
    origin = _identifier(given)
    first, before = _begun(session, origin)
    step = given.get("step")
    end = min(step, before) if isinstance(step, int) else before
    version = given.get("version") or program.version
    started = now_microseconds()
    bound = program.functions.get(first.function)
    lifetime = bound.function.options.lifetime if bound is not None else None
    fork = Instance(
        id=call.id,
        function=first.function,
        version=version,
        input=first.input,
        caller=first.caller,
        roles=first.roles,
        key=None,
        parent=None,
        step=None,
        started=started,
        first=first.first,
        issued=first.first,
        due=NEVER,
        deadline=NEVER if lifetime is None else started + int(lifetime * 1e6),
    )
    for number in range(first.first, end, PAGE):
        for found in session.steps(origin, number, min(number + PAGE, end)):
            session.record(_copied(found, fork, started))
            fork.issued += found.number == fork.issued  # a child that the other one waits for is begun again
    session.keep_instance(fork, fresh=True)
    session.wake(fork.id, None)
    return {"id": id_text(fork.id), "from": id_text(origin), "step": end}


def _copied(step: Step, fork: Instance, started: int) -> Record:
    return Record(
        id=step_id(fork.id, step.number),
        function=step.function,
        kind=step.kind,
        version=fork.version,
        caller=fork.caller,
        attempt=1,
        started=started,
        duration=0,
        status="ok" if step.error is None else "failed",
        input=step.input,
        output=step.output,
        error=step.error,
        parent=fork.id,
        step=step.number,
    )


def _begun(session: WorkflowSession, workflow: bytes) -> tuple[Instance, int]:
    """A workflow, running or ended, and the number behind its last step."""
    instance = session.instance(workflow, None)
    if instance is None:
        record = session.find(workflow, None)
        if record is None or record.kind != "workflow":
            raise _unknown(workflow)
        instance = Instance(
            workflow, record.function, record.version, record.input, record.caller, ("admin",), None, None, None, 0
        )
    last = instance.first
    while steps := session.steps(workflow, last, last + PAGE):
        last = steps[-1].number + 1
    return instance, last


def _running(session: WorkflowSession, given: Mapping[str, Any]) -> Instance:
    workflow = _identifier(given)
    instance = session.instance(workflow, None)
    if instance is None:
        raise _not_running(session, workflow)
    return instance


def _not_running(session: WorkflowSession, workflow: bytes) -> Error:
    if session.find(workflow, None) is not None:
        return Conflict(f"the workflow {id_text(workflow)} has ended")
    return _unknown(workflow)


def _unknown(workflow: bytes) -> NotFound:
    return NotFound(f"there is no workflow {id_text(workflow)}", hint="list them: apiary workflow list")


def _identifier(given: Mapping[str, Any]) -> bytes:
    try:
        return id_bytes(str(given.get("workflow")))
    except ValueError:
        raise NotFound(f"{given.get('workflow')!r} is not the id of a workflow") from None


OPERATIONS: dict[str, Operation] = {
    "apiary.send": _send,
    "apiary.cancel": _cancel,
    "apiary.resume": _resume,
    "apiary.fork": _fork,
}
