"""Flow: a step that reads a row, updates another and inserts a third, and workflows of such steps."""

from apiary import App, Rejected, Transaction

from . import statements

app = App("flow")


@app.transaction
def step(tx: Transaction, item: int, account: int, number: int, steps: int) -> int:
    """Charge an item to an account; its cost. Three statements."""
    cost = tx.execute(statements.COST, item=item).scalar()
    if cost is None or tx.execute(statements.SPEND, account=account, cost=cost).rowcount != 1:
        raise Rejected("no such item or account", code="unknown")
    tx.execute(statements.ADD_ENTRY, account=account, item=item, cost=cost, number=number, steps=steps)
    return cost


@app.query
def effects(tx: Transaction) -> int:
    """How many workflows have taken their last step."""
    return tx.execute(statements.EFFECTS).scalar()


@app.query
def violations(tx: Transaction) -> int:
    """What is charged and not entered, and steps that were taken too often or never."""
    return tx.execute(statements.VIOLATIONS).scalar()


@app.transaction
def load_steps(tx: Transaction, first: int, last: int) -> None:
    """Make the items and the accounts first..last."""
    tx.execute(statements.LOAD_ITEMS, first=first, last=last)
    tx.execute(statements.LOAD_ACCOUNTS, first=first, last=last)
