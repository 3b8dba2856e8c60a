"""An app whose effects can be counted, and functions that harm the process in which they run."""

import itertools
import os
import re
import time
from collections import deque

from apiary import App, Transaction

app = App("faults")

TIMEOUT = 30
KEPT: list[bytearray] = []
"""Memory that stays for as long as the process."""


@app.transaction(timeout=TIMEOUT)
def effect(tx: Transaction, key: str) -> int:
    """Leave one row; returns its number."""
    return tx.execute("insert into effects (key, call) values (:key, :call) returning id", key=key, call=tx.id).scalar()


@app.transaction(timeout=TIMEOUT)
def slow_effect(tx: Transaction, key: str, seconds: float) -> int:
    """Take some time in Python, then leave one row."""
    time.sleep(seconds)
    return effect(tx, key)


@app.transaction(timeout=TIMEOUT)
def effect_then_sleep(tx: Transaction, key: str, seconds: float) -> int:
    """Leave one row, then take some time in the database."""
    number = effect(tx, key)
    tx.execute("select pg_sleep(:seconds)", seconds=seconds)
    return number


@app.transaction(timeout=TIMEOUT)
def later(tx: Transaction, key: str) -> str:
    """Leave one row by a call of the queue."""
    return tx.enqueue(effect, key)


@app.query(timeout=TIMEOUT)
def effects(tx: Transaction, key: str) -> int:
    """How many rows there are of a key."""
    return tx.execute("select count(*) from effects where key = :key", key=key).scalar()


@app.action(timeout=TIMEOUT)
def act(key: str) -> str:
    """Touch nothing."""
    return key


@app.transaction(timeout=1)
def touch(tx: Transaction, key: str, row: int) -> int:
    """Leave a row, and count up another one, which somebody may have locked."""
    effect(tx, key)
    return tx.execute("update rows set value = value + 1 where id = :id returning value", id=row).scalar()


# Harm


@app.transaction(timeout=0.5)
def busy(tx: Transaction, key: str, how: str) -> int:
    """Leave a row, and never end, in ways that are hard to stop."""
    number = effect(tx, key)
    if how == "regex":
        re.match(r"(a+)+$", "a" * 64 + "b")
    elif how == "power":
        10**10**8
    elif how == "iterate":
        deque(itertools.count(), maxlen=0)
    elif how == "allocate":
        deque(map(bytearray, itertools.repeat(100_000)), maxlen=1)
    elif how == "swallow":
        while True:
            try:
                while True:
                    tx.execute("select 1")
            except BaseException:  # noqa: BLE001 - the point
                pass
    return number


@app.transaction(timeout=60)
def die(tx: Transaction, key: str) -> int:
    """Leave a row, and end the process."""
    effect(tx, key)
    os.kill(os.getpid(), 9)
    return 0


@app.transaction
def die_later(tx: Transaction, key: str) -> str:
    """End the process from a call of the queue."""
    return tx.enqueue(die, key)


@app.transaction
def grow(tx: Transaction, mebibytes: int) -> int:
    """Take memory, and keep it; returns the process."""
    KEPT.append(bytearray(b"x") * (mebibytes << 20))
    return os.getpid()


@app.transaction
def hog(tx: Transaction, key: str) -> int:
    """Leave a row, and take all the memory that there is."""
    effect(tx, key)
    kept = []
    while True:
        kept.append(b"x" * (64 << 20))


@app.query
def large(tx: Transaction, mebibytes: int) -> str:
    """A result of some size."""
    return "x" * (mebibytes << 20)


@app.transaction
def run(tx: Transaction, source: str) -> str:
    """Run a piece of code, which may set `result`; returns that, or the error, as Python writes it."""
    names = {"tx": tx, "result": None}
    try:
        exec(source, names)
    except Exception as error:  # noqa: BLE001 - what it raises is what is asked for
        return f"{type(error).__name__}: {error}"
    return repr(names["result"])
