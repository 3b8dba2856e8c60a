"""Shop (Online Boutique): browse 80 %, cart update 10 %, checkout 10 %; 100,000 items, 10,000 users.

A cart update sets the quantity of one of the user's own five lines, and a checkout leaves the cart as it is, so that
carts keep their size through all runs. Checkout is the one-transaction function of `checkout.py`.
"""

from string import ascii_lowercase

from bench.mix import Key, Load, Operation, Range, Word, Workload

ITEMS = 100_000
USERS = 10_000
LINES = 5
# The same formula fills the carts in the data set; the factors have no divisor in common with ITEMS.
CART_ITEM = "(user * 7919 + line * 31337) % 100000 + 1"
PREFIXES = tuple(first + second for first in ascii_lowercase for second in ascii_lowercase)

LOAD = (Load("load_items", rows=ITEMS, batch=20_000), Load("load_carts", rows=USERS, batch=2_000))

BROWSE = Operation(
    "browse",
    0.8,
    draws={"prefix": Word(PREFIXES), "top": Range(5_000, 10_000)},
    sends={"prefix": "prefix", "top": "top"},
    reads_only=True,
)
UPDATE_CART = Operation(
    "update_cart",
    0.1,
    draws={"user": Key(USERS), "line": Range(1, LINES), "quantity": Range(1, 5)},
    sends={"user": "user", "item": CART_ITEM, "quantity": "quantity"},
)
CHECKOUT = Operation("checkout", 0.1, draws={"user": Key(USERS)}, sends={"user": "user"})

WORKLOAD = Workload(
    name="shop",
    app="shop",
    about="browse 80 %, cart update 10 %, checkout 10 %; 100,000 items, 10,000 users",
    operations=(BROWSE, UPDATE_CART, CHECKOUT),
    load=LOAD,
)
