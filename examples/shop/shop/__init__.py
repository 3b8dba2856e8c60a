"""A web shop: catalogue, carts, orders.

`catalogue` has the items, `cart` what users have picked, `orders` what they bought, `payment` what they paid with;
`models` are the values that callers send and receive. Money is in cents everywhere.
"""

from . import cart, catalogue, orders, payment
from .declared import app

__all__ = ["app", "cart", "catalogue", "orders", "payment"]
