"""A process that takes effects apart, and indexes calls: `python -m apiary.engine.sqlite.expander FOLDER`.

It reads the name of an app, takes some of what is new apart, and answers whether there is more; nothing else is on its
output.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

import apsw

from apiary.engine.sqlite.expansion import Expansion
from apiary.engine.sqlite.finding import Finding

NICE = 19


def main() -> None:
    """Take apart what the lines of the input ask for, until it ends."""
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server says when it is over, by closing the input
    folder = Path(sys.argv[1])
    open_files: dict[str, tuple[Expansion, Finding]] = {}
    for line in sys.stdin:
        app = line.strip()
        more = False
        try:
            if app not in open_files:
                file = folder / f"{app}.db"
                open_files[app] = Expansion(file), Finding(file)
            effects, calls = open_files[app]
            more = effects.step() | calls.step()
        except (apsw.Error, OSError):
            traceback.print_exc()
            open_files.pop(app, None)
        try:
            os.write(sys.stdout.fileno(), b"more\n" if more else b"\n")
        except BrokenPipeError:  # the server is gone
            return


if __name__ == "__main__":
    main()
