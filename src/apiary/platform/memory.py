"""The memory of a host: its limit, and what becomes of a host that functions have left without any."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PAGE_BYTES = resource.getpagesize()
RESERVE = 1 / 8
"""Of the limit: what a host has beyond it after a function ran out of memory, to answer and to end what runs."""
SPENT = 3 / 4
"""Of what was free at the start: where that much is gone for good, the host is of no more use."""
LOOKS = 12
LOOK_SECONDS = 0.25
"""Between them. What other calls use at the moment goes with them, and is missing at some looks only."""


class Memory:
    """Limits the memory of this process, so that functions get a `MemoryError` before the machine suffers.

    Such an error is the failure of one call. `spent` is called, once and from another thread, where memory is still
    missing seconds later: functions kept it, and only a new process gives it back.
    """

    def __init__(self, limit_bytes: int, spent: Callable[[], None]) -> None:
        self._limit = limit_bytes if sys.platform == "linux" else 0
        self._spent = spent
        self._lock = threading.Lock()
        self._looking = False
        self._over = False
        self._mark = 0.0
        self._allow(self._limit)

    def settle(self) -> None:
        """What is used now is the app's own."""
        begun = data_bytes()
        self._mark = begun + SPENT * (self._limit - begun)

    def ran_out(self) -> None:
        """There was a `MemoryError`: find out, without waiting, whether the memory comes back."""
        with self._lock:
            if not self._limit or self._looking or self._over:
                return
            self._looking = True
            self._allow(int(self._limit * (1 + RESERVE)))
        try:
            threading.Thread(target=self._watch, name="apiary-memory", daemon=True).start()
        except RuntimeError:  # there is no memory for a thread
            self._decide(True)

    def _watch(self) -> None:
        for _ in range(LOOKS):
            if not self._missing():
                self._decide(False)
                return
            time.sleep(LOOK_SECONDS)
        self._decide(True)

    def _missing(self) -> bool:
        gc.collect()
        _trim()
        return data_bytes() > self._mark

    def _decide(self, over: bool) -> None:
        with self._lock:
            self._looking, self._over = False, over
            if not over:
                self._allow(self._limit)
        if over:
            self._spent()

    def _allow(self, limit: int) -> None:
        if self._limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def data_bytes() -> int:
    """What the limit counts of this process."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * PAGE_BYTES if sys.platform == "linux" else 0


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _trim() -> None:
    """Give freed memory back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
