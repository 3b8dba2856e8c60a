"""Functions that harm the backend in which they run: each is answered, holds no locks, and others live on.

Beside the database, such a function would harm the process of the tests.
"""

import os

import pytest
from tests.faults.conftest import eventually, loaded, new_key


@pytest.mark.parametrize(
    "how",
    ["regex", *(pytest.param(how, marks=pytest.mark.soak) for how in ("power", "iterate", "allocate", "swallow"))],
)
def test_a_function_that_never_comes_back_from_c_is_stopped(inside, how):
    """Its locks are gone, its backend is replaced, and that of nobody else ends."""
    inside.works()
    other = inside.look_open()
    before = other.execute("select pg_backend_pid()").fetchone()
    key = new_key()
    outcome = inside.run("busy", _key=key, key=key, how=how)
    assert (outcome.error["code"], outcome.error["status"]) == ("deadline_exceeded", 504)
    inside.true(outcome, key)
    eventually(lambda: not inside.look("select pid from pg_locks where relation = 'faults.effects'::regclass"))
    assert other.execute("select pg_backend_pid()").fetchone() == before
    records = inside.look("select status from apiary_faults.calls where function = 'busy' order by seq desc limit 1")
    assert records == [("stopped",)]
    inside.works()


def test_the_others_of_its_batch_are_answered_and_kept(inside):
    keys = [new_key() for _ in range(20)]
    pending = [inside.submit("effect", _key=key, key=key) for key in keys[:10]]
    busy = inside.submit("busy", key=new_key(), how="iterate")
    pending += [inside.submit("effect", _key=key, key=key) for key in keys[10:]]
    assert busy.outcome().error["status"] == 504
    for key, one in zip(keys, pending, strict=True):
        assert one.outcome().error is None
        inside.true(one.outcome(), key)


@pytest.mark.soak
def test_a_function_that_ends_its_backend_is_given_up_after_a_few_attempts(inside, patient):
    key = new_key()
    outcome = inside.run("die", key=key)
    assert (outcome.error["code"], outcome.error["status"]) == ("host_crashed", 503)
    inside.recovers()
    inside.true(outcome, key)
    inside.works()


@pytest.mark.soak
def test_innocent_calls_survive_those_that_end_their_backend(inside, patient):
    with loaded(inside) as load:
        for _ in range(2):
            assert inside.run("die", key=new_key()).error["code"] == "host_crashed"
        before = len(load.answers)
        eventually(lambda: len(load.answers) > before + 20)
    inside.works()


@pytest.mark.soak
def test_a_queued_function_that_ends_its_backend_leaves_the_queue(inside, patient):
    key = new_key()
    call = inside.run("die_later", key=key).output.decode().strip('"')
    found = "select error::json ->> 'code' from apiary_faults.calls where id = %s and status = 'failed'"
    eventually(lambda: inside.look(found, call) == [("host_crashed",)])
    inside.recovers()
    assert not inside.look("select id from apiary_faults.queue")
    assert inside.numbers(key) == []
    inside.works()


def grown(world, mebibytes):
    """The backend that took so much more memory."""
    outcome = world.run("grow", mebibytes=mebibytes)
    assert outcome.error is None, outcome.error
    return int(outcome.output)


def test_a_backend_that_has_grown_is_replaced(inside):
    """After its batch; one below the limit stays."""
    inside.works()
    before = set(inside.backends())
    assert grown(inside, 100) in before
    inside.works()
    assert before <= set(inside.backends())
    big = grown(inside, 600)
    assert big in before
    eventually(lambda: not os.path.exists(f"/proc/{big}"))
    assert before - set(inside.backends()) == {big}
    inside.works()


@pytest.mark.soak
def test_a_function_that_takes_all_memory_fails_alone(inside):
    key = new_key()
    outcome = inside.run("hog", key=key)
    assert outcome.error["code"] in ("internal_error", "database_unavailable")
    assert inside.numbers(key) == []
    inside.works()


def test_a_result_beyond_its_limit_is_refused(world):
    assert len(world.run("large", mebibytes=15).output) > 15 << 20
    outcome = world.run("large", mebibytes=17)
    assert (outcome.error["code"], outcome.error["status"]) == ("payload_too_large", 413)
    world.works()
