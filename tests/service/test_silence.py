"""Hosts that stand still while nothing runs in them: found without a call, and never by mistake."""

import asyncio
import os
import signal
import time

import pytest
from tests.service.conftest import WAIT_SECONDS

from apiary.bundle import make_bundle
from apiary.config import Settings
from apiary.events import HostDied
from apiary.platform import process
from apiary.platform.messages import Invoke
from apiary.platform.platform import Caller, Platform
from apiary.runtime.ids import new_id

LIMIT_SECONDS = 2.5


@pytest.fixture
def on_a_platform(tmp_path, tools, monkeypatch):
    """Run a scenario with a platform in this process, on which the app `zoo` is deployed."""
    monkeypatch.setattr(process, "SILENT_SECONDS", LIMIT_SECONDS)

    def run(scenario):
        async def whole():
            platform = Platform(Settings(folder=tmp_path, admin_key="k"))
            await platform.start()
            died = asyncio.Event()
            platform.watch(lambda event: died.set() if isinstance(event, HostDied) else None)
            try:
                await platform.deploy(make_bundle(tools.APPS / "zoo"), Caller("tester", ("admin",)))
                await scenario(platform.apps["zoo"], died)
            finally:
                await platform.close()

        asyncio.run(whole())

    return run


def stand_still(seconds: float) -> None:
    """Let nothing of the server run, as on a machine that has no time for anybody."""
    time.sleep(seconds)


def test_a_host_that_stands_still_is_replaced_though_nobody_calls_it(on_a_platform):
    async def scenario(hosts, died):
        host = hosts.active
        os.kill(host.pid, signal.SIGSTOP)
        await asyncio.wait_for(died.wait(), WAIT_SECONDS)
        assert host.reason == "it stood still"
        answer = await hosts.call(Invoke(new_id(), "bump", b'{"name": "after"}', "tester", ("admin",)))
        assert answer.output == b"1"

    on_a_platform(scenario)


def test_an_idle_host_does_not_stand_still(on_a_platform):
    async def scenario(hosts, died):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(died.wait(), LIMIT_SECONDS + 1)

    on_a_platform(scenario)


def test_no_host_is_blamed_where_the_server_itself_stood_still(on_a_platform):
    async def scenario(hosts, died):
        host = hosts.active
        os.kill(host.pid, signal.SIGSTOP)
        stand_still(LIMIT_SECONDS + 1)
        os.kill(host.pid, signal.SIGCONT)
        await host.ask("resume")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(died.wait(), 1)

    on_a_platform(scenario)


def test_a_host_that_runs_a_call_may_be_silent_until_its_deadline(on_a_platform, tools):
    async def scenario(hosts, died):
        host = hosts.active
        answer = hosts.call(Invoke(new_id(), "slow", b'{"seconds": 0.5}', "tester", ("admin",)))
        await asyncio.to_thread(tools.eventually, host.running)
        os.kill(host.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(died.wait(), LIMIT_SECONDS + 1)
        os.kill(host.pid, signal.SIGCONT)
        assert (await answer).error is None

    on_a_platform(scenario)
