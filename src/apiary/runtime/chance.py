"""What a query or transaction draws at random, noted with the call, so that it can be run again with the same.

`install` puts it in the place of the system's: `os.urandom`, and what `uuid`, `secrets` and `random` make of it. Code
outside of calls, actions and other threads draw as ever. Times are another matter: the time of a call is `tx.now`.
"""

from __future__ import annotations

import os
import random
from typing import Any

from apiary.runtime.transaction import SEED_BYTES, current_transaction

system_bytes = os.urandom


def draw(size: int, /) -> bytes:
    """So many random bytes; within a call, such as its session notes or knows."""
    transaction = current_transaction()
    return system_bytes(size) if transaction is None else transaction._draw(size)


class Chance(random.Random):
    """What the functions of `random` draw from: one generator for all, and one of its own for each call."""

    def random(self) -> float:
        """A number of [0, 1)."""
        own = _own()
        return super().random() if own is None else own.random()

    def getrandbits(self, k: int, /) -> int:
        """A number of so many bits."""
        own = _own()
        return super().getrandbits(k) if own is None else own.getrandbits(k)

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        """A number of the normal distribution. They are made in pairs, so each generator has to keep its own."""
        own = _own()
        return super().gauss(mu, sigma) if own is None else own.gauss(mu, sigma)

    def seed(self, a: Any = None, version: int = 2) -> None:
        """Begin anew, at what `a` says; within a call, for that alone."""
        own = _own()
        if own is None:
            super().seed(a, version)
        else:
            own.seed(draw(SEED_BYTES) if a is None else a, version)

    def getstate(self) -> tuple[Any, ...]:
        """Where the generator stands."""
        own = _own()
        return super().getstate() if own is None else own.getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        """Put the generator where one stood."""
        own = _own()
        super().setstate(state) if own is None else own.setstate(state)


def _own() -> random.Random | None:
    transaction = current_transaction()
    return None if transaction is None else transaction._generator()


def install() -> None:
    """Have this process draw so, once. A module that has imported a function from `random` before keeps the old one."""
    if os.urandom is draw:
        return
    old: Any = random._inst
    new = Chance()
    new.setstate(old.getstate())
    for name in random.__all__:
        if getattr(getattr(random, name), "__self__", None) is old:
            setattr(random, name, getattr(new, name))
    os.register_at_fork(after_in_child=new.seed)
    random._inst = new
    random._urandom = os.urandom = draw  # type: ignore[attr-defined]
