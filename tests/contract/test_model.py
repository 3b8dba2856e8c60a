"""Random programs of calls come to the same on every engine: answers, tables, the queue, the records of all calls."""

import json
import re
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

IDS = st.integers(0, 6)
NAMES = st.sampled_from(["a", "b", "nobody"])
AMOUNTS = st.integers(-120, 30)
STATEMENTS = st.sampled_from(
    [
        "select 1 as x, 2 as x",
        "update notes set note = 'x'",
        "insert into notes (id) select coalesce(max(id), 0) + 1 from notes",
        "insert into notes (id) values (100), (100)",
        "select * from missing",
        "no sql at all",
        "commit",
        "",
        "create table passing (x integer)",
    ]
)


def step(do: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"do": st.just(do), "catch": st.booleans(), **arguments})


def nested(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    inner = st.lists(steps, max_size=4)
    return step("nest", steps=inner) | step("enqueue", steps=inner)


SIMPLE = st.one_of(
    step("write", id=IDS),
    step("write", id=IDS),
    step("many", ids=st.lists(IDS, max_size=3)),
    step("erase", id=IDS),
    step("add", name=NAMES, by=AMOUNTS),
    step("transfer", source=NAMES, target=NAMES, amount=AMOUNTS),
    step("later", name=NAMES, amounts=st.lists(AMOUNTS, max_size=2)),
    step("family", id=IDS, orphan=st.booleans()),
    step("fail", how=st.sampled_from(["rejected", "value", "key", "os"])),
    step("log", text=st.text(max_size=3)),
    step("read", name=NAMES),
    step("seen"),
    step("sql", text=STATEMENTS),
)
STEPS = st.lists(st.recursive(SIMPLE, nested, max_leaves=5), max_size=5)
CALLS = st.one_of(
    st.tuples(st.just("play"), st.fixed_dictionaries({"steps": STEPS})),
    st.tuples(st.just("play"), st.fixed_dictionaries({"steps": STEPS})),
    st.tuples(st.just("seen"), st.just({})),
    st.tuples(st.just("add"), st.fixed_dictionaries({"name": NAMES | st.integers(), "by": AMOUNTS})),
    st.tuples(st.just("three_parts"), st.fixed_dictionaries({"name": NAMES})),
    st.tuples(st.just("add_then_fail"), st.fixed_dictionaries({"how": st.sampled_from(["rejected", "cause", "exit"])})),
    st.tuples(st.just("family"), st.fixed_dictionaries({"id": IDS, "orphan": st.booleans()})),
)
IN_ORDER = st.one_of(  # without queries, which other lanes run, and without what is queued, which comes in between
    st.tuples(st.just("add"), st.fixed_dictionaries({"name": NAMES, "by": AMOUNTS})),
    st.tuples(st.just("transfer"), st.fixed_dictionaries({"source": NAMES, "target": NAMES, "amount": AMOUNTS})),
    st.tuples(st.just("family"), st.fixed_dictionaries({"id": IDS, "orphan": st.booleans()})),
    st.tuples(st.just("count_up"), st.just({})),
)


def said(error: dict[str, Any] | None) -> dict[str, Any] | None:
    """An error without ids, and without what each database says in its own words.

    Of a traceback the frames of the app, and the exception.
    """
    if error is None:
        return None
    kept = {name: value for name, value in error.items() if name not in ("detail", "call_id", "first_call_id", "hint")}
    if "traceback" in kept:
        last = kept["traceback"].split("Traceback (most recent call last):\n")[-1]
        frames = re.findall(r'File "contract_app/(\S+)", line (\d+), in (\S+)', last)
        kept["traceback"] = [frames, last.splitlines()[-1].split(":")[0]]
    return kept


def comparable(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**record, "error": said(record["error"])} for record in records]


class Machine(RuleBasedStateMachine):
    """The same calls on every engine, one after the other or together, with new keys and with used ones."""

    keyed = Bundle("keyed")

    def __init__(self, contracts: list[Any]) -> None:
        super().__init__()
        self.contracts = contracts
        self.keys = 0
        for contract in contracts:
            contract.reset()

    def same(self, what: Any) -> Any:
        """What is the same for every engine."""
        found = [what(contract) for contract in self.contracts]
        for contract, one in zip(self.contracts, found, strict=True):
            assert one == found[0], f"{contract.name} differs from {self.contracts[0].name}"
        return found[0]

    def run_one(self, call: tuple[str, dict[str, Any]], key: str | None = None) -> Any:
        def answer(contract: Any) -> Any:
            outcome = contract.outcome(call[0], _key=key, **call[1])
            contract.drain()
            return outcome.output, said(outcome.error), bool(outcome.replayed)

        return self.same(answer)

    @rule(call=CALLS)
    def call(self, call: tuple[str, dict[str, Any]]) -> None:
        self.run_one(call)

    @rule(target=keyed, call=CALLS)
    def call_with_key(self, call: tuple[str, dict[str, Any]]) -> tuple[str, tuple[str, dict[str, Any]]]:
        self.keys += 1
        self.run_one(call, f"key {self.keys}")
        return f"key {self.keys}", call

    @rule(again=keyed)
    def call_again(self, again: tuple[str, tuple[str, dict[str, Any]]]) -> None:
        self.run_one(again[1], again[0])

    @rule(again=keyed, call=CALLS)
    def call_another(self, again: tuple[str, Any], call: tuple[str, dict[str, Any]]) -> None:
        self.run_one(call, again[0])

    @rule(calls=st.lists(IN_ORDER, min_size=2, max_size=8), keys=st.lists(st.sampled_from("xyz"), max_size=8))
    def call_together(self, calls: list[tuple[str, dict[str, Any]]], keys: list[str]) -> None:
        self.keys += 1
        named = [f"{key} {self.keys}" for key in keys] + [None] * len(calls)

        def answers(contract: Any) -> Any:
            pending = [
                contract.submit(name, _key=key, **arguments)
                for (name, arguments), key in zip(calls, named, strict=False)
            ]
            outcomes = [one.outcome() for one in pending]
            return [(outcome.output, said(outcome.error), bool(outcome.replayed)) for outcome in outcomes]

        self.same(answers)

    @invariant()
    def the_tables_are_the_same(self) -> None:
        self.same(lambda contract: (contract.counters(), contract.notes(), contract.waiting()))

    def teardown(self) -> None:
        least = max(len(contract.records(0)) for contract in self.contracts)
        self.same(lambda contract: json.dumps(comparable(contract.records(least)), indent=1))


# A function that is ended by `sys.exit()` leaves a thread that Python's own hook would report.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_random_programs_come_to_the_same_on_every_engine(contracts):
    run_state_machine_as_test(
        lambda: Machine(contracts),
        settings=settings(max_examples=15, stateful_step_count=15, deadline=None, derandomize=True),
    )
