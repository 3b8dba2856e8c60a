"""What workflows are told and let others read: what a topic, a name and a value may be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from apiary.runtime.errors import NotFound, WrongArguments
from apiary.runtime.ids import id_bytes

if TYPE_CHECKING:
    from apiary.runtime.call import Program

MAX_NAME_CHARACTERS = 200
MAX_VALUE_BYTES = 1024 * 1024


def receiver(workflow: Any) -> bytes:
    """The id of the workflow that is to receive a message; `NotFound` where it cannot be one."""
    try:
        return id_bytes(str(workflow))
    except ValueError:
        raise NotFound(f"there is no workflow {str(workflow)!r:.80} that could receive a message") from None


def checked_name(what: str, name: Any) -> str:
    """The topic of a message, or the name of a published value; `WrongArguments` where not every database has it."""
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise WrongArguments(f"a {what} is printable text of 1 to {MAX_NAME_CHARACTERS} characters, not {name!r:.50}")
    return name


def checked_value(what: str, program: Program, value: Any) -> bytes:
    """The value as JSON; `WrongArguments` where JSON cannot say it, or where it is too large."""
    try:
        written = program.to_json(value)
        json.loads(written, parse_constant=_no_number)
    except Exception as error:  # noqa: BLE001 - serializers are user code
        raise WrongArguments(f"a {what} is what JSON can say, and {type(value).__name__} is not: {error}") from None
    if len(written) > MAX_VALUE_BYTES:
        raise WrongArguments(
            f"a {what} has {MAX_VALUE_BYTES} bytes at most, and not {len(written)}",
            hint="keep it in a table, and send what tells where it is",
        )
    return written


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")
