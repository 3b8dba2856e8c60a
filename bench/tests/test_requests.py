"""The two renderings of a workload, Lua for wrk and Python, make the requests that the description tells."""

import json
import random
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest
from bench.closed_loop import LoadFailed, Wrk, parse
from bench.mix import UNIFORM, ZIPF, Key, Workload
from bench.probe import content_length
from bench.stream import calls, draw_index, encoder
from bench.workloads import WORKLOADS, shop

Request = tuple[str, dict[str, Any]]


@contextmanager
def recorder() -> Iterator[tuple[int, list[Request]]]:
    """A server that keeps the path and the arguments of every request."""
    seen: list[Request] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                head = line
                while (field := self.rfile.readline()) not in (b"\r\n", b""):
                    head += field
                body = self.rfile.read(content_length(head))
                seen.append((line.split()[1].decode(), json.loads(body)))
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        def finish(self) -> None:
            try:
                super().finish()
            except OSError:
                pass

    class Quiet(socketserver.ThreadingTCPServer):
        allow_reuse_address = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Wrk cuts its connections off at the end."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()


def assert_described(workload: Workload, seen: list[Request]) -> None:
    """Paths are the workload's, shares about right, keys in range."""
    counted = Counter(path for path, _ in seen)
    operations = {workload.path(operation.function): operation for operation in workload.operations}
    assert set(counted) == set(operations)
    for path, operation in operations.items():
        assert counted[path] / len(seen) == pytest.approx(operation.share, abs=0.05)
    for path, arguments in seen:
        operation = operations[path]
        assert list(arguments) == list(operation.sends)
        for name, what in operation.draws.items():
            if isinstance(what, Key) and operation.sends.get(name) == name:
                assert 1 <= arguments[name] <= what.count
        if operation.function == "update_cart":
            lines = [(arguments["user"] * 7919 + line * 31337) % shop.ITEMS + 1 for line in range(1, shop.LINES + 1)]
            assert arguments["item"] in lines


@pytest.mark.parametrize(("name", "keys"), [("shop", ZIPF), ("retwis", UNIFORM)])
def test_wrk_sends_what_is_described(wrk: str, name: str, keys: str) -> None:
    with recorder() as (port, seen):
        measured = Wrk(clients=4, threads=2).run(WORKLOADS[name], port, keys, seed=3, seconds=1)
    assert measured.failures == 0
    assert len(seen) > 300
    assert_described(WORKLOADS[name], seen)


def test_wrk_threads_draw_different_requests(wrk: str) -> None:
    with recorder() as (port, seen):
        Wrk(clients=2, threads=2).run(WORKLOADS["increment"], port, UNIFORM, seed=3, seconds=1)
    drawn = [arguments["key"] for _, arguments in seen[:2000]]
    assert len(set(drawn)) > 0.9 * len(drawn)


@pytest.mark.parametrize("keys", [UNIFORM, ZIPF])
@pytest.mark.parametrize("name", WORKLOADS)
def test_python_draws_what_is_described(name: str, keys: str) -> None:
    workload = WORKLOADS[name]
    drawn = list(islice(calls(workload, keys, seed=1), 3000))
    assert_described(workload, [(workload.path(call.operation.function), call.arguments) for call in drawn])
    head, _, body = encoder(workload, "127.0.0.1:1")(drawn[0]).partition(b"\r\n\r\n")
    assert content_length(head) == len(body)


def test_zipf_is_skewed_and_uniform_is_not() -> None:
    source = random.Random(1)
    hottest = {
        keys: Counter(draw_index(source, 1000, keys) for _ in range(20_000)).most_common(1)[0][1] / 20_000
        for keys in (UNIFORM, ZIPF)
    }
    assert hottest[UNIFORM] < 0.01
    assert hottest[ZIPF] == pytest.approx(0.39, abs=0.03)  # 1 / sum of rank^-1.5 over 1000 ranks


def test_a_wrk_that_fails_says_so() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        parse("", "unable to connect to 127.0.0.1:1 Connection refused")
