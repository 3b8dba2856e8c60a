"""Increment: the smallest transaction that reads and writes."""

from apiary import App, Transaction

from . import statements

VERSION = 1

app = App("increment")


@app.transaction(key="key")
def increment(tx: Transaction, key: int) -> int:
    """Add one to a counter and return its new value."""
    value = (tx.execute(statements.READ, key=key).scalar() or 0) + 1
    tx.execute(statements.WRITE, key=key, value=value)
    return value


@app.transaction(key="key")
def add(tx: Transaction, key: int) -> int:
    """As `increment`, in one statement."""
    return tx.execute(statements.ADD, key=key).scalar()


@app.query
def version(tx: Transaction) -> int:
    """The version of this code, to see when a deployment has taken effect."""
    return VERSION


@app.query
def effects(tx: Transaction) -> int:
    """How many increments have taken effect."""
    return tx.execute(statements.EFFECTS).scalar()


@app.transaction
def load(tx: Transaction, first: int, last: int) -> None:
    """Make the counters first..last, all zero."""
    tx.execute(statements.LOAD, first=first, last=last)
