"""Runs a recorded call or workflow again, with the code of now and without a database: does it do the same?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apiary.bundle import load_app, load_from
from apiary.codec import compile_program
from apiary.replaying.calls import replay_call
from apiary.replaying.outcome import Replayed
from apiary.replaying.workflows import replay_workflow
from apiary.runtime.chance import install
from apiary.runtime.declaration import App
from apiary.runtime.errors import WrongArguments

__all__ = ["Replayed", "replay"]

FORMATS = (1,)


def replay(
    app: App | str | Path, recorded: str | Path | Mapping[str, Any], secrets: Mapping[str, Any] | None = None
) -> Replayed:
    """Run a recorded call again: `Replayed` tells what it came to, and whether that is what it had come to then.

    `app`: an `App`, the name of a module that makes one, or a path. `recorded`: what `log.recording(call)` gave, or
    what `apiary workflow export` wrote, as a file or what is in it. The statements of a call, and the steps of a
    workflow, get the answers that they got then; `tx.now`, `tx.id`, and what is drawn at random are what they were;
    nothing is written anywhere. `secrets`: arguments that are stars in the record of a call. Raises `Nondeterministic`,
    with what was recorded and what came, where the code asks for something else than it did, and `Conflict` where the
    log has not kept what it takes.
    """
    install()
    if not isinstance(app, App):
        app = load_from(Path(app)) if Path(app).exists() else load_app(str(app))
    run = recorded if isinstance(recorded, Mapping) else json.loads(Path(recorded).read_text(encoding="utf-8"))
    if run.get("format") not in FORMATS:
        raise WrongArguments(f"this is no recorded run: its format is {run.get('format')!r:.50}")
    program = compile_program(app, run["version"])
    return replay_call(program, run, secrets or {}) if "statements" in run else replay_workflow(program, run)
