"""A closed loop in threads, for what wrk cannot drive: peers that are libraries, and calls that take two requests.

Runs in the environments of peers, too: standard library only.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import mean
from typing import Any

from bench.closed_loop import Measured
from bench.mix import Workload
from bench.stats import percentile
from bench.stream import Call, calls

Caller = Callable[[Call], Any]
MOST_FAILURES = 20  # of one client: it gives up then


class Client:
    """One of the clients: the next call when the last one has answered."""

    def __init__(self, open_caller: Callable[[], AbstractContextManager[Caller]]) -> None:
        self.open_caller = open_caller
        self.latencies_us: list[float] = []
        self.failures = 0
        self.last_end = 0.0

    def run(self, workload: Workload, keys: str, seed: int, until: float) -> None:
        with self.open_caller() as caller:
            for call in calls(workload, keys, seed):
                before = time.perf_counter()
                if before >= until or self.failures >= MOST_FAILURES:
                    return
                try:
                    caller(call)
                except Exception:  # noqa: BLE001 - whatever a product raises is a failed request
                    if not self.failures:
                        traceback.print_exc(file=sys.stderr)
                    self.failures += 1
                self.last_end = time.perf_counter()
                self.latencies_us.append((self.last_end - before) * 1e6)


def run(
    open_caller: Callable[[], AbstractContextManager[Caller]],
    workload: Workload,
    keys: str,
    seed: int,
    clients: int,
    seconds: float,
) -> Measured:
    """Keep so many clients calling for some seconds; what they have begun then is awaited, and counts."""
    crowd = [Client(open_caller) for _ in range(clients)]
    start = time.perf_counter()
    threads = [
        threading.Thread(target=client.run, args=(workload, keys, seed * 1000 + number, start + seconds))
        for number, client in enumerate(crowd)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return summary(crowd, max([client.last_end for client in crowd] + [start + seconds]) - start)


def summary(crowd: list[Client], seconds: float) -> Measured:
    latencies = sorted(latency for client in crowd for latency in client.latencies_us)
    failures = sum(client.failures for client in crowd)
    return Measured(
        requests=len(latencies),
        seconds=seconds,
        requests_per_second=(len(latencies) - failures) / seconds,
        p50_us=percentile(latencies, 50),
        p90_us=percentile(latencies, 90),
        p99_us=percentile(latencies, 99),
        p999_us=percentile(latencies, 99.9),
        max_us=latencies[-1] if latencies else 0.0,
        mean_us=mean(latencies) if latencies else 0.0,
        non_2xx=failures,
        socket_errors=0,
        timeouts=0,
        received_bytes=0,
    )
