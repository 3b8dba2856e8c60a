"""Cores: everything, the load generator too, on one of them and on two."""

import os
from pathlib import Path

from bench.scaling.curve import RATE, Curve, Say, Scale, standing, throughput
from bench.workloads import checkout

SIZES = (1, 2, 4)
COMPARED = ("apiary", "apiary-postgres", "fastapi")


def measure(folder: Path, scale: Scale, say: Say) -> Curve:
    """Throughput of the checkout, by cores."""
    curve = Curve("cores", "the checkout, by cores, which the load generator shares", "cores")
    all_cores = os.sched_getaffinity(0)
    try:
        for size in scale.of(size for size in SIZES if size <= len(all_cores)):
            os.sched_setaffinity(0, set(sorted(all_cores)[:size]))  # and with it, what is started from here
            for name in scale.among(COMPARED):
                with standing(name, checkout.WORKLOAD, folder) as peer:
                    curve.add(name, size, {RATE: throughput(peer, checkout.WORKLOAD, scale)})
                    say(f"{curve.name}: {name}, {size}")
    finally:
        os.sched_setaffinity(0, all_cores)
    return curve
