"""A server that does nothing: every request is answered with `{}`. It shows what the load generators can reach.

Run as `python -m bench.responder PORT`.
"""

import asyncio
import sys
from typing import cast

import uvloop

from bench.probe import content_length

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Responder(asyncio.Protocol):
    """One connection; requests may come in pieces or several at once."""

    transport: asyncio.WriteTransport

    def __init__(self) -> None:
        self.pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while (end := self.pending.find(b"\r\n\r\n")) >= 0:
            size = end + 4 + content_length(self.pending[:end])
            if len(self.pending) < size:
                return
            self.pending = self.pending[size:]
            self.transport.write(ANSWER)


async def serve(port: int) -> None:
    """Answer on the loopback port until the process ends."""
    server = await asyncio.get_running_loop().create_server(Responder, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
