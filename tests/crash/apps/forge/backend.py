"""Ends the backend of PostgreSQL that runs this code at the n-th statement, where a file in its folder says so."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

TARGET = Path("forge-target")
"""Says at which statement. A backend works in the data directory of its server."""
COUNTED = Path("forge-counted")
"""As long as there were statements so far, in all backends."""


def arm() -> None:
    """Count the statements of this backend, if this is one."""
    if "plpy" not in sys.modules:
        return
    from apiary.engine.postgres.inside.session import InsideSession

    execute = InsideSession._execute

    def counted(self: InsideSession, *given: Any) -> Any:
        hit()
        return execute(self, *given)

    InsideSession._execute = counted  # type: ignore[method-assign]


def hit() -> None:
    """One statement more."""
    try:
        target = int(TARGET.read_text())
    except FileNotFoundError:
        return
    descriptor = os.open(COUNTED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, b".")
        if os.fstat(descriptor).st_size == target:
            os.kill(os.getpid(), signal.SIGKILL)
    finally:
        os.close(descriptor)
