"""TPC-C, new order and payment 50/50, on a small scale: 2 warehouses, 10,000 items. No official result.

As in the specification (revision 5.11): both transactions with all their reads and writes, 10 districts a warehouse,
3,000 customers a district, 5 to 15 lines an order, one line in a hundred and 15 % of the payments for the other
warehouse, 60 % of the customers by last name, a tenth with bad credit. Not as there: 10,000 items instead of 100,000;
no orders to begin with (neither transaction reads old ones); customers and items uniform (or Zipf) instead of NURand,
the items of an order following from its first; no order with an unknown item, because that is an error over HTTP; no
waiting terminals. The conditions of consistency (clause 3.3.2) are checked after all runs.
"""

from typing import NamedTuple

from bench.mix import Key, Load, Operation, Range, Workload

WAREHOUSES = 2
DISTRICTS = 10
CUSTOMERS = 3_000
ITEMS = 10_000

SYLLABLES = ("BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING")


class Wanted(NamedTuple):
    """A line of an order that is to be made."""

    number: int
    item: int
    supplier: int
    quantity: int


def order_lines(warehouse: int, item: int, count: int) -> list[Wanted]:
    """The lines of an order, as bench/apps/tpcc makes them of a request. For those who do not run that app."""
    items = sorted((item - 1 + number * 613) % ITEMS + 1 for number in range(count))
    return [
        Wanted(number, one, other(warehouse) if (one * 31 + item) % 100 == 0 else warehouse, 1 + (one + item) % 10)
        for number, one in enumerate(items, 1)
    ]


def other(warehouse: int) -> int:
    return warehouse % WAREHOUSES + 1


def last_name(number: int) -> str:
    """The name that clause 4.3.2.3 makes of a number below 1,000."""
    return "".join(SYLLABLES[digit] for digit in (number // 100, number // 10 % 10, number % 10))


NEW_ORDER = Operation(
    "new_order",
    0.5,
    draws={
        "warehouse": Key(WAREHOUSES),
        "district": Range(1, DISTRICTS),
        "customer": Key(CUSTOMERS),
        "item": Key(ITEMS),
        "count": Range(5, 15),
    },
    sends={name: name for name in ("warehouse", "district", "customer", "item", "count")},
)
PAYMENT = Operation(
    "payment",
    0.5,
    draws={
        "warehouse": Key(WAREHOUSES),
        "district": Range(1, DISTRICTS),
        "customer": Key(CUSTOMERS),
        "amount": Range(100, 500_000),
        "remote": Range(1, 100),
        "by": Range(1, 100),
    },
    sends={name: name for name in ("warehouse", "district", "customer", "amount", "remote", "by")},
)

WORKLOAD = Workload(
    name="tpcc",
    app="tpcc",
    about="TPC-C, new order 50 % (45 statements), payment 50 % (6 statements); 2 warehouses, 10,000 items",
    operations=(NEW_ORDER, PAYMENT),
    load=(
        Load("load_warehouses", rows=WAREHOUSES, batch=WAREHOUSES),
        Load("load_items", rows=ITEMS, batch=ITEMS),
        Load("load_stock", rows=ITEMS * WAREHOUSES, batch=10_000),
        Load("load_customers", rows=CUSTOMERS * DISTRICTS * WAREHOUSES, batch=10_000),
    ),
    effects="effects",
    violations="violations",
)
