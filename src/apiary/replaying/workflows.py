"""Runs the body of a workflow again from its recorded steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from apiary.replaying.outcome import Replayed, Unguarded, unlike_error, unlike_output
from apiary.runtime.call import Bound, Program
from apiary.runtime.declaration import Kind
from apiary.runtime.driver import Steps
from apiary.runtime.errors import Nondeterministic
from apiary.runtime.ids import id_bytes
from apiary.runtime.ledger import Again, Broken, Leave, Ledger
from apiary.runtime.machine import WHOLE, Op, Operation, Step
from apiary.runtime.session import Call, Instance, WorkflowSession
from apiary.runtime.transaction import Notes
from apiary.runtime.undoing import CANCELLING
from apiary.runtime.workflow import Workflow, _running


def replay_workflow(program: Program, run: Mapping[str, Any]) -> Replayed:
    """Run the body of a workflow again, answered from its steps. No function of the app is run but the body."""
    bound = program.find(run["function"])
    if bound.function.kind is not Kind.WORKFLOW:
        raise Nondeterministic(f"{run['function']} was a workflow, and is now a {bound.function.kind.value}")
    identifier = id_bytes(run["id"])
    instance = Instance(
        id=identifier,
        function=run["function"],
        version=run["version"],
        input=run["input"].encode(),
        caller=run["caller"],
        roles=("admin",),
        key=None,
        parent=None,
        step=None,
        started=run["started"],
        first=run["first"],
        issued=run["issued"],
        state=CANCELLING,
    )
    call = Call(identifier, instance.function, instance.input, run["caller"], frozenset({"admin"}), queued=True)
    session = cast(WorkflowSession, _Tape([_step(step) for step in run["steps"]]))
    ledger = _Strict(run["status"], call, session, instance)
    notes = Notes(instance.started)
    return _ran(bound, call, Steps(program, call, session, Unguarded(), instance, notes, ledger), ledger, run)


def _ran(bound: Bound, call: Call, steps: Steps, ledger: _Strict, run: Mapping[str, Any]) -> Replayed:
    result: Any = None
    output = b""
    failed: BaseException | None = None
    token = _running.set(True)
    try:
        arguments = bound.codec.decode(call)
        output = bound.codec.encode(bound.function.body(Workflow(steps), **arguments))
        result = bound.codec.decode_result(output)
    except Leave:
        pass
    except Exception as error:  # noqa: BLE001 - what the body raises is what it came to
        failed = error
    finally:
        _running.reset(token)
    if isinstance(ledger.why, Broken):
        raise ledger.why.error
    done = ledger.next - run["first"]
    if ledger.why is not None:
        return Replayed("continues" if isinstance(ledger.why, Again) else "waiting", run["status"], done)
    if ledger.next < run["issued"]:
        how = "returned" if failed is None else f"raised {type(failed).__name__}: {failed}"
        raise Nondeterministic(
            f"step {ledger.next} is not asked for any more: {run['function']} {how}", step=ledger.next
        )
    if failed is not None:
        return Replayed("raised", run["status"], done, error=failed, difference=unlike_error(run, failed))
    return Replayed("ok", run["status"], done, result, difference=unlike_output(run, output))


class _Strict(Ledger):
    """A ledger in which nothing new is done. Where the workflow had ended, it may not even be asked for."""

    def __init__(self, status: str, call: Call, session: WorkflowSession, instance: Instance) -> None:
        super().__init__(instance.version, call, session, instance, stored=True, most=1)
        self._ended = status in ("ok", "rejected", "failed")
        self._issued = instance.issued
        self._asked: Operation | None = None

    def begin(self, operation: Operation) -> tuple[int, Step | None]:
        self._asked = operation
        if self._ended and self.next >= self._issued and operation.op is Op.WORKFLOW:
            self._instance.issued = self.next + 1  # it may have outlived the one that started it
        return super().begin(operation)

    def leave(self, why: Any) -> NoReturn:
        if self._ended and not isinstance(why, Broken | Again) and self._asked is not None:
            number = self.next - 1
            asked = f"{self._asked.op} {self._asked.name}({self._asked.input.decode()[:200]})"
            why = Broken(Nondeterministic(f"behind the last step that was recorded comes now {asked}", step=number))
        super().leave(why)


class _Tape:
    """What a session has of a recorded run."""

    recording = True

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = {step.number: step for step in steps}

    def steps(self, workflow: bytes, first: int, end: int, most: int = WHOLE) -> list[Step]:
        return [self._steps[number] for number in range(first, end) if number in self._steps]


def _step(row: Mapping[str, Any]) -> Step:
    output = None if row["output"] is None else row["output"].encode()
    given = row["input"].encode()
    return Step(row["step"], id_bytes(row["id"]), row["kind"], row["function"], given, output, row["error"])
