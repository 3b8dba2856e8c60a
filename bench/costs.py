"""What is not throughput: time to start, time to deploy, memory."""

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import front_door
from bench.mix import Workload
from bench.peer import Deploys, Peer
from bench.probe import Connection, request
from bench.process import memory

VERSION_LINE = "VERSION = {}\n"
PAUSE_SECONDS = 0.002


@dataclass(frozen=True)
class Deployed:
    """A changed version put into service under a steady trickle of calls. Seconds from the start of the command."""

    command_seconds: float
    first_call_seconds: float
    calls_meanwhile: int
    failed_meanwhile: int


def start_seconds(workload: Workload, peer: Peer) -> float:
    """From launching the front door, on data that is there, to the first call that it answers."""
    peer.halt()
    before = time.perf_counter()
    peer.launch()
    front_door.wait(peer, workload)
    return time.perf_counter() - before


def deploy_seconds(peer: Peer, app_folder: Path, version: int) -> Deployed | None:
    """Deploy the app with another VERSION while calls ask for it; None for a peer that has no deployment."""
    if not isinstance(peer, Deploys):
        return None
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / app_folder.name
        shutil.copytree(app_folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
        module = folder / "__init__.py"
        source = module.read_text()
        changed = source.replace(VERSION_LINE.format(1), VERSION_LINE.format(version))
        if changed == source:
            raise RuntimeError(f"{module} has no line {VERSION_LINE.format(1)!r} to change")
        module.write_text(changed)
        return watch(peer.port, f"/apps/{app_folder.name}/version", version, lambda: peer.deploy(folder))


def watch(port: int, path: str, version: int, deploy: Callable[[], None]) -> Deployed:
    """Run `deploy` in a thread while this one calls until the new version answers."""
    message, made, failed = request("POST", path, f"127.0.0.1:{port}", b"{}"), 0, 0
    before = time.perf_counter()
    with ThreadPoolExecutor(1) as pool, Connection(port) as connection:
        command = pool.submit(_seconds_since, before, deploy)
        while True:
            status, body = connection.exchange(message)
            made += 1
            failed += status != 200
            if status == 200 and int(body) == version:
                first_call = time.perf_counter() - before
                return Deployed(command.result(), first_call, made, failed)
            if command.done():
                command.result()
            time.sleep(PAUSE_SECONDS)


def _seconds_since(start: float, deploy: Callable[[], None]) -> float:
    deploy()
    return time.perf_counter() - start


def memory_of(peer: Peer) -> dict[str, dict[str, int]]:
    """Bytes by role of process, and the sum."""
    roles = dict(peer.processes())
    return {
        **{role: asdict(memory(pids)) for role, pids in roles.items()},
        "sum": asdict(memory([pid for pids in roles.values() for pid in pids])),
    }
