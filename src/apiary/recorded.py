"""The arguments of a call as its record has them, where that is not the body as it came."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from apiary.runtime.call import DIGEST
from apiary.runtime.session import Call

SCRYPT_COST = 2**13
STARS = "*" * 10


class RecordedArguments:
    """Writes the arguments of one function, those that are `secret` as stars."""

    def __init__(self, writer: TypeAdapter[Any], secret: frozenset[str]) -> None:
        self._writer = writer
        self._secret = secret

    def write(self, call: Call, arguments: Mapping[str, Any], came: Mapping[str, Any]) -> bytes:
        """`arguments` as JSON; `came` is what was read as these."""
        try:
            written = self._writer.dump_json(arguments, by_alias=True)
        except Exception:  # noqa: BLE001 - serializers are user code
            written = json.dumps(self._one_by_one(arguments, came)).encode()
        digest = call.digest or self.digest(call)
        return json.dumps({**json.loads(written), DIGEST: digest}).encode() if digest else written

    def unread(self, body: bytes) -> bytes:
        """What came, where it cannot be read as arguments, with stars for secrets."""
        try:
            came = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            return b"{}"
        given = came.items() if isinstance(came, dict) else ()
        return json.dumps({name: STARS if name in self._secret else value for name, value in given}).encode()

    def digest(self, call: Call) -> str | None:
        """A digest of all arguments; none where they are not JSON, or where there is nothing to tell apart.

        Slow, so that who reads the log cannot try many guesses at what it does not show.
        """
        if not self._secret or call.key is None:
            return None
        try:
            exact = json.dumps(json.loads(call.input or b"{}"), sort_keys=True).encode()
            return hashlib.scrypt(exact, salt=call.key.encode(), n=SCRYPT_COST, r=8, p=1, dklen=16).hex()
        except (ValueError, RecursionError):
            return None

    def _one_by_one(self, arguments: Mapping[str, Any], came: Mapping[str, Any]) -> dict[str, Any]:
        """What runs must be recorded, whatever its serializer says: such an argument as it came, a secret as stars."""
        written: dict[str, Any] = {}
        for name, value in arguments.items():
            try:
                written.update(json.loads(self._writer.dump_json({name: value}, by_alias=True, warnings=False)))
            except Exception:  # noqa: BLE001 - serializers are user code
                written[name] = STARS if name in self._secret else came.get(name)
        return written
