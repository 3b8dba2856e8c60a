"""A process of its own for `test_long_workflows.py`: begins a long workflow, or has it go on, and tells of it."""

import json
import resource
import sys
import time

import apiary
from apiary import App, Transaction, Workflow
from apiary.log.workflows import workflows

app = App("long_one")


@app.transaction
def blob(tx: Transaction, n: int, size: int) -> str:
    """Something of this size."""
    return f"{n % 10}" * size


@app.workflow
def long_one(wf: Workflow, steps: int, size: int) -> int:
    """Many steps, then a message."""
    total = sum(len(wf.run(blob, n, size)) for n in range(steps))
    wf.receive("go")
    return total + len(wf.run(blob, steps, size))


def main(database: str, workflow: str, steps: str, size: str) -> None:
    """Begin it, where `workflow` is empty, until it waits for the message; else send that, and wait for the end."""
    with apiary.open(app, database) as opened:
        before, began = peak_bytes(), time.monotonic()
        if workflow:
            handle = opened.workflow(workflow)
            handle.send("go")
            result = handle.result()
        else:
            handle = opened.start(long_one, int(steps), int(size))
            while not any(found["waits_for"]["for"] == "message" for found in workflows(opened._log, status="waiting")):
                time.sleep(0.05)
            result = None
        told = {"id": handle.id, "result": result, "seconds": time.monotonic() - began, "grew": peak_bytes() - before}
    print(json.dumps(told))


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
