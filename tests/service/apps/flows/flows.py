"""An app of workflows, for tests of the ways in which people and programs reach them."""

import os
from typing import Any

from pydantic import SecretStr

from apiary import App, Rejected, Transaction, Workflow

app = App("flows", description="Workflows of all kinds.")


@app.transaction
def put(tx: Transaction, key: str, n: int = 1) -> int:
    """Keep an effect."""
    tx.execute("insert into effects (key, n) values (:key, :n)", key=key, n=n)
    return n


@app.transaction
def unput(tx: Transaction, n: int) -> None:
    """Undo an effect, by another one."""
    tx.execute("insert into effects (key, n) values ('undone', :n)", n=n)


@app.query
def effects(tx: Transaction, key: str) -> list[int]:
    """The effects of one key."""
    return tx.execute("select n from effects where key = :key order by n", key=key).scalars()


@app.action
def look(path: str) -> str:
    """Look whether a file is there: what a test decides."""
    return "there" if os.path.exists(path) else "missing"


@app.workflow
def five(wf: Workflow, key: str) -> int:
    """Five effects, one after another."""
    return sum(wf.run(put, key, n) for n in range(5))


@app.workflow
def reads(wf: Workflow, key: str) -> list[int]:
    """Nothing is written by this one."""
    return wf.run(effects, key)


@app.workflow
def nap(wf: Workflow, seconds: float) -> float:
    """Sleep."""
    wf.sleep(min(abs(seconds), 1e6))
    return seconds


@app.workflow
def approval(wf: Workflow, key: str = "order") -> Any:
    """Wait for an answer; undo what was done if it is cancelled."""
    wf.run(put, key, 7, undo=unput)
    wf.publish("state", {"waits": True})
    return wf.receive("answer")


@app.workflow
def parent(wf: Workflow, key: str) -> Any:
    """Wait for a child."""
    return wf.run(approval, key)


@app.workflow
def refuse(wf: Workflow, key: str) -> None:
    """Do something, and refuse all the same."""
    wf.run(put, key, 3)
    raise Rejected("not today", code="not_today", key=key)


@app.workflow
def fail(wf: Workflow) -> None:
    """A mistake."""
    raise LookupError("a mistake of the app")


@app.workflow
def shifty(wf: Workflow, path: str) -> str:
    """Do something else once there is a file: against the rules."""
    wf.run(put, "shifty", 2 if os.path.exists(path) else 1)
    wf.receive("go")
    return "done"


@app.workflow(roles=["clerk"])
def for_clerks(wf: Workflow) -> str:
    """Not for everybody."""
    return wf.caller


@app.workflow
def guarded(wf: Workflow, key: str, code: SecretStr) -> str:
    """Wait, with a secret."""
    return f"{key} {len(code.get_secret_value())} {wf.receive('answer')}"


@app.workflow
def guarding(wf: Workflow, key: str, code: SecretStr) -> str:
    """Give the secret to a child."""
    return wf.run(guarded, key, code)


@app.transaction
def order(tx: Transaction, key: str) -> str:
    """Start a workflow, if this commits."""
    return tx.enqueue(approval, key=key)


@app.transaction
def answer(tx: Transaction, workflow: str, value: str) -> None:
    """Send a message, if this commits."""
    tx.send(workflow, "answer", value)
