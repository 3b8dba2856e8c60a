"""Whether recorded calls come to the same again, and how long that takes: `python -m bench.replays --calls 1000`.

Runs that many calls of each workload in this process, on SQLite, and then each of them again from the log.
"""

import argparse
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import apiary
from apiary import Conflict, Nondeterministic, OpenApp, Rejected
from apiary.testing import replay
from bench.mix import UNIFORM, Workload
from bench.stream import calls
from bench.workloads import DATA

APPS = Path(__file__).parent / "apps"
SEED = 7


def load(opened: OpenApp, workload: Workload) -> None:
    """Put the data set there."""
    for load in workload.load:
        for first in range(1, load.rows + 1, load.batch):
            opened.call(load.function, first=first, last=min(first + load.batch - 1, load.rows))


def run(opened: OpenApp, workload: Workload, number: int) -> float:
    """Run calls, some of which are refused; returns seconds."""
    drawn = calls(workload, UNIFORM, SEED)
    before = time.perf_counter()
    for _ in range(number):
        one = next(drawn)
        with suppress(Rejected):
            opened.call(one.operation.function, **one.arguments)
    return time.perf_counter() - before


def run_again(opened: OpenApp, number: int) -> tuple[dict[str, int], float]:
    """Run the latest calls again; returns how many came to what, and the seconds."""
    found = {"same": 0, "other": 0, "departed": 0, "not kept": 0}
    kept = [call["id"] for call in opened.log.calls(limit=number) if call["kind"] != "action"]
    before = time.perf_counter()
    for call in kept:
        try:
            again = replay(opened.app, opened.log.recording(call))
        except Nondeterministic:
            found["departed"] += 1
        except Conflict:
            found["not kept"] += 1
        else:
            found["other" if again.difference else "same"] += 1
    return found, time.perf_counter() - before


def main() -> None:
    """Run, run again, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, choices=range(1, 1001), metavar="1..1000")
    parser.add_argument("--workload", default="", help="one of them; default: all")
    chosen = parser.parse_args()
    for workload in DATA:
        if chosen.workload in ("", workload.name):
            with (
                tempfile.TemporaryDirectory() as folder,
                apiary.open(APPS / workload.app, f"sqlite:///{folder}/app.db") as opened,
            ):
                load(opened, workload)
                then = run(opened, workload, chosen.calls)
                opened.log.sql("select 1")  # what calls did is taken apart first
                found, now = run_again(opened, chosen.calls)
            told = ", ".join(f"{count} {name}" for name, count in found.items() if count)
            each = f"{then / chosen.calls * 1000:.2f} ms a call, {now / chosen.calls * 1000:.2f} ms again"
            print(f"{workload.name:12} {told}; {each}", flush=True)


if __name__ == "__main__":
    main()
