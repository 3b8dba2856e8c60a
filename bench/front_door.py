"""The way into a peer: HTTP, driven by wrk; or, where a peer is a library, calls inside its program."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bench import loop
from bench.closed_loop import Measured, Wrk
from bench.mix import UNIFORM, Workload
from bench.peer import Library, Peer, Queues
from bench.probe import CallFailed, Connection, wait_for_answer
from bench.stream import calls, encoder

# Makes one call of a workload's function.
Calls = Callable[[Workload, str, Mapping[str, Any]], Any]


def load(peer: Peer, workload: Workload, keys: str, seed: int, seconds: int, wrk: Wrk) -> Measured:
    """A closed loop of the workload's clients, or of as many as wrk is given."""
    clients = workload.clients or wrk.clients
    if isinstance(peer, Library):
        return peer.load(workload, keys, seed, clients, seconds)
    if workload.queued:
        return loop.run(lambda: _queuing(peer, workload), workload, keys, seed, clients, seconds)
    return replace(wrk, clients=clients).run(seen_by(peer, workload), peer.port, keys, seed, seconds)


def seen_by(peer: Peer, workload: Workload) -> Workload:
    """The workload, its paths as the peer has them."""
    return replace(workload, prefix=peer.prefix)


def by_http(peer: Peer, workload: Workload) -> bool:
    """Whether one request makes one call, so that wrk and the open loop can drive the peer."""
    return not isinstance(peer, Library) and not workload.queued


@contextmanager
def opened(peer: Peer) -> Iterator[Calls]:
    """One client: what it calls is checked, and its result returned."""
    if isinstance(peer, Library):
        yield peer.call
        return
    with Connection(peer.port) as connection:

        def call(workload: Workload, function: str, arguments: Mapping[str, Any]) -> Any:
            path = seen_by(peer, workload).path(function)
            if is_queued(workload, function):
                return _queues(peer).enqueue(connection, path, dict(arguments))
            return connection.call(path, dict(arguments))

        yield call


def is_queued(workload: Workload, function: str) -> bool:
    """Whether a function is one that this workload enqueues, rather than one that asks about it."""
    return workload.queued and function in {operation.function for operation in workload.operations}


def wait(peer: Peer, workload: Workload) -> None:
    """Wait until the peer answers the workload's first call."""
    first = next(calls(workload, UNIFORM, 78))
    if by_http(peer, workload):
        wait_for_answer(None, peer.port, encoder(seen_by(peer, workload), f"127.0.0.1:{peer.port}")(first))
    else:
        with opened(peer) as call:
            call(workload, first.operation.function, first.arguments)


@contextmanager
def _queuing(peer: Peer, workload: Workload) -> Iterator[loop.Caller]:
    with opened(peer) as call:
        yield lambda one: call(workload, one.operation.function, one.arguments)


def _queues(peer: Peer) -> Queues:
    if not isinstance(peer, Queues):
        raise CallFailed(f"{peer.name} has no queue")
    return peer
