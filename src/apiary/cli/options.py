"""Options that several commands share: which server, and with what key."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

Url = Annotated[str, typer.Option("--url", envvar="APIARY_URL", help="The server.")]
Key = Annotated[Optional[str], typer.Option("--key", envvar="APIARY_KEY", help="Your key.")]  # noqa: UP045 - typer
LOCAL = "http://127.0.0.1:8000"
