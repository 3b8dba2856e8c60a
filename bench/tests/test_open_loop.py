"""The open-loop driver offers what it promises and charges a stalled server for everything that waited."""

import socketserver
import threading
import time

import pytest
from bench import open_loop
from bench.mix import UNIFORM
from bench.workloads import WORKLOADS

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
STALL_SECONDS = 0.3


def test_everything_offered_is_answered(responder: int) -> None:
    measured = open_loop.measure(WORKLOADS["shop"], responder, UNIFORM, seed=1, rate=400, seconds=0.5, connections=8)
    assert measured.sent == pytest.approx(200, rel=0.4)
    assert measured.offered_per_second == measured.sent / 0.5
    assert (measured.unfinished, measured.non_2xx) == (0, 0)
    assert 0 < measured.p50_us <= measured.p99_us <= measured.max_us


def test_a_plan_keeps_its_rate() -> None:
    planned = open_loop.plan([REQUEST] * 30_000, rate=1000, seconds=20, seed=4)
    assert len(planned) == pytest.approx(20_000, rel=0.05)
    assert planned[-1][0] <= 20


class StallsOnce(socketserver.StreamRequestHandler):
    """Answers the first request late, and the others at once; one of them with an error."""

    def handle(self) -> None:
        number = 0
        while self.rfile.readline():
            while self.rfile.readline() != b"\r\n":
                pass
            self.rfile.read(2)
            if number == 0:
                time.sleep(STALL_SECONDS)
            status = b"503 Busy" if number == 5 else b"200 OK"
            self.wfile.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\n{}")
            number += 1


def test_latency_counts_from_the_due_moment() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), StallsOnce) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.server_address[1]
            measured = open_loop.drive([REQUEST] * 200, port, rate=200, seconds=0.4, seed=2, connections=1)
        finally:
            server.shutdown()
            thread.join()
    assert measured.max_us > STALL_SECONDS * 1e6 * 0.9
    assert measured.p50_us > STALL_SECONDS * 1e6 * 0.2  # a closed loop would have seen one slow request only
    assert measured.non_2xx == 1
    assert measured.failures == 1


def test_the_ceiling_is_measured(responder: int) -> None:
    assert open_loop.ceiling(responder, connections=16) > 1000
