"""Servers under test: started in a session of their own, watched through /proc, and ended by the id we started."""

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 15.0
LOG_TAIL_LINES = 30


class ServerFailed(RuntimeError):
    """A server ended, or did not answer in time; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a set of processes: resident (shared pages counted in each), and proportional (counted once)."""

    rss: int
    pss: int


class Server:
    """One process that we started, with the children it made."""

    def __init__(self, argv: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.argv = list(argv)
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raise `ServerFailed` when the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise ServerFailed(f"{' '.join(self.argv)} ended with code {code}.\n{self.tail()}")

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def stop(self, signal_number: int = 15) -> None:
        """Ask the process to end; kill its children and itself when it does not within STOP_SECONDS."""
        if self.process.poll() is not None:
            return
        started = tree(self.pid)
        self.process.send_signal(signal_number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in reversed(started):
                kill(pid)
            self.process.wait()


def kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass


def children() -> dict[int, list[int]]:
    """Every process of the machine by its parent."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            found.setdefault(parent, []).append(int(entry.name))
    return found


def tree(pid: int) -> list[int]:
    """The process and all its descendants, parents first."""
    by_parent, found, waiting = children(), [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += by_parent.get(current, [])
    return found


def memory(pids: Sequence[int]) -> Memory:
    """The memory of the processes together, from /proc/PID/smaps_rollup."""
    rss = pss = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
        rss += int(fields["Rss"].split()[0]) * 1024
        pss += int(fields["Pss"].split()[0]) * 1024
    return Memory(rss, pss)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that the processes have used so far."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_seconds_with_ended(pids: Sequence[int]) -> float:
    """As `cpu_seconds`, with what children that have ended since had used."""
    ended = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ended += int(fields[13]) + int(fields[14])
    return cpu_seconds(pids) + ended / os.sysconf("SC_CLK_TCK")


def machine_busy_seconds() -> float:
    """Processor time that the whole machine has used so far, including what its host took away from it."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor time of this process and of its ended children (wrk)."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(server: Server, port: int, seconds: float = 30.0) -> None:
    """Wait until something listens on the loopback port, as long as the server lives."""
    deadline = time.monotonic() + seconds
    while True:
        server.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise ServerFailed(f"nothing listens on port {port} after {seconds} s.\n{server.tail()}") from None
            time.sleep(0.01)
