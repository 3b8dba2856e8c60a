"""Workflows of one and of five transactions, and queued calls; 100,000 items and accounts, 8 clients.

Each transaction reads an item, updates an account by its key and inserts an entry: 3 statements, 3 rows. A workflow
names one item and one account; its later steps take those that follow from them. Its answer, the sum of the costs,
leaves when all is durable. A queued call is a workflow of one transaction that is enqueued, then waited for.
"""

from dataclasses import replace

from bench.mix import Key, Load, Operation, Workload

KEYS = 100_000
STEPS = 5
CLIENTS = 8
STRIDE = 613  # no divisor in common with KEYS


def nth(key: int, number: int) -> int:
    """The key of a step, of which the first is number 1."""
    return (key - 1 + (number - 1) * STRIDE) % KEYS + 1


ONE = Operation(
    "one", 1.0, draws={"item": Key(KEYS), "account": Key(KEYS)}, sends={"item": "item", "account": "account"}
)
WORKFLOW_1 = Workload(
    name="workflow1",
    app="flow",
    about="a workflow of 1 transaction (3 statements); 100,000 items and accounts",
    operations=(ONE,),
    load=(Load("load_steps", rows=KEYS, batch=20_000),),
    effects="effects",
    violations="violations",
    clients=CLIENTS,
)
WORKFLOW_5 = replace(
    WORKFLOW_1,
    name="workflow5",
    about="a workflow of 5 transactions (15 statements); 100,000 items and accounts",
    operations=(replace(ONE, function="five"),),
)
QUEUED = replace(
    WORKFLOW_1,
    name="queued",
    about="a workflow of 1 transaction, enqueued and waited for; 100,000 items and accounts",
    queued=True,
)
