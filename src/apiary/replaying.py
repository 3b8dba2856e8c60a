"""Runs a workflow again from a recorded run, with the code of now and without a database: does it do the same?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from apiary.bundle import load_app, load_from
from apiary.codec import compile_program
from apiary.runtime.call import Bound
from apiary.runtime.declaration import App, Kind
from apiary.runtime.driver import Steps
from apiary.runtime.errors import Nondeterministic, WrongArguments
from apiary.runtime.ids import id_bytes
from apiary.runtime.ledger import Again, Broken, Leave, Ledger
from apiary.runtime.machine import WHOLE, Op, Operation, Step
from apiary.runtime.session import Call, Instance, WorkflowSession
from apiary.runtime.transaction import Notes
from apiary.runtime.undoing import CANCELLING
from apiary.runtime.workflow import Workflow, _running

FORMATS = (1,)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a workflow came to with the code of now, as far as is recorded.

    `status`: `ok` with its `result`; `raised` with the `error`; `waiting`, where it goes on behind what is recorded;
    `continues`, where it begins again.
    `steps`: so many operations fit their records. `recorded`: the status that it had when it was exported.
    """

    status: str
    recorded: str
    steps: int
    result: Any = None
    error: BaseException | None = None


def replay(app: App | str | Path, recorded: str | Path | Mapping[str, Any]) -> Replayed:
    """Run the body of a workflow again, answered from what `apiary workflow export` wrote.

    `app`: an `App`, the name of a module that makes one, or a path. `recorded`: a file, or what is in it. No function
    of the app is run but the body. Raises `Nondeterministic`, with the step, what was recorded and what came, where the
    code does something else than it did: workflows that run could not go on with it.
    """
    if not isinstance(app, App):
        app = load_from(Path(app)) if Path(app).exists() else load_app(str(app))
    run = recorded if isinstance(recorded, Mapping) else json.loads(Path(recorded).read_text(encoding="utf-8"))
    if run.get("format") not in FORMATS:
        raise WrongArguments(f"this is no recorded run of a workflow: its format is {run.get('format')!r:.50}")
    program = compile_program(app, run["version"])
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
    return _ran(bound, call, Steps(program, call, session, _Unguarded(), instance, notes, ledger), ledger, run)


def _ran(bound: Bound, call: Call, steps: Steps, ledger: _Strict, run: Mapping[str, Any]) -> Replayed:
    result: Any = None
    failed: BaseException | None = None
    token = _running.set(True)
    try:
        arguments = bound.codec.decode(call)
        result = bound.codec.decode_result(bound.codec.encode(bound.function.body(Workflow(steps), **arguments)))
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
        return Replayed("raised", run["status"], done, error=failed)
    return Replayed("ok", run["status"], done, result)


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


class _Unguarded:
    """No deadlines."""

    def begin(self, call: Call, seconds: float) -> None:
        """Nothing ends it."""

    def end(self) -> bool:
        return False


def _step(row: Mapping[str, Any]) -> Step:
    output = None if row["output"] is None else row["output"].encode()
    given = row["input"].encode()
    return Step(row["step"], id_bytes(row["id"]), row["kind"], row["function"], given, output, row["error"])
