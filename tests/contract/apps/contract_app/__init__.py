"""An app that does what apps may do and what they may not: the engine contract is told with it.

It is shipped to the backends of PostgreSQL, so its functions use nothing of the tests. `evaluate` runs a function whose
source a test sends, with the names of this module.
"""

import dataclasses
import datetime as times
import enum
import math
import sys
import time
import zoneinfo
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel, SecretStr, field_validator
from typing_extensions import TypedDict

from apiary import App, ConstraintViolated, DatabaseError, Error, Rejected, Row, Transaction, Workflow

__all__ = [  # for what tests send
    "UTC",
    "UUID",
    "ConstraintViolated",
    "DatabaseError",
    "Decimal",
    "Row",
    "date",
    "datetime",
    "math",
    "timedelta",
    "timezone",
]

app = App("contract")

VALUES = {
    "datetime": times,
    "zoneinfo": zoneinfo,
    "Decimal": Decimal,
    "UUID": UUID,
    "inf": math.inf,
    "nan": math.nan,
}
"""What stands in values that Python has written."""

TIMEOUT = 0.05
ENDLESS_READ = "with recursive n (x) as (select 1 union all select x % 7 + 1 from n) select count(*) from n"
ENDLESS_WRITE = f"insert into notes (id) {ENDLESS_READ}"


@dataclasses.dataclass
class Note:
    id: int
    note: str | None = None


class NoteModel(BaseModel):
    id: int
    note: str | None


class NoteDict(TypedDict):
    id: int
    note: str | None


KINDS = (Note, NoteModel, NoteDict)


class Colour(enum.Enum):
    RED = "red"
    DATED = date(2026, 1, 1)
    PRICED = Decimal("1.5")


class Size(enum.IntEnum):
    BIG = 3


class Name(enum.StrEnum):
    ADA = "ada"


def attempt(function: Callable[[], Any]) -> Any:
    """What a function returns, or the kind of exception that it raises."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test says whether it was right
        return type(error).__name__


def evaluated(tx: Transaction, source: str, name: str, arguments: str) -> str:
    names = dict(globals())
    exec(compile(source, "<sent>", "exec"), names)
    return repr(names[name](tx, sys.modules[__name__], **eval(arguments, VALUES)))


@app.transaction
def evaluate(tx: Transaction, source: str, name: str, arguments: str) -> str:
    """Run a function that a test sent; its result as Python writes it."""
    return evaluated(tx, source, name, arguments)


@app.query
def evaluate_query(tx: Transaction, source: str, name: str, arguments: str) -> str:
    """The same in a query."""
    return evaluated(tx, source, name, arguments)


# Money


@app.transaction
def add(tx: Transaction, name: str, by: int = 1) -> int:
    value = tx.execute("select value from counters where name = :name", name=name).scalar()
    if value is None:
        raise Rejected("no such counter", code="unknown", name=name)
    tx.log("adding", name=name, by=by)
    tx.execute("update counters set value = :value where name = :name", name=name, value=value + by)
    return value + by


@app.query
def read(tx: Transaction, name: str) -> int | None:
    return tx.execute("select value from counters where name = :name", name=name).scalar()


@app.transaction
def transfer(tx: Transaction, source: str, target: str, amount: int) -> list[int]:
    return [add(tx, target, amount), add(tx, source, -amount)]


@app.transaction
def try_transfers(tx: Transaction, steps: list[tuple[str, str, int]]) -> list[str]:
    done = []
    for step in steps:
        try:
            transfer(tx, *step)
            done.append("ok")
        except Error as error:
            done.append(error.code)
    return done


@app.transaction
def add_then_fail(tx: Transaction, how: str, name: str = "a") -> None:
    value = add(tx, name, 10)
    tx.enqueue(add, name, 1000)
    if how == "rejected":
        raise Rejected("no", code="not_today", seen=value, why={"deep": [1, 2.5, None]})
    if how == "error":
        raise ValueError("a mistake")
    if how == "cause":
        try:
            mistake(how)
        except ZeroDivisionError as error:
            raise RuntimeError("it went wrong") from error
    if how == "exit":
        sys.exit(1)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "statement":
        tx.execute("select * from nowhere")
    if how == "rule":
        tx.execute("commit")
    if how == "result":
        return 5  # type: ignore[return-value]
    tx.execute("update counters set value = -1 where name = :name", name=name)


def mistake(how: str) -> float:
    return len(how) / 0


@app.transaction
def add_later(tx: Transaction, name: str, amounts: list[int], refuse: bool = False) -> int:
    for amount in amounts:
        tx.enqueue(add, name, amount)
    if refuse:
        raise Rejected("changed my mind", code="refused")
    return len(amounts)


@app.transaction
def three_parts(tx: Transaction, name: str) -> list[int | None]:
    """The middle part fails and is caught; what it wrote and queued is undone."""
    add_later(tx, name, [1])
    add(tx, name, 1)
    try:
        add_then_fail(tx, "error", name)
    except ValueError as error:
        tx.log("undone", why=str(error))
    add_later(tx, name, [2])
    return [add(tx, name, 100), read(tx, name)]


@app.transaction
def family(tx: Transaction, id: int, orphan: bool = False) -> int:
    """A child before its parent, which is right in the end; an orphan has none."""
    tx.execute("insert into children (id, parent) values (:id, :id)", id=id)
    if not orphan:
        tx.execute("insert into parents (id) values (:id)", id=id)
    return id


@app.transaction
def count_up(tx: Transaction) -> int:
    """A note whose id is how many there were: what one reads, the other writes."""
    id = tx.execute("select count(*) from notes").scalar()
    tx.execute("insert into notes (id) values (:id)", id=id)
    return id


@app.transaction
def go_home(tx: Transaction, name: str) -> bool:
    """One doctor has to stay on call."""
    here = tx.execute("select count(*) from doctors where on_call").scalar()
    if here < 2:
        return False
    tx.execute("update doctors set on_call = :on_call where name = :name", name=name, on_call=False)
    return True


@app.transaction(roles=["boss"])
def secret(tx: Transaction) -> int:
    return 42


@app.transaction
def unlock(tx: Transaction, password: SecretStr, name: str = "a") -> int:
    return len(password.get_secret_value())


class Fragile(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def check(cls, value: int) -> int:
        if value == 13:
            raise TypeError("a mistake of the validator")
        return value


@app.transaction
def handle(tx: Transaction, what: Fragile, password: SecretStr = SecretStr("")) -> int:  # noqa: B008 - a default
    return what.value


@app.query
def look_at(tx: Transaction, what: Fragile) -> int:
    return what.value


@app.transaction
def peek(tx: Transaction) -> int:
    return secret(tx)


@app.query
def sly(tx: Transaction, statement: str) -> int:
    """A query that tries to write."""
    return len(tx.execute(statement))


@app.transaction
def sly_nested(tx: Transaction, statement: str) -> int:
    return sly(tx, statement)


@app.action
def send(text: str) -> str:
    if not text:
        raise Rejected("there is nothing to send")
    return f"sent {text}"


# Programs of steps, one nested in the other


@app.transaction
def play(tx: Transaction, steps: list[dict[str, Any]]) -> list[Any]:
    """Do one step after the other. What a step with `catch` raises is said; what another raises is raised."""
    said = []
    for step in steps:
        step = dict(step)
        catch, do = step.pop("catch", False), STEPS[step.pop("do")]
        try:
            said.append(do(tx, **step))
        except Exception as error:
            if not catch:
                raise
            said.append(type(error).__name__)
    return said


@app.query
def seen(tx: Transaction) -> dict[str, Any]:
    """All that there is."""
    counters = tx.execute("select name, value from counters order by name")
    return {
        "notes": tx.execute("select id from notes order by id").scalars(),
        **{row.name: row.value for row in counters},
    }


def fail(tx: Transaction, how: str) -> None:
    if how == "rejected":
        raise Rejected("no", code="no", seen=seen(tx))
    raise {"value": ValueError, "key": KeyError, "os": OSError}[how]("a mistake")


STEPS: dict[str, Callable[..., Any]] = {
    "add": add,
    "enqueue": lambda tx, steps: bool(tx.enqueue(play, steps)),
    "erase": lambda tx, id: tx.execute("delete from notes where id >= :id", id=id).rowcount,
    "fail": fail,
    "family": family,
    "later": add_later,
    "log": lambda tx, text: tx.log(text, length=len(text)),
    "many": lambda tx, ids: tx.execute_many("insert into notes (id) values (:id)", [{"id": id} for id in ids]),
    "nest": play,
    "read": read,
    "seen": seen,
    "sql": lambda tx, text: tx.execute(text).rowcount,
    "transfer": transfer,
    "write": lambda tx, id: tx.execute("insert into notes (id) values (:id)", id=id).rowcount,
}


# Queues

app.queue("turns", concurrency=1, fair_by="tenant")


@app.transaction(queue="turns")
def take_turn(tx: Transaction, id: int, tenant: str = "") -> None:
    tx.execute("insert into notes (id) values (:id)", id=id)


@app.action(queue="turns")
def act_in_turn(id: int, tenant: str = "") -> int:
    return id


@app.workflow(queue="turns")
def go_in_turn(wf: Workflow, id: int, tenant: str = "") -> int:
    wf.sleep(0.01)
    wf.run(take_turn, id)
    return id


# Workflows whose commits are counted


@app.transaction
def note_down(tx: Transaction, id: int) -> int:
    tx.execute("insert into notes (id) values (:id)", id=id)
    return id


@app.query
def noted(tx: Transaction) -> int:
    return tx.execute("select count(*) from notes").scalar()


@app.action
def act_outside(id: int) -> int:
    return id


@app.workflow
def note_all(wf: Workflow, ids: list[int]) -> int:
    return sum(wf.run(note_down, id) for id in ids)


@app.workflow
def only_read(wf: Workflow, times: int) -> list[int]:
    return [wf.run(noted) for _ in range(times)]


@app.workflow
def note_around_action(wf: Workflow) -> int:
    wf.run(note_down, 1)
    wf.run(act_outside, 2)
    return wf.run(note_down, 3)


# Functions without end


def write(tx: Transaction, id: int = -1) -> None:
    tx.execute("insert into notes (id) values (:id)", id=id)


@app.transaction(timeout=TIMEOUT)
def loop(tx: Transaction) -> None:
    tx.log("it began")
    write(tx)
    tx.enqueue(add, "a", 1)
    while True:
        pass


@app.query(timeout=TIMEOUT)
def loop_in_query(tx: Transaction) -> None:
    tx.log("it began")
    while True:
        tx.execute("select 1")


@app.transaction(timeout=TIMEOUT)
def statements(tx: Transaction) -> None:
    tx.log("it began")
    while True:
        write(tx)
        tx.execute("delete from notes")


@app.transaction(timeout=TIMEOUT)
def long_read(tx: Transaction) -> None:
    tx.log("it began")
    write(tx)
    tx.execute(ENDLESS_READ)


@app.transaction(timeout=TIMEOUT)
def long_write(tx: Transaction) -> None:
    tx.log("it began")
    write(tx)
    tx.execute(ENDLESS_WRITE)


@app.query(timeout=TIMEOUT)
def long_query(tx: Transaction) -> None:
    tx.log("it began")
    tx.execute(ENDLESS_READ)


@app.transaction(timeout=TIMEOUT)
def asleep_in_sql(tx: Transaction) -> None:
    tx.log("it began")
    tx.execute("select pg_sleep(30)")


@app.transaction(timeout=TIMEOUT)
def asleep(tx: Transaction) -> None:
    tx.log("it began")
    write(tx)
    time.sleep(4 * TIMEOUT)


@app.transaction(timeout=TIMEOUT)
def nested_without_end(tx: Transaction) -> None:
    tx.log("it began")
    write(tx, -10)
    try:
        long_read(tx)
    except Exception:  # noqa: BLE001 - the point
        pass
    loop(tx)


@app.transaction(timeout=TIMEOUT)
def stubborn(tx: Transaction) -> str:
    """Whatever is raised is caught, and the function goes on for a while."""
    tx.log("it began")
    write(tx)
    end = time.monotonic() + 4 * TIMEOUT
    while time.monotonic() < end:
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001 - the point
            attempt(lambda: write(tx, -2))
    return "got away with it"


@app.transaction(timeout=TIMEOUT)
def stubborn_in_sql(tx: Transaction) -> str:
    tx.log("it began")
    for id, statement in enumerate((ENDLESS_WRITE, ENDLESS_READ, ENDLESS_WRITE)):
        try:
            write(tx, id)
            tx.execute(statement)
        except BaseException:  # noqa: BLE001 - the point
            pass
    for id in (-3, -4, -5):
        attempt(lambda id=id: write(tx, id))
    return "got away with it"


@app.transaction(timeout=TIMEOUT)
def turns_it_into_a_refusal(tx: Transaction) -> None:
    tx.log("it began")
    write(tx)
    try:
        while True:
            pass
    except BaseException:  # noqa: BLE001 - the point
        raise Rejected("not my fault", code="innocent") from None


@app.transaction(timeout=TIMEOUT)
def loop_once(tx: Transaction, id: int) -> int:
    """Without end for as long as there is a note: a repetition of its key must not run it."""
    while tx.execute("select count(*) from notes").scalar():
        pass
    write(tx, id)
    return id


@app.transaction(timeout=0.02)
def straddle(tx: Transaction, id: int, rest: float) -> int:
    """Ends a little before its deadline, or would end a little after it."""
    write(tx, id)
    end = time.perf_counter() + 0.02 + rest
    while time.perf_counter() < end:
        tx.execute("select 1")
    return id


@app.transaction
def innocent(tx: Transaction, id: int) -> int:
    for _ in range(20):
        tx.execute("select 1")
    write(tx, id)
    return id


@app.transaction
def echo(tx: Transaction, value: Any) -> Any:
    return value
