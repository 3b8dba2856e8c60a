"""How fast the two load generators are themselves here, against a responder that does nothing."""

import sys
from pathlib import Path

from bench import open_loop
from bench.closed_loop import LoadFailed, Wrk
from bench.mix import UNIFORM
from bench.process import Server, free_port, wait_for_port
from bench.rounds import Plan
from bench.workloads import WORKLOADS

ROOT = Path(__file__).parent.parent


def measure(folder: Path, plan: Plan) -> dict[str, float]:
    """Requests/s of wrk (with the plan's clients) and of the open-loop driver.

    A number near one of these says more about the generator than about the server.
    """
    port = free_port()
    responder = Server([sys.executable, "-m", "bench.responder", str(port)], folder / "responder.log", {}, ROOT)
    try:
        wait_for_port(responder, port)
        closed = Wrk(plan.clients, plan.threads).run(WORKLOADS["increment"], port, UNIFORM, seed=1, seconds=1)
        if closed.failures:
            raise LoadFailed(f"{closed.failures} requests to the bare responder failed.\n{responder.tail()}")
        return {"wrk": closed.requests_per_second, "open_loop": open_loop.ceiling(port, plan.connections)}
    finally:
        responder.stop()
