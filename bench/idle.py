"""A peer at rest: the latency of single calls, one after the other, and what it does when nobody calls."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from bench import front_door
from bench.mix import UNIFORM, Workload
from bench.peer import KeepsDataInPostgres, Peer
from bench.postgres import SUPERUSER
from bench.probe import CallFailed, Connection
from bench.process import cpu_seconds
from bench.stats import percentile
from bench.stream import Call, calls, encoder

WARMUP_SHARE = 0.1  # of the calls
MOST_SECONDS = 10.0  # of the latencies, however slow the calls are
STATEMENT = re.compile(rb"LOG:  (statement|execute [^:]*): ")
REST_LOOK_SECONDS, REST_LOOKS = 0.5, 3
REST_SHARE = 0.1  # of a processor
REST_DEADLINE_SECONDS = 300.0
RELOAD_SECONDS = 0.5  # for all sessions to have read a setting


@dataclass(frozen=True)
class Idle:
    """One client, one call after the other."""

    calls: int
    p50_us: float
    p99_us: float
    max_us: float


@dataclass(frozen=True)
class IdleLoad:
    """What a peer does when nobody calls.

    `statements_per_second`: what its PostgreSQL is asked; None where there is none. `processor_share`: of one of them.
    """

    seconds: float
    statements_per_second: float | None
    processor_share: float


def latency(workload: Workload, peer: Peer, count: int) -> Idle:
    """Latencies of one call after the other, for MOST_SECONDS at most."""
    once = _caller(workload, peer)
    times: list[float] = []
    warmup = int(count * WARMUP_SHARE)
    with once as make:
        until = time.perf_counter() + MOST_SECONDS
        for call in islice(calls(workload, UNIFORM, 77), count + warmup):
            times.append(make(call))
            if time.perf_counter() > until:
                break
    ordered = sorted(times[warmup:] or times)
    return Idle(len(ordered), percentile(ordered, 50), percentile(ordered, 99), ordered[-1])


@contextmanager
def _caller(workload: Workload, peer: Peer) -> Iterator[Callable[[Call], float]]:
    """Something that makes a call, as lean as the peer's front door allows, and tells how many µs it took."""
    if front_door.by_http(peer, workload):
        encode = encoder(front_door.seen_by(peer, workload), f"127.0.0.1:{peer.port}")
        with Connection(peer.port) as connection:

            def exchange(call: Call) -> float:
                message = encode(call)
                before = time.perf_counter()
                status, body = connection.exchange(message)
                after = time.perf_counter()
                if status != 200:
                    raise CallFailed(f"idle call answered {status}: {body[:200]!r}")
                return (after - before) * 1e6

            yield exchange
        return
    with front_door.opened(peer) as make:

        def measure(call: Call) -> float:
            before = time.perf_counter()
            make(workload, call.operation.function, call.arguments)
            return (time.perf_counter() - before) * 1e6

        yield measure


def wait_for_rest(peer: Peer) -> None:
    """Wait until the peer takes no processor, having done what was left to do; REST_DEADLINE_SECONDS at most."""
    pids = [pid for role in peer.processes().values() for pid in role]
    deadline, quiet = time.monotonic() + REST_DEADLINE_SECONDS, 0
    while quiet < REST_LOOKS and time.monotonic() < deadline:
        before = cpu_seconds(pids)
        time.sleep(REST_LOOK_SECONDS)
        quiet = quiet + 1 if cpu_seconds(pids) - before < REST_SHARE * REST_LOOK_SECONDS else 0


def load(peer: Peer, seconds: float) -> IdleLoad:
    """Watch the peer do nothing."""
    pids = [pid for role in peer.processes().values() for pid in role]
    with statements_logged(peer) as count:
        before, processor, statements = time.monotonic(), cpu_seconds(pids), count()
        time.sleep(seconds)
        lasted, used = time.monotonic() - before, cpu_seconds(pids) - processor
        asked = count()
    per_second = None if statements is None or asked is None else (asked - statements) / lasted
    return IdleLoad(seconds=lasted, statements_per_second=per_second, processor_share=used / lasted)


@contextmanager
def statements_logged(peer: Peer) -> Iterator[Callable[[], int | None]]:
    """Have the peer's PostgreSQL log every statement that it gets; the yielded function counts them."""
    if not isinstance(peer, KeepsDataInPostgres):
        yield lambda: None
        return
    postgres = peer.postgres

    def switch(statement: str) -> None:
        postgres.psql(SUPERUSER, f"{statement};\nselect pg_reload_conf();")
        time.sleep(RELOAD_SECONDS)

    switch("alter system set log_statement = 'all'")
    try:
        yield lambda: len(STATEMENT.findall(postgres.log.read_bytes()))
    finally:
        switch("alter system reset log_statement")
