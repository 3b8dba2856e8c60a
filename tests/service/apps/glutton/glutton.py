"""An app that eats memory, beside an action that takes its time."""

import time
from pathlib import Path

from apiary import App, Transaction

app = App("glutton")
KEPT: list[bytearray] = []
MEGABYTE = 2**20


@app.transaction
def bite(tx: Transaction, megabytes: int) -> int:
    """Ask for much at once."""
    return len(bytearray(megabytes * MEGABYTE))


@app.transaction
def gorge(tx: Transaction) -> int:
    """Ask for more and more, and give it back."""
    kept = []
    while True:
        kept.append(bytearray(8 * MEGABYTE))


@app.action
def gorge_outside() -> int:
    """Ask for more and more outside of a transaction."""
    kept = []
    while True:
        kept.append(bytearray(8 * MEGABYTE))


@app.transaction
def hoard(tx: Transaction) -> int:
    """Ask for more and more, and keep it."""
    while True:
        KEPT.append(bytearray(8 * MEGABYTE))


@app.action
def wait(file: str) -> int:
    """Note the start in a file, and wait until that has gone on."""
    path = Path(file)
    with path.open("a") as lines:
        lines.write("begun\n")
    while not path.with_suffix(".end").exists():
        time.sleep(0.01)
    return 1
