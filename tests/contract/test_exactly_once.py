"""The contract of exactly once: an idempotency key has one outcome in an app, whatever happens around it."""

import json
import threading

import pytest

from apiary import KeyReused
from apiary.codec import FunctionCodec
from apiary.runtime.call import DIGEST
from apiary.runtime.ids import new_id

OUTCOMES = {
    "add": ({"name": "a"}, 1),
    "read": ({"name": "a"}, 0),
    "add_then_fail": ({"how": "rejected"}, 0),
    "transfer": ({"source": "a", "target": "b", "amount": 5}, 0),
    "three_parts": ({"name": "a"}, 101),
}


@pytest.mark.parametrize("function", OUTCOMES)
def test_a_key_has_one_outcome_for_ever(contract, function):
    arguments, effect = OUTCOMES[function]
    first = contract.outcome(function, _key="k", **arguments)
    again = [contract.outcome(function, _key="k", **arguments) for _ in range(3)]
    assert not first.replayed
    assert all(one.replayed and (one.output, one.error) == (first.output, first.error) for one in again)
    contract.drain()
    assert contract.counters()["a"] == effect + 3 * (function == "three_parts")


@pytest.mark.parametrize("function", OUTCOMES)
def test_the_same_id_again_is_the_same_call(contract, function):
    arguments, effect = OUTCOMES[function]
    identifier = new_id()
    first = contract.outcome(function, _id=identifier, **arguments)
    again = contract.outcome(function, _id=identifier, **arguments)
    assert (again.output, again.error) == (first.output, first.error)
    contract.drain()
    assert contract.counters()["a"] == effect + 3 * (function == "three_parts")


@pytest.mark.parametrize("function", OUTCOMES)
def test_the_same_key_at_the_same_time_runs_once(crowded, function, together):
    """Also from lane to lane: equal keys meet in one lane, equal ids do not."""
    arguments, effect = OUTCOMES[function]
    outcomes = together(lambda _: crowded.outcome(function, _key="k", **arguments), range(16))
    assert len({(one.output, json.dumps(one.error)) for one in outcomes}) == 1
    assert [one.replayed for one in outcomes].count(None) == 1
    identifier = new_id()
    if function != "read":  # a query without a key may run as often as it likes
        outcomes = together(lambda _: crowded.outcome(function, _id=identifier, **arguments), range(16))
        assert len({(one.output, json.dumps(one.error)) for one in outcomes}) == 1
    crowded.drain()
    assert crowded.counters()["a"] == (effect + 3 * (function == "three_parts")) * 2


def test_a_key_of_two_processes_runs_once(opened_contracts, crowded, together):
    """Lanes of different processes do not know of each other; the database does."""
    other = opened_contracts(crowded.name)
    for key in map(str, range(20)):
        outcomes = together(lambda one, key=key: one.outcome("add", _key=key, name="a"), [crowded, other] * 3)
        assert len({one.output for one in outcomes}) == 1
        assert [one.replayed for one in outcomes].count(None) == 1
    assert crowded.counters()["a"] == 20


def test_the_same_key_in_one_batch_runs_once(contract):
    pending = [contract.submit("add", _key="k", name="a") for _ in range(50)]
    assert {one.outcome().output for one in pending} == {b"1"}
    assert contract.counters()["a"] == 1


@pytest.mark.parametrize("key", ["k", "", "ключ 🔑", "x" * 1999, "a'b\"c\\d\n", "null"])
def test_keys_may_be_any_text(contract, key):
    assert contract.outcome("add", _key=key, name="a").output == b"1"
    assert contract.outcome("add", _key=key, name="a").output == b"1"
    assert contract.outcome("add", _key=key + "!", name="a").output == b"2"


@pytest.mark.parametrize("key", ["a\0b", "\ud800", "x" * 2001])
def test_a_key_that_not_every_database_could_keep_is_refused(contract, key):
    before = contract.submit("add", name="a")
    assert contract.code("add", _key=key, name="a") == "wrong_arguments"
    assert contract.outcome("add", name="a").output == b"2"
    assert before.outcome().output == b"1"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("add", {"name": "a"}), ("add", {"name": "b"})),
        (("add", {"name": "a"}), ("add", {"name": "a", "by": 1})),
        (("add", {"name": "a"}), ("read", {"name": "a"})),
        (("read", {"name": "a"}), ("add", {"name": "a"})),
        (("add_then_fail", {"how": "error"}), ("add_then_fail", {"how": "exit"})),
    ],
)
def test_a_key_is_not_for_another_call(contract, first, second):
    original = contract.outcome(first[0], _key="k", **first[1])
    before = contract.counters()
    refused = contract.outcome(second[0], _key="k", **second[1])
    assert (refused.error["code"], refused.error["status"]) == (KeyReused.code, 422)
    assert contract.counters() == before
    again = contract.outcome(first[0], _key="k", **first[1])
    assert (again.output, again.error) == (original.output, original.error)


@pytest.mark.parametrize("body", ['{"name": 5}', '{"nam": "a"}', "[]", "no json", b"\xff", b'{"name": "\\ud800"}'])
def test_a_call_that_was_not_run_leaves_its_key_free(contract, body):
    assert contract.calls.run("add", body, key="k").error["code"] == "wrong_arguments"
    assert contract.calls.run("secret", key="s", roles=()).error["code"] == "forbidden"
    assert contract.outcome("add", _key="k", name="a").output == b"1"
    assert contract.outcome("secret", _key="s").output == b"42"
    assert contract.calls.run("add", body, key="k").error["code"] in ("wrong_arguments", "idempotency_key_reused")


def test_a_deadline_leaves_its_key_free(contract):
    contract.look("insert into notes (id) values (0)")
    for _ in range(2):
        assert contract.code("loop_once", _key="k", id=1) == "deadline_exceeded"
    contract.look("delete from notes")
    assert contract.outcome("loop_once", _key="k", id=1).output == b"1"
    again = contract.outcome("loop_once", _key="k", id=1)
    assert (again.output, contract.notes()) == (b"1", [1])
    assert again.replayed
    assert [record["status"] for record in contract.records(3)] == ["stopped", "stopped", "ok"]


def test_a_failure_at_commit_is_the_outcome_of_its_key(contract):
    first = contract.outcome("family", _key="k", id=1, orphan=True)
    assert first.error["code"] == "constraint_violated"
    contract.look("insert into parents (id) values (1)")
    again = contract.outcome("family", _key="k", id=1, orphan=True)
    assert again.error == first.error
    assert again.replayed


def test_a_key_is_for_one_secret_that_the_log_does_not_show(contract):
    assert contract.outcome("unlock", _key="k", password="hunter2").output == b"7"
    assert contract.calls.run("unlock", '{"name" : "a", "password": "hunter2"}', key="j").output == b"7"
    assert contract.calls.run("unlock", '{"password":"hunter2","name":"a"}', key="j").replayed
    for password in ("hunter3", "", "**********"):
        assert contract.code("unlock", _key="k", password=password) == KeyReused.code
    again = contract.outcome("unlock", _key="k", password="hunter2")
    assert (again.output, again.replayed is None) == (b"7", False)
    first, second = (record["input"] for record in contract.records(2))
    assert first.pop(DIGEST) != second.pop(DIGEST)
    assert (first, second) == ({"password": "**********"}, {"password": "**********", "name": "a"})


def test_what_is_slow_for_secrets_is_made_where_the_call_arrives(contract, monkeypatch):
    """The lane, wherever it runs, gets it with the call; else each secret would hold up all other calls."""
    threads = []

    def digest(codec, call):
        threads.append(threading.current_thread().name)
        return "made here"

    monkeypatch.setattr(FunctionCodec, "digest", digest)
    for _ in range(2):
        outcome = contract.outcome("unlock", _key="k", password="s")
        assert outcome.output == b"1"
    assert outcome.replayed
    assert [name.rpartition("_")[0] for name in threads] == ["apiary-digest"] * 2
    assert contract.records(1)[0]["input"][DIGEST] == "made here"


def test_a_key_answers_only_those_who_may_call_the_function(contract):
    assert contract.calls.run("secret", key="s").output == b"42"
    for roles in ((), {"another"}):
        outcome = contract.calls.run("secret", key="s", roles=roles)
        assert (outcome.error["code"], outcome.replayed) == ("forbidden", None)
    assert contract.calls.run("secret", key="s", roles={"boss"}).replayed


@pytest.mark.parametrize(
    ("first", "again", "same"),
    [
        ("true", "1", False),
        ("1", "true", False),
        ("false", "0.0", False),
        ('[{"a": 1}]', '[{"a": true}]', False),
        ("[1]", "[1, 1]", False),
        ('{"a": 1}', '{"b": 1}', False),
        ('{"a": [1, null], "b": 2}', '{"b": 2.0, "a": [1, null]}', True),
        ("1", "1.0", True),
        ("0", "null", False),
        ('""', "[]", False),
    ],
)
def test_arguments_are_compared_as_json(contract, first, again, same):
    assert contract.calls.run("echo", f'{{"value": {first}}}', key="k").error is None
    outcome = contract.calls.run("echo", f'{{"value": {again}}}', key="k")
    assert (outcome.error or {"code": "same"})["code"] == ("same" if same else "idempotency_key_reused")
