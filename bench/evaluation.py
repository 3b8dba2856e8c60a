"""What is measured where nobody says what: the evaluation as `make bench` runs it, in about half an hour.

Every product on every workload that it has, uniform keys. Hot keys where writes collide on them, on those products
whose answer to conflicts differs. A network before the database, our own variants, and the open loop on the checkout,
which asks the database most.
"""

from bench.mix import UNIFORM
from bench.workloads import FLOW_NAMES, WORKLOADS

OURS = ("apiary", "apiary-postgres")
SERVICES = ("fastapi", "sqlalchemy", "functions")
FLOOR = "bare"
ENGINES = ("dbos", "dbos-sqlite", "restate", "procrastinate")
CAPTURES = ("apiary-capture-off", "apiary-capture-reads", "apiary-capture-writes")
VARIANTS = ("apiary-unrecorded", *CAPTURES)  # the others are on the curve of clients
REMOTE = ("apiary-postgres-remote", "apiary-beside-remote", "fastapi-remote")
VARIED = "checkout"

# Retwis has timelines in its mix.
CHOSEN_WORKLOADS = tuple(name for name in WORKLOADS if name != "timelines")

SKEWED_WORKLOADS = frozenset({"increment", "checkout", "workflow1"})
SKEWED_PEERS = frozenset({*OURS, "fastapi", "dbos", "restate"})

OPEN_RATES = {VARIED: (100.0, 200.0, 400.0, 800.0, 1_600.0, 3_200.0)}
OPEN_PEERS = frozenset({*OURS, "fastapi"})


def peers_of(workload: str) -> tuple[str, ...]:
    """The peers that a workload is measured on."""
    if workload in FLOW_NAMES:
        return (*OURS, *ENGINES)
    return (*OURS, *SERVICES, FLOOR, *VARIANTS, *REMOTE) if workload == VARIED else (*OURS, *SERVICES, FLOOR)


def measured(workload: str, peer: str, keys: str) -> bool:
    """Whether these keys are drawn on this peer."""
    return keys == UNIFORM or (workload in SKEWED_WORKLOADS and peer in SKEWED_PEERS)


def rates_of(workload: str, peer: str) -> tuple[float, ...]:
    """The rates of the open loop."""
    return OPEN_RATES.get(workload, ()) if peer in OPEN_PEERS else ()
