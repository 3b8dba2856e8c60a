"""A network between a service and its database: `network.c`, which adds a fixed delay each way and no limit.

In C, because a proxy in Python takes 80 to 190 µs of processor for each round trip, on the very processors that the
peers need, and its timers are late; this one takes a quarter of that. It asks for the priority of real time: a network
does not wait for a processor. Its processor time is counted apart from that of the servers.
"""

import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench import provision
from bench.process import Server, ServerFailed, cpu_seconds, free_port, wait_for_port
from bench.stats import percentile

SOURCE = Path(__file__).with_suffix(".c")
DELAY_US = 250  # each way
PINGS = 400
CONNECTIONS = 20
CROWD_SECONDS = 1.0
MESSAGE = b"x" * 100


@dataclass(frozen=True)
class Quality:
    """What the network does to a server that echoes at once.

    `added_us` is what the median round trip takes longer on one connection, the rest what CONNECTIONS see together.
    """

    delay_each_way_us: int
    added_us: float
    crowd_round_trips_per_second: float
    crowd_median_us: float
    processor_us: float


class Network:
    """The way to a port of this machine, from another port."""

    def __init__(self, folder: Path, to_port: int, log: Path) -> None:
        self.port = free_port()
        argv = [str(program(folder)), str(self.port), str(to_port), str(DELAY_US)]
        self.server = Server(argv, log, {}, folder)
        wait_for_port(self.server, self.port)

    @property
    def pids(self) -> list[int]:
        return [self.server.pid]

    def close(self) -> None:
        self.server.stop()


def program(folder: Path) -> Path:
    """The compiled program, made in this folder where it is not there yet."""
    path = folder / "network"
    if not path.exists():
        fresh = folder / f"network-{time.monotonic_ns()}"
        argv = [provision.compiler(), "-O2", "-o", str(fresh), str(SOURCE)]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise ServerFailed(f"{SOURCE.name} does not compile: {done.stderr.strip()}")
        fresh.rename(path)
    return path


def quality(folder: Path) -> Quality:
    """Measure the network before a server of threads that echo."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=_echo_all, args=(listener,), daemon=True).start()
        port: int = listener.getsockname()[1]
        network = Network(folder, port, folder / "network.log")
        try:
            near, far = (percentile(sorted(_pings(at, PINGS)), 50) for at in (port, network.port))
            before = cpu_seconds(network.pids)
            crowd = _crowd(network.port)
            used = cpu_seconds(network.pids) - before
        finally:
            network.close()
    return Quality(
        DELAY_US,
        added_us=far - near,
        crowd_round_trips_per_second=len(crowd) / CROWD_SECONDS,
        crowd_median_us=percentile(sorted(crowd), 50),
        processor_us=used * 1e6 / max(1, len(crowd)),
    )


def _crowd(port: int) -> list[float]:
    """What CONNECTIONS at once see for CROWD_SECONDS."""
    seen: list[float] = []
    until = time.monotonic() + CROWD_SECONDS
    threads = [threading.Thread(target=lambda: seen.extend(_pings(port, None, until))) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _pings(port: int, count: int | None, until: float = 0.0) -> list[float]:
    """The round trips of one connection, in µs: so many, or as many as there are until then."""
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while len(times) < count if count is not None else time.monotonic() < until:
            before = time.perf_counter()
            connection.sendall(MESSAGE)
            missing = len(MESSAGE)
            while missing:
                missing -= len(connection.recv(missing))
            times.append((time.perf_counter() - before) * 1e6)
    return times


def _echo_all(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)
