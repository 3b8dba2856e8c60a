"""A TCP proxy before PostgreSQL that delays, cuts, swallows or holds what passes: a network, and its faults.

One thread waits for all sockets with `select`, whose timeout is exact to some 50 µs, where `epoll` rounds up to
milliseconds. Faults count the messages of PostgreSQL's protocol, in either direction, over all connections.
https://www.postgresql.org/docs/current/protocol-message-formats.html

`python -m bench.proxy --listen 6432 --to 127.0.0.1:5432 --delay-ms 0.25`
"""

import argparse
import ctypes
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType

CHUNK_BYTES = 1 << 16
BACKLOG = 128
PR_SET_TIMERSLACK = 29
TIMER_SLACK_NS = 1_000
LENGTH_BYTES = 4
FOR_EVER = float("inf")
ENCRYPTION_REQUESTS = (80877103, 80877104)
"""TLS and GSSAPI. The server answers with one byte, and the client begins anew."""


class Direction(Enum):
    """Which way a message travels."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


class Kind(Enum):
    """What happens at the message of a fault."""

    CUT = "the connection is closed, and the message with what follows is lost"
    SWALLOW = "this and all that follows, on every connection, is lost; the connections stay open"
    HOLD = "this and all that follows, on every connection, waits"


@dataclass(slots=True)
class Fault:
    """What is to happen when so many messages more have passed in this direction; `hit` when it has."""

    kind: Kind
    direction: Direction
    left: int
    hit: threading.Event = field(default_factory=threading.Event)


class Framing:
    """Cuts one direction of a connection into the messages of the protocol."""

    def __init__(self, *, typed: bool) -> None:
        self.typed = typed
        self.single_bytes = 0
        self._head = b""
        self._missing = 0

    def first_end(self, data: bytes, peer: "Framing") -> int | None:
        """The end of the first message in `data`, which continues what came before; none where it is not there."""
        if self._missing == 0:
            if self.single_bytes:
                self.single_bytes -= 1
                return 1
            head = LENGTH_BYTES + self.typed
            taken = head - len(self._head)
            self._head += data[:taken]
            if len(self._head) < head:
                return None
            self._missing = int.from_bytes(self._head[-LENGTH_BYTES:], "big") - LENGTH_BYTES
            end = self._body(data[taken:], peer)
            return None if end is None else taken + end
        return self._body(data, peer)

    def _body(self, data: bytes, peer: "Framing") -> int | None:
        if not self.typed and len(self._head) == LENGTH_BYTES:
            return self._startup(data, peer)
        if len(data) < self._missing:
            self._missing -= len(data)
            return None
        end, self._missing, self._head = self._missing, 0, b""
        return end

    def _startup(self, data: bytes, peer: "Framing") -> int | None:
        """What a client sends first has no type. It comes in one piece, being short."""
        if len(data) < self._missing:
            raise ValueError("a startup packet came in pieces")
        end = self._missing
        if int.from_bytes(data[:4], "big") in ENCRYPTION_REQUESTS:
            peer.single_bytes += 1
        else:
            self.typed = True
        self._missing, self._head = 0, b""
        return end


class Stream:
    """One direction of one connection: what was read and is to be written, each piece at its time."""

    def __init__(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        self.direction = direction
        self.source = source
        self.target = target
        self.framing = Framing(typed=direction is Direction.TO_CLIENT)
        self.ended = False
        self._pieces: deque[tuple[float, bytes]] = deque()

    def put(self, data: bytes, due: float) -> None:
        if data:
            self._pieces.append((due, data))

    def due(self) -> float | None:
        """When there is something to write."""
        return self._pieces[0][0] if self._pieces else None

    def write(self, now: float) -> None:
        """Write the next piece, if its time has come, as far as it goes."""
        if not self._pieces or self._pieces[0][0] > now:
            return
        due, data = self._pieces.popleft()
        try:
            sent = self.target.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._pieces.appendleft((due, data[sent:]))

    @property
    def done(self) -> bool:
        return self.ended and not self._pieces


@dataclass(slots=True)
class Pair:
    """A connection of a client, and ours to the server."""

    up: Stream
    down: Stream
    spoilt: bool = False
    """Bytes of it were swallowed, so that nothing on it would make sense any more."""

    def peer(self, stream: Stream) -> Stream:
        return self.down if stream is self.up else self.up


class Proxy:
    """Listens on loopback, and passes everything to a server and back. Use it in a `with` block."""

    def __init__(self, host: str, port: int, *, listen: int = 0, delay_seconds: float = 0.0) -> None:
        self._server = (host, port)
        self._delay = delay_seconds
        self._listener = socket.create_server(("127.0.0.1", listen), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[Pair] = []
        self._fault: Fault | None = None
        self._state: Kind | None = None
        self._closing = False
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing = True
        self._wake.send(b"x")
        self._thread.join()
        self._wake.close()
        self._woken.close()

    def fault(self, kind: Kind, direction: Direction, number: int = 1) -> Fault:
        """Have this happen at the `number`-th message that travels in this direction from now on."""
        with self._lock:
            self._fault = Fault(kind, direction, number)
            return self._fault

    def silence(self, kind: Kind) -> None:
        """Swallow, or hold, everything from now on."""
        with self._lock:
            self._state = kind

    def heal(self) -> None:
        """Be a good network again. What was held arrives; connections of which something was lost are closed."""
        with self._lock:
            self._fault = self._state = None
        self._wake.send(b"x")

    def _run(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0)
        while not self._closing:
            reading, writing, timeout = self._waiting()
            readable, _, _ = select.select([self._listener, self._woken, *reading], writing, [], timeout)
            with self._lock:
                self._turn(readable)
        for pair in list(self._pairs):
            self._close(pair)
        self._listener.close()

    def _waiting(self) -> tuple[list[socket.socket], list[socket.socket], float | None]:
        """What to wait for: sockets to read, sockets to write, and until the next piece is due."""
        now = time.monotonic()
        with self._lock:
            streams = [stream for pair in self._pairs for stream in (pair.up, pair.down)]
            reading = [stream.source for stream in streams if not stream.ended]
            if self._state is Kind.HOLD:
                return [], [], None
        dues = [(due, stream) for stream in streams if (due := stream.due()) is not None]
        writing = [stream.target for due, stream in dues if due <= now]
        later = [due for due, _ in dues if due > now]
        return reading, writing, max(0.0, min(later) - now) if later else None

    def _turn(self, readable: list[socket.socket]) -> None:
        if self._woken in readable:
            self._woken.recv(CHUNK_BYTES)
        for pair in list(self._pairs):
            if pair.spoilt and self._state is None:
                self._close(pair)
                continue
            try:
                for stream in (pair.up, pair.down):
                    if stream.source in readable:
                        self._read(pair, stream)
                for stream in (pair.up, pair.down):
                    stream.write(time.monotonic())
                if pair.up.done or pair.down.done:
                    self._close(pair)
            except (OSError, ValueError):
                self._close(pair)
        if self._listener in readable:
            self._accept()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._server)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append(
            Pair(Stream(Direction.TO_SERVER, client, server), Stream(Direction.TO_CLIENT, server, client))
        )

    def _read(self, pair: Pair, stream: Stream) -> None:
        if stream.source.fileno() < 0 or self._state is Kind.HOLD:
            return
        data = stream.source.recv(CHUNK_BYTES)
        if not data:
            stream.ended = True
        due = time.monotonic() + self._delay
        while data and self._state is None:
            end = stream.framing.first_end(data, pair.peer(stream).framing)
            if end is None:
                end = len(data)
            elif self._meets(stream):
                if self._state is None:
                    self._cut(pair, stream)
                    return
                break
            stream.put(data[:end], due)
            data = data[end:]
        if data and self._state is Kind.HOLD:
            stream.put(data, due)
        elif data:
            pair.spoilt = True

    def _meets(self, stream: Stream) -> bool:
        """Whether the fault is to happen at this message."""
        fault = self._fault
        if fault is None or fault.direction is not stream.direction:
            return False
        fault.left -= 1
        if fault.left:
            return False
        self._fault = None
        if fault.kind is not Kind.CUT:
            self._state = fault.kind
        fault.hit.set()
        return True

    def _cut(self, pair: Pair, stream: Stream) -> None:
        """Close the connection, when what came before the message has gone."""
        while stream.due() is not None:
            stream.write(FOR_EVER)
        self._close(pair)

    def _close(self, pair: Pair) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
        pair.up.source.close()
        pair.down.source.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.proxy", description="A network of your choice.")
    parser.add_argument("--listen", type=int, default=0, help="the port on loopback; 0 for any")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument("--delay-ms", type=float, default=0.25, help="each way")
    chosen = parser.parse_args()
    host, _, port = chosen.to.rpartition(":")
    with Proxy(host, int(port), listen=chosen.listen, delay_seconds=chosen.delay_ms / 1000) as proxy:
        print(f"127.0.0.1:{proxy.port} -> {chosen.to}, {chosen.delay_ms:g} ms each way", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    sys.exit(0)


if __name__ == "__main__":
    main()
