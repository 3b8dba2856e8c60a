"""`apiary replay`: a recorded call, run again with the code of a folder."""

from __future__ import annotations

import json
import pdb  # noqa: T100 - what --pdb is
import sys
from contextlib import suppress
from pathlib import Path
from sysconfig import get_path
from types import TracebackType
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer
from rich.text import Text

from apiary.cli.options import LOCAL, Key, Url
from apiary.cli.output import arguments_of, errors, explain, people, show, wants_json
from apiary.client import Http
from apiary.runtime.call import NOT_THE_USERS, is_refusal, user_traceback
from apiary.runtime.errors import Conflict, Error, Nondeterministic, NotFound, WrongArguments
from apiary.runtime.plain import plain


def replay(
    call: Annotated[str, typer.Argument(metavar="CALL", help="The id of a query, a transaction or a workflow.")],
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The app: a folder or a file.")] = Path(),
    secrets: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer
        typer.Option("--secret", metavar="NAME=VALUE", help="An argument that is secret, and so not in the record."),
    ] = None,
    recording: Annotated[
        Optional[Path],  # noqa: UP045 - typer
        typer.Option("--save", help="Also write the recording to this file, for a test (apiary.testing.replay)."),
    ] = None,
    debug: Annotated[bool, typer.Option("--pdb", help="Stop in the debugger where it fails or departs.")] = False,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Run a recorded call again, with the code of PATH: does it do what it did then?

    Its statements get the rows that they got then, the time is what it was, and nothing is written to any database.
    The command ends with 1 where the code asks for something else, or comes to something else.
    """
    from apiary.replaying import replay as run_again

    found = _recorded(Http(url, key), call)
    if recording is not None:
        recording.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    shown: dict[str, Any] = {"call": found["id"], "function": found["function"], "version": found["version"]}
    try:
        replayed = run_again(path, found, arguments_of(secrets or []))
    except (Nondeterministic, Conflict) as error:
        if debug:
            _debug(error)
        if wants_json():
            show({**shown, "same": False, "difference": error.message, **plain(error.details)})
        else:
            explain(error)
        raise typer.Exit(1) from None
    shown |= {"status": replayed.status, "recorded": replayed.recorded, "steps": replayed.steps}
    shown |= {"same": not replayed.difference, "difference": replayed.difference or None}
    if wants_json():
        show(shown)
    else:
        _tell(shown, "statements" if "statements" in found else "steps", replayed.error)
    if debug and replayed.error is not None:
        _debug(replayed.error)
    if replayed.difference:
        raise typer.Exit(1)


def _recorded(server: Http, call: str) -> dict[str, Any]:
    """The recording of a call; of a workflow, its steps."""
    try:
        found: dict[str, Any] = server.json("GET", "/api/v1/log/recording", params={"call": call})
    except (Conflict, NotFound):
        with suppress(NotFound, WrongArguments):
            workflow: dict[str, Any] = server.json("GET", f"/api/v1/workflows/{quote(call, safe='')}/export")
            return workflow
        raise
    return found


def _tell(shown: dict[str, Any], what: str, error: BaseException | None) -> None:
    people.print(Text(f"{shown['function']}: {shown['steps']} {what} as they were recorded"))
    if error is not None:
        said = error.message if isinstance(error, Error) and is_refusal(error) else user_traceback(error).rstrip()
        people.print(Text(said, "dim"))
    if shown["same"]:
        people.print(Text(f"the same as then: {shown['status']}", "green"))
    else:
        errors.print(Text.assemble(("not the same: ", "bold red"), str(shown["difference"])))


def _debug(error: BaseException) -> None:
    """The debugger, where the code of the user was: not in the platform, nor in the library of Python."""
    if not sys.stdin.isatty():
        raise WrongArguments("--pdb needs a terminal")
    links = []
    link = error.__traceback__
    while link is not None:
        links.append(link)
        link = link.tb_next
    others = (*NOT_THE_USERS, get_path("stdlib"))
    while len(links) > 1 and links[-1].tb_frame.f_code.co_filename.startswith(others):
        links.pop()
    last: TracebackType | None = None
    for each in reversed(links):
        last = TracebackType(last, each.tb_frame, each.tb_lasti, each.tb_lineno)
    pdb.post_mortem(last)
