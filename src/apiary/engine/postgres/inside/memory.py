"""How much memory a backend may take. Standard library only.

Beyond the first limit a backend is replaced after its batch, so that a leak costs a new connection now and then. At
the second, allocations fail, in the function that asks for too much, before the machine runs out of memory: the kernel
would end a backend, and PostgreSQL all others with it.
"""

from __future__ import annotations

import os
import resource

RECYCLE_BYTES = 512 * 1024 * 1024
"""Of its own: without the buffers that all backends share."""
MOST_BYTES = 2 * RECYCLE_BYTES
PAGE_BYTES = resource.getpagesize()
STATM_BYTES = 128


class Memory:
    """The memory of this process."""

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY) if os.path.exists("/proc/self/statm") else None

    def limit(self) -> None:
        """Let allocations fail beyond the limit."""
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = MOST_BYTES if most == resource.RLIM_INFINITY else min(MOST_BYTES, most)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))

    def own_bytes(self) -> int:
        """What is resident and not shared; 0 where the system does not tell."""
        if self._statm is None:
            return 0
        _, resident, shared, *_ = os.pread(self._statm, STATM_BYTES, 0).split()
        return (int(resident) - int(shared)) * PAGE_BYTES
