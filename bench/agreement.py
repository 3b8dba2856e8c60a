"""Before anything is measured: every operation answers 200, and the peers agree on what reads and writes return.

Each peer gets the same short, seeded sequence of calls on its fresh data set, as many of each operation. What cannot
be the same on two machines (clock readings) is left out of the comparison.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

from bench import front_door
from bench.mix import UNIFORM, Workload
from bench.peer import Peer
from bench.stream import calls

CALLS = 40
QUEUED_CALLS = 4  # some take a second each
SEED = 20_240
OWN_TO_EACH = ("at",)


class Disagreement(RuntimeError):
    """Two peers answered the same calls differently: they do not run the same workload."""


def check(workload: Workload, peers: Sequence[Peer]) -> None:
    """Raise `CallFailed` for an answer that is not 200, `Disagreement` for different results."""
    found = [(peer.name, answers(workload, peer)) for peer in peers]
    for first, (name, theirs) in product(found[:1], found[1:]):
        for call, ours, their in zip(first[1], first[1].values(), theirs.values(), strict=False):
            if ours != their:
                raise Disagreement(f"{call}: {first[0]} answers {shortened(ours)}, {name} answers {shortened(their)}")


def answers(workload: Workload, peer: Peer) -> dict[str, Any]:
    """The results of the sequence, by the text of the call and its number."""
    found = {}
    equal = replace(workload, operations=tuple(replace(one, share=1.0) for one in workload.operations))
    count = QUEUED_CALLS if workload.queued else CALLS
    with front_door.opened(peer) as make:
        for number, call in enumerate(islice(calls(equal, UNIFORM, SEED), count)):
            result = make(workload, call.operation.function, call.arguments)
            found[f"call {number}, {call.operation.function}({call.arguments})"] = comparable(result)
    return found


def comparable(result: Any) -> Any:
    match result:
        case dict():
            return {name: comparable(value) for name, value in result.items() if name not in OWN_TO_EACH}
        case list():
            return [comparable(value) for value in result]
        case _:
            return result


def shortened(value: Any, limit: int = 300) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
