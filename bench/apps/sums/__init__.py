"""Sums: a function that asks the database for nothing, so that what remains is the cost of a call."""

from apiary import App, Transaction

app = App("sums")


@app.transaction
def add(tx: Transaction, left: int, right: int = 1) -> int:
    """The sum of two numbers."""
    return left + right
