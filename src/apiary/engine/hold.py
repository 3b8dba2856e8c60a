"""What the lanes that write may do: run calls, only write records, or nothing, while another process migrates."""

from __future__ import annotations

import threading
from enum import Enum, auto


class May(Enum):
    """What a lane may write."""

    NOTHING = auto()
    RECORDS = auto()
    ALL = auto()


class Hold:
    """Stops lanes between two batches. A lane has a lock, which it holds from reading `may` until its batch ends."""

    def __init__(self) -> None:
        self.may = May.ALL
        self._lanes: list[threading.Lock] = []

    def lane(self) -> threading.Lock:
        """The lock of one more lane."""
        lock = threading.Lock()
        self._lanes.append(lock)
        return lock

    def change(self, may: May) -> None:
        """Let the lanes do this from now on; returns when every batch has ended that began before."""
        self.may = may
        for lane in self._lanes:
            with lane:
                pass
