"""The bare ASGI application of `peers/bare.py`: bare APSW behind a bare answer, and nothing that a platform is for.

No router, no validation, no records, no errors told. One thread owns the database; the calls that wait at the same
moment share one commit, and are answered when it is on the disk.
"""

import asyncio
import json
import os
import threading
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw

from bench import data_set
from bench.floor import PRAGMAS, prepare
from bench.floor_functions import FUNCTIONS
from bench.workloads import WORKLOADS

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Waiting = tuple[str, bytes, asyncio.Future[bytes]]

WORKLOAD = WORKLOADS[os.environ["BENCH_WORKLOAD"]]
HEADERS = (b"content-type", b"application/json")
MOST_IN_A_COMMIT = 64


class Owner(threading.Thread):
    """The thread that owns the database."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(daemon=True)
        self.loop = loop
        self.waiting: deque[Waiting] = deque()
        self.wake = threading.Event()

    def run(self) -> None:
        try:
            self.own()
        finally:  # nobody would be answered any more
            traceback.print_exc()
            os._exit(1)

    def own(self) -> None:
        fresh = not Path(os.environ["BENCH_FILE"]).exists()
        database = apsw.Connection(os.environ["BENCH_FILE"])
        if fresh:
            prepare(database, WORKLOAD)
        database.execute(PRAGMAS)
        sql = data_set.statements(WORKLOAD.app)
        functions = FUNCTIONS[WORKLOAD.app](database.cursor(), sql)
        for question in ("EFFECTS", "VIOLATIONS"):
            functions[question.lower()] = asks(database, getattr(sql, question, ()))
        reading = {operation.function for operation in WORKLOAD.operations if operation.reads_only}
        reading |= {"effects", "violations"}
        while True:
            self.wake.wait()
            self.wake.clear()
            while self.waiting:
                batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), MOST_IN_A_COMMIT))]
                only_reads = all(name in reading for name, _, _ in batch)
                database.execute("begin" if only_reads else "begin immediate")
                done = [
                    (future, json.dumps(functions[name](**json.loads(body))).encode()) for name, body, future in batch
                ]
                database.execute("commit")
                self.loop.call_soon_threadsafe(settle, done)


def asks(database: apsw.Connection, texts: str | tuple[str, ...]) -> Callable[[], int]:
    """A function that adds up the answers to some statements."""
    each = (texts,) if isinstance(texts, str) else texts
    return lambda: sum(database.execute(text).get for text in each)


def settle(done: list[tuple[asyncio.Future[bytes], bytes]]) -> None:
    for future, answer in done:
        if not future.cancelled():
            future.set_result(answer)


owners: list[Owner] = []


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """One request; the last part of its path is the function."""
    if scope["type"] == "lifespan":
        await receive()
        owners.append(Owner(asyncio.get_running_loop()))
        owners[0].start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    name = scope["path"].rpartition("/")[2]
    if name == "healthz":
        answer = b'"ok"'
    else:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        owners[0].waiting.append((name, body, future))
        owners[0].wake.set()
        answer = await future
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [HEADERS, length]})
    await send({"type": "http.response.body", "body": answer})
