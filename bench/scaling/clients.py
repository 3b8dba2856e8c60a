"""Clients, and what our guarantees cost: records or none, a commit of one's own or a shared one, inside or beside.

One client has each commit to itself; calls of several share them. So the first point of a curve is one commit a call,
and the rise from there is what sharing brings.
"""

from pathlib import Path

from bench.scaling.curve import RATE, Curve, Say, Scale, standing, throughput
from bench.workloads import checkout

SIZES = (1, 2, 8, 32, 128)
COMPARED = ("apiary", "apiary-unrecorded", "apiary-postgres", "apiary-postgres-unrecorded", "apiary-beside", "fastapi")


def measure(folder: Path, scale: Scale, say: Say) -> Curve:
    """Throughput of the checkout, by clients."""
    curve = Curve("clients", "the checkout: records on and off, functions inside the database and beside", "clients")
    for name in scale.among(COMPARED):
        with standing(name, checkout.WORKLOAD, folder) as peer:
            for size in scale.of(SIZES):
                curve.add(name, size, {RATE: throughput(peer, checkout.WORKLOAD, scale, clients=size)})
                say(f"{curve.name}: {name}, {size}")
    return curve
