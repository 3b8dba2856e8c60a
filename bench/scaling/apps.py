"""Apps: one server with 1 to 50 of them. Each has a process of its own; one is called, the others wait."""

import shutil
import tempfile
from pathlib import Path

from bench import costs, idle
from bench.peers.apiary import APPS, Apiary
from bench.scaling.curve import AT_REST, MEGABYTE, MEMORY, RATE, START, Curve, Say, Scale, standing, throughput
from bench.workloads import increment

SIZES = (1, 2, 10, 25, 50)
COMPARED = ("apiary", "apiary-postgres")
NAME_LINE = 'app = App("increment")'


def measure(folder: Path, scale: Scale, say: Say) -> Curve:
    """Memory, time to start, load at rest and throughput of one app, by apps."""
    curve = Curve("apps", "the increment of one app, by apps on its server", "apps")
    for name in scale.among(COMPARED):
        with standing(name, increment.WORKLOAD, folder) as peer:
            assert isinstance(peer, Apiary)
            deployed = 1
            for size in scale.of(SIZES):
                for number in range(deployed + 1, size + 1):
                    deploy(peer, number)
                deployed = size
                curve.add(name, size, seen(peer, scale))
                say(f"{curve.name}: {name}, {size}")
    return curve


def seen(peer: Apiary, scale: Scale) -> dict[str, list[float]]:
    start = costs.start_seconds(increment.WORKLOAD, peer)
    return {
        RATE: throughput(peer, increment.WORKLOAD, scale),
        MEMORY: [costs.memory_of(peer)["sum"]["pss"] / MEGABYTE],
        START: [start],
        AT_REST: [idle.load(peer, scale.seconds).processor_share * 100],
    }


def deploy(peer: Apiary, number: int) -> None:
    """One more app: the increment under another name, with a table of 100 rows."""
    name = f"increment{number}"
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / name
        shutil.copytree(APPS / "increment", folder, ignore=shutil.ignore_patterns("__pycache__"))
        module = folder / "__init__.py"
        source = module.read_text()
        if NAME_LINE not in source:
            raise RuntimeError(f"{module} has no line {NAME_LINE!r} to change")
        module.write_text(source.replace(NAME_LINE, NAME_LINE.replace("increment", name)))
        peer.deploy(folder)
