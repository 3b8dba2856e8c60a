"""Closed loop: wrk with a script of ours. Each client sends its next request when the last one is answered.

The latencies therefore leave out what waits while a client waits (coordinated omission); `open_loop.py` does not.
"""

import json
import subprocess
import tempfile
from dataclasses import dataclass

from bench import lua, provision
from bench.mix import Workload

TIMEOUT_SECONDS = 15


class LoadFailed(RuntimeError):
    """wrk did not produce a summary."""


@dataclass(frozen=True)
class Measured:
    """What one run of wrk saw. Latencies in microseconds."""

    requests: int
    seconds: float
    requests_per_second: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    mean_us: float
    non_2xx: int
    socket_errors: int
    timeouts: int
    received_bytes: int

    @property
    def failures(self) -> int:
        return self.non_2xx + self.socket_errors + self.timeouts


@dataclass(frozen=True)
class Wrk:
    """The way to run wrk: with these numbers of connections and threads."""

    clients: int
    threads: int

    def run(self, workload: Workload, port: int, keys: str, seed: int, seconds: int) -> Measured:
        """Load the server on the loopback port for some seconds and return what was seen."""
        address = f"127.0.0.1:{port}"
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(lua.script(workload, keys, seed, address))
            file.flush()
            options = [f"-t{self.threads}", f"-c{self.clients}", f"-d{seconds}s"]
            argv = [
                provision.wrk(),
                *options,
                "--timeout",
                f"{TIMEOUT_SECONDS}s",
                "-s",
                file.name,
                f"http://{address}/",
            ]
            done = subprocess.run(argv, check=False, capture_output=True, text=True)
        return parse(done.stdout, done.stderr)


def parse(output: str, complaints: str) -> Measured:
    """The line of JSON that the script's `done` printed."""
    line = next((line for line in output.splitlines() if line.startswith(lua.SUMMARY_MARK)), None)
    if line is None:
        raise LoadFailed(f"wrk printed no summary: {(complaints or output).strip()[-600:]}")
    seen = json.loads(line.removeprefix(lua.SUMMARY_MARK))
    seconds = seen["duration_us"] / 1e6
    return Measured(
        requests=seen["requests"],
        seconds=seconds,
        requests_per_second=(seen["requests"] - seen["status_errors"]) / seconds,
        p50_us=seen["p50_us"],
        p90_us=seen["p90_us"],
        p99_us=seen["p99_us"],
        p999_us=seen["p999_us"],
        max_us=seen["max_us"],
        mean_us=seen["mean_us"],
        non_2xx=seen["status_errors"],
        socket_errors=seen["socket_errors"],
        timeouts=seen["timeouts"],
        received_bytes=seen["bytes"],
    )
