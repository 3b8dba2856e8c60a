"""What the server and its hosts say to each other, over a socket pair: length-prefixed MessagePack.

A host runs user code, so nothing it sends is trusted to be more than data.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from apiary.config import Capturing

LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 512 * 1024 * 1024
EXPELLED_STATUS = 71
"""With this a host exits that was declared lost."""


class Start(msgspec.Struct, tag="start", array_like=True):
    """The first message to a host: what to load. `folder` is the server's own, `host` the identity of the process."""

    module: str
    version: str
    code: str
    packages: str | None
    folder: str
    memory_bytes: int
    recording: bool
    capture: Capturing = Capturing.BOTH
    host: str = ""


class Invoke(msgspec.Struct, tag="call", array_like=True):
    """Run a call. `wait`: it is a workflow of which it is enough, after so many seconds, that it has begun."""

    id: bytes
    function: str
    input: bytes
    caller: str
    roles: tuple[str, ...]
    key: str | None = None
    lax: bool = False
    attempt: int = 1
    wait: float | None = None


class Ask(msgspec.Struct, tag="ask", array_like=True):
    """A question of the platform: to migrate, who runs the queue, who may write, what others have left."""

    id: bytes
    question: str
    arguments: dict[str, Any] = {}


class Stop(msgspec.Struct, tag="stop", array_like=True):
    """Finish what runs, and exit."""


class Loaded(msgspec.Struct, tag="loaded", array_like=True):
    """The host has loaded its app; `manifest` is JSON. It waits to be told where the app's database is."""

    app: str
    manifest: bytes


class Refused(msgspec.Struct, tag="refused", array_like=True):
    """The host could not load its app; `problem` is a problem document (JSON)."""

    problem: bytes


class Answer(msgspec.Struct, tag="answer", array_like=True):
    """The outcome of a call or a question: a JSON result, or a problem document (JSON). `duration` in microseconds.

    `begun`: it is none yet, but a workflow has begun: `replayed`, or the one of the call.
    """

    id: bytes
    output: bytes
    error: bytes | None = None
    replayed: bytes | None = None
    duration: int = 0
    begun: bool = False


class Returned(msgspec.Struct, tag="returned", array_like=True):
    """A call that the host may not run, because it is held or another one serves; it has not run.

    `begun`: it is a workflow that has begun, and goes on without this host.
    """

    id: bytes
    begun: bool = False


class Ran(msgspec.Struct, tag="ran", array_like=True):
    """A call of the queue came to its end, or a workflow whose caller did not wait; or a workflow is `blocked`."""

    id: bytes
    function: str
    error: bytes | None
    duration: int
    blocked: bool = False


class Spent(msgspec.Struct, tag="spent", array_like=True):
    """Functions have used up the memory of the host and do not give it back; another one should take its place."""


class Wanted(msgspec.Struct, tag="wanted", array_like=True):
    """Workflows are due that began on these versions."""

    versions: tuple[str, ...]


class Idle(msgspec.Struct, tag="idle", array_like=True):
    """No workflow of this version has anything to do, now or soon."""


class Dropped(msgspec.Struct, tag="dropped", array_like=True):
    """So many records of queries were not written, and so many others without what they read."""

    records: int
    effects: int


class Left(msgspec.Struct, tag="left", array_like=True):
    """The queue has changed for whoever runs it, which is not this host: there is more in it, or less runs."""


ToHost = Start | Invoke | Ask | Stop
News = Ran | Spent | Wanted | Idle | Dropped | Left
FromHost = Loaded | Refused | Answer | Returned | News

encoder = msgspec.msgpack.Encoder()
to_host = msgspec.msgpack.Decoder(ToHost)
from_host = msgspec.msgpack.Decoder(FromHost)


def frame(message: ToHost | FromHost) -> bytes:
    """A message as it goes over the socket."""
    body = encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into the bodies of its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now; `ValueError` where a length cannot be."""
        buffer = self._buffer
        buffer += data
        found = []
        start = 0
        while len(buffer) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(buffer, start)
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes")
            end = start + LENGTH.size + size
            if len(buffer) < end:
                break
            found.append(bytes(buffer[start + LENGTH.size : end]))
            start = end
        if start:
            del buffer[:start]
        return found
