"""Rows: transactions that meet on few rows, with a key and without, and some for which no key could be named."""

from apiary import App, Transaction

app = App("rows")

READ = "select value from counters where key = :key"
WRITE = "update counters set value = :value where key = :key"
LOAD = """
    insert into counters (key, value)
    select n, 0 from generate_series(cast(:first as integer), cast(:last as integer)) n
"""


def added(tx: Transaction, key: int, by: int) -> int:
    value = tx.execute(READ, key=key).scalar() + by
    tx.execute(WRITE, key=key, value=value)
    return value


@app.transaction(key="key")
def keyed(tx: Transaction, key: int) -> int:
    """Add one to a counter."""
    return added(tx, key, 1)


@app.transaction
def unkeyed(tx: Transaction, key: int) -> int:
    """The same."""
    return added(tx, key, 1)


@app.transaction
def move(tx: Transaction, key: int, other: int) -> int:
    """Take one from a counter and add it to another, in the order in which they come: two of these may deadlock."""
    added(tx, key, -1)
    return added(tx, other, 1)


@app.transaction
def load(tx: Transaction, first: int, last: int) -> None:
    """Make the counters first..last, all zero."""
    tx.execute(LOAD, first=first, last=last)
