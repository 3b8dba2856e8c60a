"""Flow: a step that reads a row, updates another and inserts a third, and workflows of such steps."""

from apiary import App, Rejected, Transaction, Workflow

from . import statements

app = App("flow")

# As bench/workloads/flow.py has them.
KEYS = 100_000
STEPS = 5
STRIDE = 613


@app.transaction
def step(tx: Transaction, item: int, account: int, number: int, steps: int) -> int:
    """Charge an item to an account; its cost. Three statements."""
    cost = tx.execute(statements.COST, item=item).scalar()
    if cost is None or tx.execute(statements.SPEND, account=account, cost=cost).rowcount != 1:
        raise Rejected("no such item or account", code="unknown")
    tx.execute(statements.ADD_ENTRY, account=account, item=item, cost=cost, number=number, steps=steps)
    return cost


@app.workflow
def one(wf: Workflow, item: int, account: int) -> int:
    """One step; its cost."""
    return wf.run(step, item, account, 1, 1)


@app.workflow
def five(wf: Workflow, item: int, account: int) -> int:
    """Five steps, from these keys on; their cost."""
    return sum(wf.run(step, nth(item, number), nth(account, number), number, STEPS) for number in range(1, STEPS + 1))


@app.workflow(timeout=600)
def many(wf: Workflow, item: int, account: int, steps: int) -> int:
    """So many steps; their cost."""
    return sum(wf.run(step, nth(item, number), nth(account, number), number, steps) for number in range(1, steps + 1))


@app.transaction
def leave(tx: Transaction, item: int, account: int, count: int) -> None:
    """Leave so many workflows of one step in the queue."""
    for number in range(1, count + 1):
        tx.enqueue(one, nth(item, number), nth(account, number))


@app.workflow
def nap(wf: Workflow) -> None:
    """Sleep for a day."""
    wf.sleep(86_400)


@app.transaction
def put_to_sleep(tx: Transaction, count: int) -> None:
    """Begin so many naps."""
    for _ in range(count):
        tx.enqueue(nap)


def nth(key: int, number: int) -> int:
    """The key of a step, of which the first is number 1."""
    return (key - 1 + (number - 1) * STRIDE) % KEYS + 1


@app.query
def effects(tx: Transaction) -> int:
    """How many workflows have taken their last step."""
    return tx.execute(statements.EFFECTS).scalar()


@app.query
def violations(tx: Transaction) -> int:
    """What is charged and not entered, and steps that were taken too often or never."""
    return int(tx.execute(statements.VIOLATIONS).scalar())


@app.transaction
def load_steps(tx: Transaction, first: int, last: int) -> None:
    """Make the items and the accounts first..last."""
    tx.execute(statements.LOAD_ITEMS, first=first, last=last)
    tx.execute(statements.LOAD_ACCOUNTS, first=first, last=last)
