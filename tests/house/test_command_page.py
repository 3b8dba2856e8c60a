"""docs/cli.md has a section for each command, named by its arguments, with a row for each of its options."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from apiary.cli.main import app

SECTION = re.compile(r"^## (apiary.*)$", re.MULTILINE)
OPTION = re.compile(r"^\| `(--[\w-]+)", re.MULTILINE)

# Added by typer to the command itself; the page tells of them in its introduction.
COMPLETION = {"--install-completion", "--show-completion"}


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All commands below a group, each with its full name; groups only have the options that they add."""
    yield name, command
    for part, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {part}")


def declared() -> dict[str, set[str]]:
    found = {}
    for name, command in commands(typer.main.get_command(app), "apiary"):
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        options = {param.opts[0] for param in command.params if param.param_type_name == "option"} - COMPLETION
        heading = " ".join([name, *(placeholder(argument) for argument in arguments)])
        if options or not hasattr(command, "commands"):
            found[heading] = options
    return found


def placeholder(argument: Any) -> str:
    name = argument.metavar.strip("[].") if argument.metavar else argument.name.upper()
    return f"{name}" if argument.required else f"[{name}]"


def test_every_command_and_option_is_documented(root):
    text = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    _, *parts = SECTION.split(text)
    documented = dict(zip(parts[::2], map(set, map(OPTION.findall, parts[1::2])), strict=True))
    assert documented == declared()
