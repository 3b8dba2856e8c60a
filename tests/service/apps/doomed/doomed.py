"""An app whose workflows end their process, and with an action that takes longer than its timeout."""

import os
import signal
import time

from apiary import App, Transaction, Workflow, beat

app = App("doomed")


@app.transaction
def put(tx: Transaction, key: str) -> str:
    """Keep an effect."""
    tx.execute("insert into effects (key) values (:key)", key=key)
    return key


@app.transaction
def unput(tx: Transaction, key: str) -> None:
    """Undo an effect."""
    tx.execute("delete from effects where key = :key", key=key)


@app.query
def effects(tx: Transaction) -> list[str]:
    """What was done, and not undone."""
    return tx.execute("select key from effects order by key").scalars()


@app.transaction(placement="host")
def end_in_a_transaction(tx: Transaction) -> None:
    """End the process."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.action
def end_in_an_action() -> None:
    """End the process."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.workflow
def doomed(wf: Workflow, key: str, acting: bool) -> None:
    """Do something, and end the process each time that it is run."""
    wf.run(put, key, undo=unput)
    wf.sleep(0.01)
    wf.run(end_in_an_action) if acting else wf.run(end_in_a_transaction)


@app.action(timeout=1.0)
def copies(parts: int) -> int:
    """Take longer than the timeout, and say so."""
    for _ in range(parts):
        time.sleep(0.2)
        beat()
    return parts


@app.workflow
def copying(wf: Workflow, parts: int) -> int:
    """Have it done."""
    return wf.run(copies, parts)
