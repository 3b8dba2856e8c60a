"""Checkout in one transaction: 17 statements, 5 cart lines; the cart is not cleared, so that the run repeats.

Cart read (1), insert of the order (1), and for each of 5 lines: read of the item, decrement of its inventory with the
check, insert of the order line (15).
"""

from dataclasses import replace

from bench.mix import Workload
from bench.workloads import shop

WORKLOAD = Workload(
    name="checkout",
    app="shop",
    about="checkout in one transaction: 17 statements, 5 lines; 100,000 items, 10,000 users",
    operations=(replace(shop.CHECKOUT, share=1.0),),
    load=shop.LOAD,
    effects="effects",
)
