"""The queue of an app that several servers share: one of them runs it, and nothing in it is lost or run twice."""

import os
import signal
from collections import Counter
from pathlib import Path

import psycopg

INSIDE = False
CALLS = 60


def runner(servers) -> str:
    """The identity of the server whose hosts run the queue."""
    with psycopg.connect(servers.database) as connection:
        return str(connection.execute("select server from apiary.queues where app = 'grow'").fetchone()[0])


def ordered(servers, known) -> tuple:
    """The server that runs the queue, and the other one."""
    identity = runner(servers)
    first, second = servers.started
    return (first, second) if known.servers(first)[first.url]["id"] == identity else (second, first)


def lines(path: Path) -> Counter:
    return Counter(path.read_text().split()) if path.exists() else Counter()


def all_ran(server, prefix: str) -> bool:
    return server.call("effects", app="grow", prefix=prefix) == {f"{prefix}-{number}": 1 for number in range(CALLS)}


def test_what_any_server_puts_into_the_queue_runs_once_and_soon(servers, tools, tmp_path):
    path = tmp_path / "lines"
    for number, server in enumerate(servers.started):
        server.call("put_later", app="grow", key=f"soon{number}", count=CALLS)
        server.call("act_later", app="grow", path=str(path), prefix=f"{number}", count=CALLS)
    for number, server in enumerate(servers.started):
        tools.eventually(lambda server=server, number=number: all_ran(server, f"soon{number}"), 20)
    expected = Counter(f"{number}-{item}" for number in range(len(servers.started)) for item in range(CALLS))
    tools.eventually(lambda: lines(path) == expected, 20)


def test_the_queue_goes_on_where_the_server_that_runs_it_is_killed(servers, known, tools, tmp_path):
    path = tmp_path / "lines"
    first, second = ordered(servers, known)
    for number, server in enumerate((first, second)):
        server.call("put_later", app="grow", key=f"killed{number}", count=CALLS)
        server.call("act_later", app="grow", path=str(path), prefix=f"{number}", count=CALLS)
    servers.kill(first)
    for number in range(2):
        tools.eventually(lambda number=number: all_ran(second, f"killed{number}"), 60)
    expected = {f"{number}-{item}" for number in range(2) for item in range(CALLS)}
    tools.eventually(lambda: lines(path).keys() == expected, 60)
    # At least once: of those that ran in that moment nobody can know.
    assert sum(count > 1 for count in lines(path).values()) <= 40


def test_workflows_go_on_where_their_server_is_killed(servers, known, tools, tmp_path):
    """Begun on both, they end once, each step once, whoever is killed."""
    path = tmp_path / "lines"
    first, second = ordered(servers, known)
    for victim, other in ((second, first), (first, second)):
        name = "v" if victim is second else "w"
        for number in range(10):
            order = {"key": f"{name}-{number}", "path": str(path), "seconds": 0.3}
            headers = {"Idempotency-Key": f"{name}-{number}", "Prefer": "respond-async"}
            begun = victim.http.post("/apps/grow/order", json=order, headers=headers)
            assert begun.status_code == 202, begun.text
        tools.eventually(lambda name=name: any(line.startswith(name) for line in lines(path)), 30)
        servers.kill(victim)
        expected = {f"{name}-{number}-{end}": 1 for number in range(10) for end in ("first", "second")}
        tools.eventually(lambda other=other, e=expected, n=name: other.call("effects", app="grow", prefix=n) == e, 90)
        for number in range(10):
            order = {"key": f"{name}-{number}", "path": str(path), "seconds": 0.3}
            again = other.post("order", order, key=f"{name}-{number}", app="grow")
            assert again.status_code == 200, again.text
        assert other.call("effects", app="grow", prefix=name) == expected
        servers.start()
        first, second = second, first


def test_a_host_that_dies_on_a_server_that_does_not_run_the_queue_loses_nothing(servers, known, tools, tmp_path):
    path = tmp_path / "lines"
    _, second = ordered(servers, known)
    order = {"key": "host-1", "path": str(path), "seconds": 0.3}
    headers = {"Idempotency-Key": "host-1", "Prefer": "respond-async"}
    assert second.http.post("/apps/grow/order", json=order, headers=headers).status_code == 202
    os.kill(second.host("grow"), signal.SIGKILL)
    expected = {"host-1-first": 1, "host-1-second": 1}
    tools.eventually(lambda: second.call("effects", app="grow", prefix="host") == expected, 60)


def test_the_turn_is_given_up_by_a_server_that_stops(servers, known, tools):
    first, second = ordered(servers, known)
    first.stop()
    second.call("put_later", app="grow", key="given", count=CALLS)
    tools.eventually(lambda: all_ran(second, "given"), 30)
    assert runner(servers) == known.servers(second)[second.url]["id"]
