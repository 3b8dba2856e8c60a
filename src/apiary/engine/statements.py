"""Reads `.sql` files of named statements: each begins with a line `-- name: the_name`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files


@cache
def load_statements(package: str, file: str) -> dict[str, str]:
    """The statements of a file beside the modules of `package`, by name, without comments."""
    text = files(package).joinpath(file).read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    bodies = (re.sub(r"^--.*$", "", body, flags=re.MULTILINE).strip().rstrip(";") for body in parts[1::2])
    return dict(zip(parts[::2], bodies, strict=True))
