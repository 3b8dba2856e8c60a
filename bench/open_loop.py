"""Open loop: requests are due at random (Poisson) moments, whether or not earlier ones were answered.

Latency counts from the moment a request was due, so a server that stalls is charged for all that waited meanwhile (no
coordinated omission). One thread, non-blocking sockets, `select` (whose timeout has microseconds, where `epoll` has
milliseconds). Limits: `ceiling` measures the highest rate that this driver reaches here; a run also reports how late
the driver itself was (`driver_late_p99_us`: due, a connection free, and not yet sent), and is marked when that matters.
"""

import gc
import random
import select
import socket
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice

from bench.mix import Workload
from bench.probe import split_answer
from bench.stats import percentile
from bench.stream import calls, encoder

DRAIN_SECONDS = 5.0
LATE_LIMIT_US = 1_000.0  # and LATE_LIMIT_SHARE of the 99th percentile: then the driver's lateness is part of the result
LATE_LIMIT_SHARE = 0.1
CEILING_SECONDS = 1.0
BROKEN = 0  # stands for a status where there was none


@dataclass(frozen=True)
class OpenMeasured:
    """What one open-loop run saw.

    Latencies in microseconds from the due moment; unfinished requests count with the age that they had when the run
    gave up. `non_2xx` counts closed connections too.
    """

    offered_per_second: float
    answered_per_second: float
    sent: int
    unfinished: int
    non_2xx: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    driver_late_p99_us: float
    driver_limited: bool

    @property
    def failures(self) -> int:
        return self.non_2xx


class Line:
    """One connection: at most one request under way."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.due = 0.0
        self.received = b""
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: bytes, due: float) -> None:
        self.due, self.received = due, b""
        self.socket.send(message)  # a request is far smaller than an empty send buffer

    def receive(self) -> int | None:
        """The status when the answer is complete, else None; BROKEN, on a new connection, when the server closed it."""
        try:
            chunk = self.socket.recv(262144)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self.socket.close()
            self.connect()
            return BROKEN
        self.received += chunk
        answer = split_answer(self.received)
        return None if answer is None else answer[0]


class Driver:
    """The state of one run: idle connections, busy ones, and what was seen."""

    def __init__(self, port: int, connections: int) -> None:
        self.idle = deque(Line(port) for _ in range(connections))
        self.busy: set[Line] = set()
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.freed = 0.0  # when a connection last became free after all were busy
        self.non_2xx = 0

    def send_due(self, schedule: deque[tuple[float, bytes]], now: float) -> None:
        while schedule and self.idle and schedule[0][0] <= now:
            due, message = schedule.popleft()
            line = self.idle.popleft()
            line.send(message, due)
            self.busy.add(line)
            now = time.perf_counter()
            self.late.append(now - max(due, self.freed))

    def receive_ready(self, timeout: float) -> None:
        ready, _, _ = select.select(self.busy, (), (), timeout)
        for line in ready:
            status = line.receive()
            if status is None:
                continue
            now = time.perf_counter()
            self.latencies.append(now - line.due)
            self.non_2xx += not 200 <= status < 300
            self.busy.discard(line)
            if not self.idle:
                self.freed = now
            self.idle.append(line)

    def run(self, schedule: deque[tuple[float, bytes]], last_due: float) -> None:
        while schedule or self.busy:
            now = time.perf_counter()
            if now > last_due + DRAIN_SECONDS:
                return
            self.send_due(schedule, now)
            until_next = DRAIN_SECONDS
            if schedule and self.idle:
                until_next = max(0.0, schedule[0][0] - time.perf_counter())
            self.receive_ready(until_next)

    def close(self) -> None:
        for line in (*self.idle, *self.busy):
            line.socket.close()


def plan(messages: list[bytes], rate: float, seconds: float, seed: int) -> deque[tuple[float, bytes]]:
    """Requests with due moments from 0 on: exponential gaps with mean 1/rate."""
    source, moment, planned = random.Random(seed), 0.0, deque[tuple[float, bytes]]()
    for message in messages:
        moment += source.expovariate(rate)
        if moment > seconds:
            break
        planned.append((moment, message))
    return planned


def messages_for(workload: Workload, port: int, keys: str, seed: int, count: int) -> list[bytes]:
    encode = encoder(workload, f"127.0.0.1:{port}")
    return [encode(call) for call in islice(calls(workload, keys, seed), count)]


def drive(messages: list[bytes], port: int, rate: float, seconds: float, seed: int, connections: int) -> OpenMeasured:
    """Offer `rate` requests/s for `seconds`, over at most `connections` at once."""
    planned = plan(messages, rate, seconds, seed)
    driver = Driver(port, connections)
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter() + 0.01
        schedule = deque((start + moment, message) for moment, message in planned)
        offered = len(schedule)
        driver.run(schedule, start + seconds)
        end = time.perf_counter()
    finally:
        gc.enable()
        driver.close()
    abandoned = [end - line.due for line in driver.busy] + [end - due for due, _ in schedule]
    return summary(driver, abandoned, offered, seconds, end - start)


def summary(driver: Driver, abandoned: list[float], offered: int, seconds: float, lasted: float) -> OpenMeasured:
    latencies = sorted(value * 1e6 for value in (*driver.latencies, *abandoned))
    p99 = percentile(latencies, 99)
    late = percentile(sorted(value * 1e6 for value in driver.late), 99)
    return OpenMeasured(
        offered_per_second=offered / seconds,
        answered_per_second=(len(driver.latencies) - driver.non_2xx) / max(seconds, lasted),
        sent=len(driver.late),
        unfinished=len(abandoned),
        non_2xx=driver.non_2xx,
        p50_us=percentile(latencies, 50),
        p90_us=percentile(latencies, 90),
        p99_us=p99,
        p999_us=percentile(latencies, 99.9),
        max_us=latencies[-1] if latencies else 0.0,
        driver_late_p99_us=late,
        driver_limited=late > max(LATE_LIMIT_US, LATE_LIMIT_SHARE * p99),
    )


def measure(
    workload: Workload, port: int, keys: str, seed: int, rate: float, seconds: float, connections: int
) -> OpenMeasured:
    """Offer the workload's mix at a rate. The requests are made beforehand: drawing them costs nothing in the run."""
    count = int(rate * seconds * 1.2) + 100
    return drive(messages_for(workload, port, keys, seed, count), port, rate, seconds, seed, connections)


def ceiling(port: int, connections: int) -> float:
    """Requests/s that this driver completes when every request is due at once, against a bare responder on `port`."""
    message = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"key": 10}'
    )
    driver = Driver(port, connections)
    start = time.perf_counter()
    try:
        while time.perf_counter() < start + CEILING_SECONDS:
            driver.send_due(deque((start, message) for _ in driver.idle), time.perf_counter())
            driver.receive_ready(0.1)
    finally:
        driver.close()
    return len(driver.latencies) / (time.perf_counter() - start)
