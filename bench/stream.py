"""Requests drawn in Python from a workload's description: for the open-loop driver, the probes and the floor.

The laws are those of the wrk scripts (`lua.py`); the sequence of draws is not.
"""

import json
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate
from types import CodeType
from typing import NamedTuple

from bench.mix import SCATTER, UNIFORM, ZIPF_EXPONENT, Draw, Key, Operation, Range, Word, Workload

Value = int | str
Arguments = dict[str, Value]


class Call(NamedTuple):
    """One call to make."""

    operation: Operation
    arguments: Arguments


@cache
def zipf_cumulative(count: int) -> list[float]:
    """Cumulative probabilities of the ranks 1..count under the Zipf law."""
    sums = list(accumulate(rank**-ZIPF_EXPONENT for rank in range(1, count + 1)))
    return [value / sums[-1] for value in sums]


def draw_index(random_source: random.Random, count: int, keys: str) -> int:
    """An index in 1..count, uniform or skewed."""
    if keys == UNIFORM:
        return int(random_source.random() * count) + 1
    rank = min(bisect_left(zipf_cumulative(count), random_source.random()) + 1, count)
    return rank * SCATTER % count + 1


def draw(random_source: random.Random, what: Draw, keys: str) -> Value:
    match what:
        case Key(count):
            return draw_index(random_source, count, keys)
        case Range(first, last):
            return random_source.randint(first, last)
        case Word(words):
            return words[draw_index(random_source, len(words), keys) - 1]


@cache
def compiled(expression: str) -> CodeType:
    return compile(expression, "<workload>", "eval")


def arguments(random_source: random.Random, operation: Operation, keys: str) -> Arguments:
    drawn = {name: draw(random_source, what, keys) for name, what in operation.draws.items()}
    return {name: eval(compiled(text), {"__builtins__": {}}, drawn) for name, text in operation.sends.items()}


def calls(workload: Workload, keys: str, seed: int) -> Iterator[Call]:
    """An endless stream of calls in the workload's mix."""
    random_source = random.Random(seed)
    shares = list(accumulate(operation.share for operation in workload.operations))
    while True:
        position = bisect_left(shares, random_source.random() * shares[-1])
        operation = workload.operations[position]
        yield Call(operation, arguments(random_source, operation, keys))


def encoder(workload: Workload, address: str) -> Callable[[Call], bytes]:
    """Turns calls into the bytes of HTTP/1.1 requests for a server at host:port `address`."""

    def encode(call: Call) -> bytes:
        body = json.dumps(call.arguments, separators=(",", ":"))
        head = (
            f"POST {workload.path(call.operation.function)} HTTP/1.1\r\nHost: {address}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return (head + body).encode()

    return encode
