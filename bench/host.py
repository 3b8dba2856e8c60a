"""Facts about the machine and the versions of everything that was measured."""

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from statistics import median

OURS = ("apiary", "apsw", "pydantic", "psycopg", "uvicorn", "uvloop", "httptools")
DISTRIBUTIONS = (*OURS, "fastapi", "sqlalchemy", "asyncpg")  # other peers tell theirs in their settings
FSYNC_WRITES = 50
MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")


def facts(folder: Path, wrk: str) -> dict[str, object]:
    """Host facts; `folder` is where every database of the run lives."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": system_name(),
        "filesystem": filesystem(folder),
        "durable_write_ms": round(durable_write_ms(folder), 3),
        "load_average_before": load_average(),
        "versions": {"python": platform.python_version(), "wrk": wrk_version(wrk), **distributions()},
    }


def load_average() -> float:
    """Of the last minute."""
    return round(os.getloadavg()[0], 2)


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def filesystem(folder: Path) -> str:
    """The type of the file system that holds the folder."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, current, *_ = line.split()
        inside = mount == "/" or folder.resolve().is_relative_to(mount)
        if inside and len(mount) >= len(best):
            best, kind = mount, current
    return kind


def durable_write_ms(folder: Path) -> float:
    """Median time of one 4 KiB append with fdatasync: the price of a commit that nobody shares."""
    path, times = folder / "durable-write-probe", []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for _ in range(FSYNC_WRITES):
            before = time.perf_counter()
            os.write(descriptor, b"\0" * 4096)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - before)
    finally:
        os.close(descriptor)
        path.unlink()
    return median(times) * 1000


def wrk_version(wrk: str) -> str:
    words = subprocess.run([wrk, "-v"], check=False, capture_output=True, text=True).stdout.split()
    return words[1] if len(words) > 1 else "unknown"


def distributions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
