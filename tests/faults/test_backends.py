"""Backends are killed, terminated and cancelled, and the server ends and starts, while calls run: nothing is lost."""

import os
import random
import signal
import threading
import time
from contextlib import suppress

import psycopg
import pytest
from tests.faults.conftest import eventually, loaded, new_key

SHORT_SECONDS = 0.2


def pause(generator, most=SHORT_SECONDS):
    time.sleep(generator.uniform(0.0, most))  # any moment will do


def killed(world, times):
    generator = random.Random(3)
    with loaded(world) as load:
        for _ in range(times):
            pause(generator, 0.5)
            victim = eventually(lambda: world.backends("active") or world.backends())[0]
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim: victim not in world.backends())
            before = len(load.answers)
            eventually(lambda before=before: len(load.answers) > before + 20)
    world.works()


def test_a_backend_is_killed_while_calls_run(world):
    killed(world, 1)


@pytest.mark.soak
def test_backends_are_killed_for_minutes(world):
    killed(world, 40)


@pytest.mark.parametrize("how", ["pg_terminate_backend", pytest.param("pg_cancel_backend", marks=pytest.mark.soak)])
def test_backends_are_ended_or_cancelled_while_calls_run(world, how):
    generator = random.Random(4)
    with loaded(world) as load:
        for _ in range(5):
            pause(generator)
            for pid in world.backends():
                if generator.random() < 0.7:
                    world.look(f"select {how}(%s)", pid)
    assert load.slowest < 10
    world.works()


@pytest.mark.parametrize("how", ["pg_terminate_backend", "pg_cancel_backend"])
@pytest.mark.parametrize("function", [pytest.param("slow_effect", marks=pytest.mark.soak), "effect_then_sleep"])
def test_a_call_whose_backend_is_ended_or_cancelled_is_run_again(world, function, how):
    """In its Python code, and in its SQL."""
    world.works()
    key = new_key()
    pending = world.submit(function, key=key, seconds=2.0)
    if world.placement == "beside" and function == "slow_effect":
        time.sleep(0.1)  # its backend is idle
        found = world.backends()
    else:
        found = eventually(lambda: world.backends("active"))
    for pid in found:
        world.look(f"select {how}(%s)", pid)
    outcome = pending.outcome()
    assert outcome.error is None
    world.true(outcome, key)


@pytest.fixture
def waiting_commits(world):
    """Commits that are durable here wait for a standby that is not there: a moment in which they have taken effect."""

    def waiting() -> list[int]:
        return [row[0] for row in world.look("select pid from pg_stat_activity where wait_event = 'SyncRep'")]

    def commit() -> None:
        with suppress(psycopg.OperationalError):
            while True:
                world.look_open().execute("select pg_logical_emit_message(true, '', '')")

    world.look("alter system set synchronous_standby_names = 'nobody'")
    world.look("select pg_reload_conf()")
    trying = threading.Thread(target=commit)  # the server reads its settings when it comes to it
    trying.start()
    (pid,) = eventually(waiting)
    world.look("select pg_terminate_backend(%s)", pid)
    trying.join()
    yield waiting
    world.look("alter system reset synchronous_standby_names")
    world.look("select pg_reload_conf()")


@pytest.mark.parametrize("how", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_call_whose_backend_is_ended_or_cancelled_in_its_commit_has_taken_effect(world, waiting_commits, how):
    key = new_key()
    pending = world.submit("effect", key=key)
    (pid,) = eventually(waiting_commits)
    world.look(f"select {how}(%s)", pid)
    outcome = pending.outcome()
    assert outcome.error is None
    world.true(outcome, key)


@pytest.mark.parametrize("how", ["crash", pytest.param("stop", marks=pytest.mark.soak)])
def test_the_server_ends_under_load_and_starts_again(world, private_postgres, how):
    with loaded(world) as load:
        eventually(lambda: len(load.answers) > 20)
        getattr(private_postgres, how)()
        private_postgres.start()
        before = len(load.answers)
        eventually(lambda: len(load.answers) > before + 20)
    world.works()


def down(world, private_postgres, seconds):
    with loaded(world) as load:
        eventually(lambda: len(load.answers) > 20)
        private_postgres.crash()
        time.sleep(seconds)  # the outage
        refused = load.refused
        private_postgres.start()
        before = len(load.answers)
        eventually(lambda: len(load.answers) > before + 20)
    world.works()
    return refused, load.slowest


@pytest.mark.soak
def test_calls_are_refused_while_the_server_is_down(world, private_postgres, impatient):
    refused, slowest = down(world, private_postgres, 3)
    assert refused > 10
    assert slowest < 8


@pytest.mark.soak
def test_calls_are_refused_promptly_while_the_server_is_down_for_long(world, private_postgres):
    refused, slowest = down(world, private_postgres, 20)
    assert refused > 10
    assert slowest < 10


def test_a_queued_call_runs_once_though_its_server_ends(world, private_postgres):
    world.works()
    keys = [new_key() for _ in range(20)]
    pending = [world.submit("later", _key=key, key=key) for key in keys]
    private_postgres.crash()
    private_postgres.start()
    for key, one in zip(keys, pending, strict=True):
        outcome = one.outcome()
        while outcome.error is not None:
            assert outcome.error["status"] == 503
            outcome = world.run("later", _key=key, key=key)
    eventually(lambda: all(len(world.numbers(key)) == 1 for key in keys))


@pytest.mark.soak
def test_what_waits_in_the_queue_runs_when_the_server_is_back(world, private_postgres):
    """The queue cannot be read at first, nor an action be looked up."""
    world.works()
    key = new_key()
    world.opened._dispatcher.backlog.deactivate()
    assert world.run("later", key=key).error is None
    private_postgres.crash()
    world.opened._dispatcher.backlog.activate()
    assert world.run("act", key=key).error["status"] == 503
    private_postgres.start()
    eventually(lambda: len(world.numbers(key)) == 1)
    assert world.run("act", key=key).error is None
