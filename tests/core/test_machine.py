"""The machine of workflows alone: numbers, pages of history, and what does not fit its record."""

import json
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiary.runtime import machine
from apiary.runtime.errors import Nondeterministic
from apiary.runtime.ids import new_id
from apiary.runtime.machine import PAGE, UNDO_FROM, History, Machine, Op, Operation, Step, fits, step_id

WORKFLOW = new_id()
NAMES = st.sampled_from(["pay", "ship", "mail"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
OPERATIONS = st.builds(
    lambda op, name, value: Operation(op, name, json.dumps({"value": value}).encode()),
    st.sampled_from(list(Op)),
    NAMES,
    VALUES,
)


def recorded(number: int, operation: Operation, output: bytes = b"1") -> Step:
    return Step(number, step_id(WORKFLOW, number), operation.op.value, operation.name, operation.input, output)


class Table:
    """Recorded steps, and how often they were asked for."""

    def __init__(self, steps: dict[int, Step]) -> None:
        self.steps = steps
        self.asked: list[tuple[int, int]] = []

    def load(self, first: int, end: int, most: int) -> list[Step]:
        self.asked.append((first, end))
        found = [step for number, step in sorted(self.steps.items()) if first <= number < end]
        return [without(step) if len(step.input) + len(step.output or b"") > most else step for step in found]


def without(step: Step) -> Step:
    return replace(step, input=b"", output=None, omitted=True)


def of(operations: list[Operation], *, first: int = 0) -> Table:
    return Table({number: recorded(number, operation) for number, operation in enumerate(operations, first)})


@given(st.lists(OPERATIONS, max_size=8), st.integers(0, 3), st.data())
def test_what_is_recorded_is_the_answer_and_the_rest_is_to_be_done(operations, first, data):
    known = data.draw(st.integers(0, len(operations)))
    table = of(operations[:known], first=first)
    running = Machine(WORKFLOW, History(table.load), first)
    for place, operation in enumerate(operations):
        number, step = running.begin(operation)
        assert number == first + place
        assert step == table.steps.get(number)
        if step is None:
            running.record(recorded(number, operation, b"2"), in_table=False)
        assert running.look(number) == (step or recorded(number, operation, b"2"))
    assert running.next == first + len(operations)


@given(st.lists(OPERATIONS, min_size=1, max_size=6), OPERATIONS, st.data())
def test_another_operation_than_is_recorded_is_told_of(operations, other, data):
    place = data.draw(st.integers(0, len(operations) - 1))
    running = Machine(WORKFLOW, History(of(operations).load), 0)
    for operation in operations[:place]:
        running.begin(operation)
    was = operations[place]
    if (was.op, was.name, json.loads(was.input)) == (other.op, other.name, json.loads(other.input)):
        assert running.begin(other)[1] is not None
        return
    with pytest.raises(Nondeterministic) as raised:
        running.begin(other)
    assert raised.value.details == {"step": place}
    before, after = raised.value.message.split(", and is now ")
    assert before.startswith(f"step {place} was {was.op} {was.name}({was.input.decode()[:200]}")
    assert after.startswith(f"{other.op} {other.name}({other.input.decode()[:200]}")


def test_a_message_about_long_arguments_is_short():
    was, now = (Operation(Op.ACTION, "pay", json.dumps({"x": letter * 10_000}).encode()) for letter in "ab")
    running = Machine(WORKFLOW, History(of([was]).load), 0)
    with pytest.raises(Nondeterministic) as raised:
        running.begin(now)
    assert len(raised.value.message) < 600
    assert "aaa…" in raised.value.message
    assert "bbb…" in raised.value.message


@given(VALUES, VALUES)
def test_arguments_are_compared_as_values(one, other):
    """Spaces and the order of members say nothing; but true is not 1."""
    step = recorded(0, Operation(Op.QUERY, "pay", json.dumps({"a": one, "b": 1}).encode()))
    same = json.dumps({"b": 1, "a": one}, indent=1).encode()
    assert fits(step, Operation(Op.QUERY, "pay", same))
    differ = json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)
    another = json.dumps({"a": other, "b": 1}).encode()
    assert fits(step, Operation(Op.QUERY, "pay", another)) == (not differ)


@given(st.lists(OPERATIONS, max_size=4), st.lists(OPERATIONS, min_size=1, max_size=4), st.integers(0, 2))
def test_what_is_undone_has_numbers_of_its_own(done, undone, first):
    table = of(done, first=first)
    last = first + len(done)
    table.steps |= of(undone[:1], first=UNDO_FROM + last + 1).steps
    running = Machine(WORKFLOW, History(table.load), first)
    for operation in done:
        running.begin(operation)
    for place, operation in enumerate(undone):
        number, step = running.begin(operation, undoes=last - place)
        assert number == UNDO_FROM + last - place + 1
        assert (step is not None) == (place == 0)
    assert running.next == first + len(done)


@given(
    st.sets(st.integers(0, 40), max_size=40),
    st.lists(st.tuples(st.sampled_from(["get", "add"]), st.integers(0, 40)), max_size=60),
)
def test_a_history_that_is_read_in_pages_is_one_that_is_held_in_memory(known, asked):
    """Also what was added meanwhile and is in no table yet, in whatever order it is asked for."""
    operation = Operation(Op.QUERY, "pay", b"{}")
    table = Table({number: recorded(number, operation) for number in known})
    model = dict(table.steps)
    before, machine.PAGE = PAGE, 7
    try:
        history = History(table.load)
        for what, number in asked:
            if what == "add" and number not in model:
                model[number] = recorded(number, operation, b"3")
                history.add(model[number], in_table=False)
            assert history.get(number) == model.get(number)
    finally:
        machine.PAGE = before


@pytest.mark.parametrize("order", ["up", "down", "window", "undo"])
def test_a_long_history_is_read_a_page_at_a_time_and_each_page_about_once(order):
    operations = [Operation(Op.ACTION, "pay", b"{}")] * (PAGE * 10)
    table = of(operations)
    history = History(table.load)
    count = len(operations)
    asked = {
        "up": range(count),
        "down": range(count - 1, -1, -1),
        "window": [number for end in range(50, count) for number in (end, end - 50)],
        "undo": [number for last in range(count - 1, -1, -1) for number in (UNDO_FROM + count - last, last)],
    }[order]
    for number in asked:
        history.get(number)
    assert len(table.asked) <= 25
    assert all(end - first <= PAGE for first, end in table.asked)


@pytest.mark.parametrize("stored", [True, False])
def test_what_is_large_is_read_by_itself_and_not_held(stored):
    large, small = (Operation(Op.ACTION, "pay", json.dumps({"x": "x" * size}).encode()) for size in (100_000, 10))
    table = of([large, small] * 20)
    history = History(table.load, fresh=not stored)
    if not stored:
        for step in table.steps.values():
            history.add(step, in_table=True)
    running = Machine(WORKFLOW, history, 0)
    for number in range(40):
        begun, step = running.begin(large if number % 2 == 0 else small)
        assert step == running.look(begun) == table.steps[number]
    held = [step for page in (history._added, *history._pages.values()) for step in page.values()]
    assert sum(len(step.input) for step in held) < 40 * 100
    assert len(table.asked) <= 22
    with pytest.raises(Nondeterministic, match="step 0 was action pay"):
        Machine(WORKFLOW, History(table.load), 0).begin(small)


def test_nothing_is_read_where_nothing_can_be_recorded():
    running = Machine(WORKFLOW, History(Table({}).load, fresh=True), 0)
    operation = Operation(Op.QUERY, "pay", b"{}")
    for number in range(3):
        assert running.begin(operation) == (number, None)
        running.record(recorded(number, operation), in_table=False)
    assert [running.look(number).number for number in range(3)] == [0, 1, 2]


@given(st.binary(min_size=16, max_size=16), st.lists(st.integers(0, 2 * UNDO_FROM), unique=True, max_size=10))
def test_ids_of_steps_are_ids_that_differ_and_stay_the_same(workflow, numbers):
    made = [step_id(workflow, number) for number in numbers]
    assert made == [step_id(workflow, number) for number in numbers]
    assert len(set(made)) == len(numbers)
    for identifier in made:
        parsed = uuid.UUID(bytes=identifier)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert identifier[:6] == workflow[:6]


def test_ids_of_steps_differ_between_workflows():
    assert step_id(new_id(), 0) != step_id(new_id(), 0)
