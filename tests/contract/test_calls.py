"""The contract of calls: one transaction each, parts that are undone by themselves, refusals and failures."""

import json

import pytest

from apiary import ConstraintViolated, InternalError, Rejected
from apiary.runtime.errors import PayloadTooLarge


def test_a_transaction_commits_when_it_returns(contract):
    assert contract.call("add", "a", by=5) == 5
    assert contract.call("read", "a") == 5
    assert contract.counters() == {"a": 5, "b": 100}


FAILURES = {
    "rejected": "not_today",
    "error": "internal_error",
    "cause": "internal_error",
    "exit": "internal_error",
    "interrupt": "internal_error",
    "statement": "internal_error",
    "rule": "internal_error",
    "result": "internal_error",
    "constraint": "constraint_violated",
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_transaction_that_raises_keeps_nothing(contract, how):
    assert contract.code("add_then_fail", how=how) == FAILURES[how]
    contract.drain()
    assert contract.counters() == {"a": 0, "b": 100}
    assert contract.call("add", "a") == 1  # and the platform goes on


def test_a_refusal_reaches_the_caller_as_it_is(contract):
    with pytest.raises(Rejected) as raised:
        contract.call("add_then_fail", "rejected")
    assert (raised.value.code, raised.value.message) == ("not_today", "no")
    assert raised.value.details == {"seen": 10, "why": {"deep": [1, 2.5, None]}}


def test_an_internal_error_tells_the_caller_where_to_look_and_no_more(contract):
    with pytest.raises(InternalError) as raised:
        contract.call("add_then_fail", "error")
    assert raised.value.call_id in raised.value.hint
    assert "a mistake" not in raised.value.message


def test_the_traceback_names_the_files_and_frames_of_the_user(contract):
    contract.code("add_then_fail", how="cause")
    (record,) = contract.records(1)
    traceback = record["error"]["traceback"]
    lines = [line for line in traceback.splitlines() if line.startswith('  File "')]
    assert len(lines) == 3
    assert all("contract_app/__init__.py" in line for line in lines)
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["add_then_fail", "mistake", "add_then_fail"]
    assert "return len(how) / 0" in traceback
    assert "RuntimeError: it went wrong" in traceback


def test_a_nested_call_is_part_of_its_callers_transaction(contract):
    assert contract.call("transfer", "b", "a", 40) == [40, 60]
    assert contract.code("transfer", source="a", target="b", amount=41) == "constraint_violated"
    assert contract.counters() == {"a": 40, "b": 60}


def test_a_nested_failure_that_is_caught_undoes_only_its_part(contract):
    steps = [("a", "b", 5), ("b", "a", 5), ("nobody", "a", 1), ("a", "b", 6), ("b", "a", 95)]
    assert contract.call("try_transfers", steps) == [
        "constraint_violated",
        "ok",
        "unknown",
        "constraint_violated",
        "ok",
    ]
    assert contract.counters() == {"a": 100, "b": 0}


def test_a_nested_failure_undoes_what_it_queued(contract):
    assert contract.call("three_parts", "a") == [101, 101]
    contract.drain()
    assert contract.counters() == {"a": 104, "b": 100}
    assert contract.waiting() == 0


def test_a_queued_call_runs_when_and_only_when_its_caller_committed(contract):
    assert contract.call("add_later", "a", [1, 2, 3]) == 3
    contract.drain()
    assert contract.counters()["a"] == 6
    assert contract.code("add_later", name="a", amounts=[1000], refuse=True) == "refused"
    assert contract.call("add_later", "a", [1, -10_000, 2]) == 3
    contract.drain()
    assert contract.counters()["a"] == 9
    assert contract.waiting() == 0


def test_a_statement_that_fails_undoes_only_itself(contract):
    def body(tx, app):
        tx.execute("insert into notes (id) values (1)")
        found = [
            app.attempt(lambda statement=statement: tx.execute(statement).rowcount)
            for statement in (
                "insert into notes (id) values (2), (1)",
                "insert into notes (id) values (3)",
                "select * from nowhere",
                "insert into notes (id) values (4)",
                "no sql",
                "update notes set id = 4",
                "commit",
                "insert into notes (id) values (5)",
            )
        ]
        return found, tx.execute("select id from notes order by id").scalars()

    done, ids = contract.run(body)
    broke, wrong, refused = "ConstraintViolated", "DatabaseError", "RuleBroken"
    assert done == [broke, 1, wrong, 1, wrong, broke, refused, 1]
    assert ids == [1, 3, 4, 5] == contract.notes()


def test_many_at_once_are_one_statement(contract):
    def body(tx, app):
        insert = "insert into notes (id, note) values (:id, :note)"
        assert tx.execute_many(insert, ({"id": id, "note": str(id)} for id in range(3))) == 3
        broken = app.attempt(lambda: tx.execute_many(insert, [{"id": id, "note": ""} for id in (10, 11, 2, 12)]))
        missing = app.attempt(lambda: tx.execute_many(insert, [{"id": 20, "note": ""}, {"id": 21}]))
        tx.execute_many(insert, [])
        tx.execute_many(insert, tx.execute("select id + 100 as id, note from notes"))
        changed = tx.execute_many("update notes set note = :note", [{"note": "x"}, {"note": "y"}])
        returned = tx.execute_many("insert into notes (id) values (:id) returning id", [{"id": 200}, {"id": 201}])
        return broken, missing, changed, returned

    assert contract.run(body) == ("ConstraintViolated", "DatabaseError", 12, 2)
    assert contract.notes() == [0, 1, 2, 100, 101, 102, 200, 201]


def test_many_rows_travel_at_once(contract):
    def body(tx, app):
        rows = [{"id": id, "note": "x" * 100} for id in range(5_000)]
        first = tx.execute_many("insert into notes (id, note) values (:id, :note)", rows)
        rows = [{"id": id, "note": "x" * 100} for id in (*range(5_000, 9_000), 7, *range(9_000, 9_100))]
        broken = app.attempt(lambda: tx.execute_many("insert into notes (id, note) values (:id, :note)", rows))
        return first, broken, tx.execute("select count(*), sum(id) from notes").one()[0]

    assert contract.run(body) == (5_000, "ConstraintViolated", 5_000)


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("insert into counters (name, value) values ('a', 1)", "unique"),
        ("insert into counters (name, value) values ('c', null)", "not null"),
        ("insert into counters (name, value) values ('c', -1)", "check"),
    ],
)
def test_a_broken_constraint_is_a_conflict_that_says_which(contract, statement, constraint):
    def body(tx, app, statement):
        try:
            tx.execute(statement)
        except ConstraintViolated as error:
            return error.details["constraint"], error.status

    assert contract.run(body, statement=statement) == (constraint, 409)

    def uncaught(tx, app, statement):
        tx.execute(statement)

    with pytest.raises(ConstraintViolated) as raised:
        contract.run(uncaught, statement=statement)
    assert raised.value.details["constraint"] == constraint


def test_a_constraint_that_is_checked_at_commit_fails_only_the_call_that_broke_it(contract):
    pending = [contract.submit("family", _key=f"key-{id}", id=id, orphan=id % 3 == 0) for id in range(12)]
    codes = [(one.outcome().error or {"code": "ok"})["code"] for one in pending]
    assert codes == ["constraint_violated" if id % 3 == 0 else "ok" for id in range(12)]
    assert len(contract.look("select * from children")) == 8
    again = contract.outcome("family", _key="key-0", id=0, orphan=True)
    assert again.replayed
    assert again.error == pending[0].outcome().error
    assert {record["attempt"] for record in contract.records(12)} == {1}


def test_a_call_that_cannot_be_recorded_is_answered_and_the_next_one_runs(contract, platform):
    """Half a character in the caller's name stands for faults that nobody has thought of."""
    calls = platform(contract.opened, caller="\ud800")
    before = contract.submit("add", name="a")
    for _ in range(3):
        assert calls.run("add", '{"name": "a"}').error["code"] == "database_unavailable"
        assert calls.run("add_then_fail", '{"how": "error"}').error["code"] == "database_unavailable"
    assert before.outcome().output == b"1"
    assert contract.call("add", "a") == 2
    assert contract.call("read", "a") == 2


FRAGILE = '{"what": {"value": 13}}'


@pytest.mark.parametrize("function", ["handle", "look_at"])
def test_types_that_fail_to_read_arguments_leave_a_record_with_the_traceback(contract, function):
    outcome = contract.calls.run(function, FRAGILE)
    assert (outcome.error["code"], outcome.error["status"]) == ("internal_error", 500)
    assert contract.calls.run(function, '{"what": {"value": "13"}}').error["code"] == "wrong_arguments"
    (record,) = contract.records(1)
    assert (record["function"], record["status"], record["input"]) == (function, "failed", json.loads(FRAGILE))
    assert "TypeError: a mistake of the validator" in record["error"]["traceback"]
    assert contract.calls.run(function, FRAGILE.replace("13", "14")).output == b"14"


def test_what_could_not_be_read_is_recorded_without_its_secrets_and_repeated(contract):
    body = '{"what": {"value": 13}, "password": "hunter2"}'
    first = contract.calls.run("handle", body, key="k")
    assert first.error["code"] == "internal_error"
    again = contract.calls.run("handle", body, key="k")
    assert (again.replayed is None, again.error) == (False, first.error)
    assert contract.calls.run("handle", body.replace("13", "14"), key="k").error["code"] == "idempotency_key_reused"
    (record,) = contract.records(1)
    assert record["input"] == {"what": {"value": 13}, "password": "*" * 10}
    assert not contract.look(f"select 1 from {contract._log}calls where input like '%hunter2%'")


def test_roles_hold_for_nested_calls(contract):
    for function in ("secret", "peek"):
        assert contract.calls.run(function, roles=()).error["code"] == "forbidden"
        assert contract.calls.run(function, roles={"boss"}).output == b"42"


WRITING = [
    "insert into notes (id) values (1)",
    "insert into notes (id) values (1) returning id",
    "update counters set value = 7",
    "delete from counters",
    "create table more (x integer)",
    "drop table counters",
    "with x as (select 1) insert into notes (id) select 1",
]
WRITING_IN_POSTGRES = [
    "with x as (insert into notes (id) values (1) returning id) select id from x",
    "select * from counters for update",
    "select * from counters for no key update",
    "select * from counters for share",
    "select 1 as x into more",
    "truncate counters",
    "merge into counters using (select 'a' as name) s on s.name = counters.name when matched then delete",
    "explain analyze delete from counters",
    "do $$ begin delete from counters; end $$",
    "lock table counters",
    "(insert into notes (id) values (1))",
]


@pytest.mark.parametrize("key", [None, "a-key"])
@pytest.mark.parametrize("statement", WRITING)
def test_a_query_cannot_write(contract, statement, key):
    refuses_to_write(contract, statement, key)


@pytest.mark.parametrize("key", [None, "a-key"])
@pytest.mark.parametrize("statement", WRITING_IN_POSTGRES)
def test_a_query_cannot_write_in_ways_of_postgres(postgres_contract, statement, key):
    refuses_to_write(postgres_contract, statement, key)


SCRIBBLES = """
create or replace function scribble() returns void language plpgsql security definer
as 'begin insert into contract.notes (id) values (1); end'
"""


@pytest.mark.parametrize("key", [None, "a-key"])
def test_a_query_cannot_call_what_writes_in_the_database(postgres_contract, key):
    """Its statement does not look as if it wrote."""
    postgres_contract.look(SCRIBBLES)
    postgres_contract.look("grant execute on function scribble to public")
    refuses_to_write(postgres_contract, "select scribble()", key)


def test_what_is_around_a_query_can_write_before_and_after(postgres_contract):
    def around(tx, app):
        app.add(tx, "a")
        seen = app.read(tx, "a")
        sly = app.attempt(lambda: app.sly(tx, "select scribble()"))
        failed = app.attempt(lambda: app.sly(tx, "select 1 / 0"))
        app.add(tx, "a")
        return seen, sly, failed, app.read(tx, "a"), tx.execute("show transaction_read_only").scalar()

    postgres_contract.look(SCRIBBLES)
    assert postgres_contract.run(around) == (1, "RuleBroken", "DatabaseError", 2, "off")
    assert (postgres_contract.counters()["a"], postgres_contract.notes()) == (2, [])


def refuses_to_write(contract, statement, key):
    for function in ("sly", "sly_nested"):
        assert contract.code(function, statement=statement, _key=key and f"{key}-{function}") == "internal_error"
    errors = [record["error"]["traceback"] for record in contract.records(2)]
    if not statement.startswith("("):  # this one is no SQL at all
        assert all("RuleBroken" in error for error in errors)
    assert (contract.counters(), contract.notes()) == ({"a": 0, "b": 100}, [])


def test_a_query_cannot_call_what_writes(contract):
    def nested(tx, app):
        return app.attempt(lambda: app.add(tx, "a")), app.attempt(lambda: tx.enqueue(app.add, "a"))

    assert contract.run(nested, "query") == ("RuleBroken", "RuleBroken")
    assert contract.counters()["a"] == 0


def test_constraints_that_were_checked_before_the_end_still_wait_for_the_end(contract):
    """A workflow that goes with care has its step checked; what comes after it may be wrong for a while again."""

    def checks(tx, app):
        tx._session.check_constraints()
        return app.family(tx, 1)

    def orphans(tx, app):
        app.family(tx, 2, orphan=True)
        return app.attempt(tx._session.check_constraints)

    assert contract.run(checks) == 1
    assert contract.code("evaluate", **contract.sent(orphans)) == "constraint_violated"
    assert contract.look("select id from children") == [(1,)]


def test_a_transaction_knows_itself(contract):
    def who(tx, app):
        tx.log("hello", number=1, odd={(1, 2): {3}}, text="\ud800")
        return tx.id, tx.caller, tx.now.isoformat(), tx.now == tx.now

    identifier, caller, now, same = contract.run(who)
    assert (caller, same) == ("local", True)
    (record,) = contract.records(1)
    assert record["lines"] == [{"message": "hello", "fields": {"number": 1, "odd": {"(1, 2)": [3]}, "text": "?"}}]
    assert identifier
    assert now


@pytest.mark.parametrize("size", [1_000_000, 15_000_000])
def test_large_results_and_inputs_travel(contract, size):
    def echo(tx, app, text):
        return tx.execute("select cast(:text as text) as text", text=text).scalar()

    def make(tx, app, size):
        return "x" * size

    if size == 1_000_000:
        assert contract.run(echo, text="ä" * size) == "ä" * size
    assert contract.run(make, size=size) == "x" * size


def test_a_result_that_is_too_large_is_refused_and_nothing_is_kept(contract):
    def large(tx, app):
        app.write(tx, 1)
        return "x" * 17 * 1024 * 1024

    with pytest.raises(PayloadTooLarge):
        contract.run(large)
    assert contract.notes() == []


def test_calls_may_nest_deeply(contract):
    def body(tx, app, deep):
        def nest(left):
            inner = [{"do": "nest", "steps": nest(left - 1), "catch": left == deep // 2}] if left else FAIL
            return [{"do": "write", "id": left}, {"do": "later", "name": "a", "amounts": [1]}, *inner]

        FAIL = [{"do": "fail", "how": "value"}]
        app.play(tx, nest(deep))
        return tx.execute("select count(*) from notes").scalar()

    assert contract.run(body, deep=60) == 31
    contract.drain()
    assert contract.counters()["a"] == 31
    assert contract.notes() == list(range(30, 61))


def test_recursion_without_end_is_a_failure_like_others(contract):
    def body(tx, app):
        def nest():
            return (
                app.play(tx, [{"do": "write", "id": 1}, {"do": "erase", "id": 0}, {"do": "nest", "steps": []}])
                and nest()
            )

        return nest()

    assert contract.code("evaluate", **contract.sent(body)) == "internal_error"
    (record,) = contract.records(1)
    assert "RecursionError" in record["error"]["traceback"]
    assert contract.call("add", "a") == 1


def test_a_part_that_cannot_be_undone_takes_the_call_with_it(contract):
    """At the end of Python's stack anything may fail, the undoing of a part as well."""

    def body(tx, app, margin):
        def deep(left):
            if left:
                return deep(left - 1)
            steps = [{"do": "write", "id": 1}, {"do": "fail", "how": "value"}]
            return app.play(tx, [{"do": "nest", "steps": steps}])

        frame, depth = app.sys._getframe(), 0
        while frame is not None:
            frame, depth = frame.f_back, depth + 1
        try:
            deep(app.sys.getrecursionlimit() - depth - margin)
        except (RecursionError, ValueError):
            pass
        return tx.execute("select id from notes").scalars()

    for margin in range(2, 60):
        outcome = contract.outcome("evaluate", **contract.sent(body, margin=margin))
        assert outcome.error["code"] == "internal_error" if outcome.error else outcome.output == b'"[]"', margin
        assert contract.notes() == []
    assert contract.call("add", "a") == 1


def test_any_text_travels_as_argument_and_result(contract):
    text = "a\0b \u2028 😀 \" ' \\ \n {} %s $1 :x"

    def body(tx, app, text):
        tx.log(text, text=text)
        return [text, {text: text}]

    assert contract.run(body, text=text) == [text, {text: text}]
    (record,) = contract.records(1)
    assert record["lines"] == [{"message": text, "fields": {"text": text}}]
    text = text.replace("\0", "")  # PostgreSQL has no NUL in a parameter
    assert contract.outcome("add", name=text).error["name"] == text


def test_a_queued_action_runs_beside_the_database_and_is_recorded(contract):
    def body(tx, app):
        return tx.enqueue(app.send, "a letter") and tx.enqueue(app.send, "") and None

    contract.run(body)
    contract.drain()
    caller, *sent = contract.records(3)
    assert [(one["kind"], one["status"], one["parent"]) for one in sent] == [
        ("action", "ok", caller["id"]),
        ("action", "rejected", caller["id"]),
    ] or [one["status"] for one in sent] == ["rejected", "ok"]
    assert contract.call("send", "another") == "sent another"


def test_a_queued_call_that_is_stopped_again_and_again_leaves_the_queue(contract, monkeypatch):
    monkeypatch.setattr("apiary.engine.table.RETRY_SECONDS", 0.001)

    def body(tx, app):
        tx.enqueue(app.loop)

    contract.run(body)
    contract.drain()
    _, *attempts = contract.records(6)
    assert [(one["status"], one["attempt"]) for one in attempts] == [("stopped", number) for number in range(1, 6)]
    assert (contract.waiting(), contract.counters()["a"]) == (0, 0)


def test_a_queued_call_that_breaks_a_constraint_at_commit_is_recorded_and_leaves_the_queue(contract):
    def body(tx, app):
        tx.enqueue(app.family, 1, orphan=True)
        tx.enqueue(app.family, 2)

    contract.run(body)
    contract.drain()
    _, *queued = contract.records(3)
    assert sorted(one["status"] for one in queued) == ["failed", "ok"]
    assert contract.waiting() == 0
    assert contract.look("select id from children") == [(2,)]
