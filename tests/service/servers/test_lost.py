"""Servers that share a database: who is found lost, and that nothing is lost or done twice by that."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from apiary.engine.postgres.health import examine

INSIDE = True


def taken_over(server, host: str) -> bool:
    """Whether a server has said that what a lost host left is taken over."""
    return f"grow has taken over what was left by {host}" in server.text()


def test_servers_that_start_together_share_keys_and_apps_and_know_each_other(servers, known):
    """There is one first key, whoever was faster, and the app that one of them was given is served by both."""
    both = (servers.a, servers.b)
    for server in both:
        assert known.servers(server).keys() == {servers.a.url, servers.b.url}
        for other in both:
            assert len(known.hosts(server, other)) == 1
        assert server.call("version", app="grow") == "one"


def test_the_command_line_and_the_doctor_tell_of_all_servers(servers, tools):
    command = [sys.executable, "-m", "apiary", "servers", "--url", servers.b.url, "--key", tools.KEY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    shown = {server["description"].partition(",")[0]: server for server in json.loads(done.stdout)}
    assert shown.keys() == {server.url for server in servers.started}
    assert [host["app"] for host in shown[servers.a.url]["hosts"]] == ["grow"]
    checks = [check for check in examine(servers.database) if check.name.startswith("server ")]
    assert [check.advice for check in checks] == ["", ""]
    assert servers.a.url in checks[0].found + checks[1].found
    assert ": grow; " in checks[0].found


def test_nothing_is_lost_or_done_twice_where_a_server_is_killed(servers, known, load, tools):
    (host,) = known.hosts(servers.a, servers.b)
    clients = load((servers.a, servers.b), "killed", patient=True)
    clients.reach(20)
    servers.kill(servers.b)
    clients.reach(20)
    tools.eventually(lambda: taken_over(servers.a, host), 60)
    tools.eventually(lambda: known.servers(servers.a).keys() == {servers.a.url}, 30)
    servers.start()
    assert servers.b.call("put", app="grow", key="back-1")
    clients.reach(20)
    clients.finish(servers.a)


def test_a_server_that_stood_still_goes_on_with_new_hosts(servers, known, load, tools):
    """It was declared lost meanwhile: nothing that its hosts began under their names is committed after that."""
    (host,) = known.hosts(servers.a, servers.b)
    process = servers.b.host("grow")
    clients = load((servers.a, servers.b), "stood", patient=True)
    clients.reach(20)
    servers.signal(servers.b, signal.SIGSTOP)
    tools.eventually(lambda: taken_over(servers.a, host), 60)
    servers.signal(servers.b, signal.SIGCONT)
    tools.eventually(lambda: len(known.servers(servers.a)) == 2, 30)
    clients.reach(20)
    clients.finish(servers.b)
    assert servers.b.host("grow") != process
    assert known.hosts(servers.a, servers.b) != [host]
    assert "it goes on as" in servers.b.text()


@pytest.mark.soak
def test_a_server_that_alone_stood_still_loses_its_hosts_too(servers, known, tools):
    """Its hosts could go on, but nobody may rely on that: they end, and do not come back under their names."""
    (host,) = known.hosts(servers.a, servers.b)
    process = servers.b.host("grow")
    servers.b.process.send_signal(signal.SIGSTOP)
    try:
        tools.eventually(lambda: taken_over(servers.a, host), 60)
        # Of a process whose parent stands still there is left what the parent has to fetch.
        tools.eventually(lambda: b"\0" not in _command(process), 30)
    finally:
        servers.b.process.send_signal(signal.SIGCONT)
    assert servers.b.call("put", app="grow", key="x-1")


def _command(process: int) -> bytes:
    with open(f"/proc/{process}/cmdline", "rb") as file:
        return file.read()


def test_a_host_that_died_leaves_what_it_had_to_the_one_after_it(servers, known, tools):
    (host,) = known.hosts(servers.a, servers.b)
    os.kill(servers.b.host("grow"), signal.SIGKILL)
    assert servers.b.call("put", app="grow", key="y-1")
    tools.eventually(lambda: host not in {each["id"] for each in known.servers(servers.a)[servers.b.url]["hosts"]}, 60)
    assert len(known.hosts(servers.a, servers.b)) == 1


def test_a_restart_of_the_database_costs_no_server_its_place(servers, known, load, postgres):
    before = {url: server["id"] for url, server in known.servers(servers.a).items()}
    clients = load((servers.a, servers.b), "outage", outage=True)
    clients.reach(20)
    postgres.crash()
    postgres.start()
    clients.reach(20)
    clients.finish(servers.a)
    assert {url: server["id"] for url, server in known.servers(servers.b).items()} == before


def test_one_key_on_two_servers_at_the_same_moment_is_one_call(servers, tmp_path):
    """Of a transaction as of a workflow: both callers get the one outcome."""
    path = str(tmp_path / "lines")
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            both = (servers.a, servers.b) * 4
            key = f"once-{number}"
            put = [pool.submit(server.post, "put", {"key": key}, key, "grow") for server in both]
            put = [answer.result() for answer in put]
            assert {answer.status_code for answer in put} == {200}
            assert len({answer.json() for answer in put}) == 1
            order = {"key": f"flow-{number}", "path": path}
            ordered = list(
                pool.map(lambda server, order=order: server.post("order", order, order["key"], "grow"), both)
            )
            assert {answer.status_code for answer in ordered} == {200}
            assert len({tuple(answer.json()) for answer in ordered}) == 1
    assert servers.a.call("effects", app="grow", prefix="once") == {f"once-{number}": 1 for number in range(5)}
    expected = {f"flow-{number}-{end}": 1 for number in range(5) for end in ("first", "second")}
    assert servers.b.call("effects", app="grow", prefix="flow") == expected
