"""An app with functions of every kind, the well-behaved and the harmful, for tests of the service."""

import ctypes
import multiprocessing
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from apiary import App, Rejected, Transaction

app = App("zoo", description="Animals of all kinds.")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Model(BaseModel):
    name: str
    size: int = 3
    parent: "Model | None" = None


@dataclass
class Point:
    x: float
    y: float = 0.0


class Pair(TypedDict):
    left: int
    right: str


@dataclass
class Everything:
    model: Model
    point: Point
    pair: Pair
    blob: bytes
    price: Decimal


@app.query
def scalars(
    tx: Transaction,
    integer: int,
    number: float = 0.5,
    text: str = "",
    flag: bool = False,
    name: Annotated[str, Field(min_length=1, max_length=5, pattern="^[a-z]+$")] = "bee",
    small: Annotated[int, Field(ge=0, lt=10)] = 1,
    choice: Literal["a", "b"] = "a",
    colour: Colour = Colour.RED,
    numbers: list[int] = [],  # noqa: B006 - a default that is only read
) -> dict[str, Any]:
    """Values that fit a query string."""
    return {"integer": integer, "number": number, "text": text, "flag": flag, "name": name, "colour": colour.value}


@app.query
def times(tx: Transaction, day: date, at: datetime, hour: clock, span: timedelta, id: UUID) -> list[str]:
    """Values that are text in JSON."""
    return [day.isoformat(), at.isoformat(), hour.isoformat(), str(span), str(id)]


@app.transaction
def structures(
    tx: Transaction,
    model: Model,
    point: Point,
    pair: Pair,
    either: int | str,
    maybe: int | None = None,
    blob: bytes = b"",
    price: Decimal = Decimal(1),
    items: list[Model] = [],  # noqa: B006 - a default that is only read
    table: dict[str, int] = {},  # noqa: B006 - a default that is only read
    both: tuple[int, str] = (1, "a"),
    unique: set[int] = set(),  # noqa: B006 - a default that is only read
    anything: Any = None,
) -> Everything:
    """Values with structure."""
    return Everything(model, point, pair, blob, price)


@app.transaction
def store(tx: Transaction, key: str, value: int, text: str | None = None) -> int:
    """Keep values of every size in the database."""
    tx.execute("insert into kept (key, value, text) values (:key, :value, :text)", key=key, value=value, text=text)
    return tx.execute("select count(*) from kept where key = :key", key=key).scalar()


@app.transaction
def bump(tx: Transaction, name: str, by: Annotated[int, Field(ge=-(10**6), le=10**6)] = 1) -> int:
    """Count up."""
    return tx.execute(
        "insert into counters (name, value) values (:name, :by) "
        "on conflict (name) do update set value = value + :by returning value",
        name=name,
        by=by,
    ).scalar()


@app.transaction
def bump_default(tx: Transaction) -> int:
    """Count up without being told what."""
    return bump(tx, "default")


@app.query
def count(tx: Transaction, name: str) -> int:
    """How far a counter is."""
    return tx.execute("select coalesce(max(value), 0) from counters where name = :name", name=name).scalar()


@app.transaction
def effect(tx: Transaction, key: str) -> int:
    """Leave one row, and return its number."""
    return tx.execute("insert into effects (key) values (:key) returning id", key=key).scalar()


@app.query
def effects(tx: Transaction, prefix: str) -> dict[str, int]:
    """How many rows each key has left."""
    rows = tx.execute("select key, count(*) as n from effects where key like :p group by key", p=prefix + "%")
    return {row.key: row.n for row in rows}


@app.transaction
def later(tx: Transaction, key: str, many: int = 1) -> str:
    """Leave rows by calls of the queue."""
    for number in range(many):
        tx.enqueue(effect, f"{key}-{number}")
    return key


@app.transaction
def later_run(tx: Transaction, function: str) -> str:
    """Put a function without arguments into the queue."""
    return tx.enqueue(app.functions[function])


@app.transaction
def refuse(tx: Transaction, name: str) -> int:
    """Count up, and then refuse."""
    bump(tx, name)
    raise Rejected("no, thank you", code="not_today", name=name)


@app.transaction
def fail(tx: Transaction, name: str = "fail") -> int:
    """Count up, and then fail."""
    bump(tx, name)
    raise LookupError("a mistake with a secret in it")


@app.transaction(roles=["admin"])
def for_admins(tx: Transaction) -> str:
    """Only for some."""
    return tx.caller


@app.transaction(roles=["keeper"])
def for_keepers(tx: Transaction) -> str:
    """Only for others."""
    return tx.caller


@app.query(timeout=30)
def slow_query(tx: Transaction, seconds: float) -> int:
    """Read for some time, without holding anybody up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return os.getpid()


@app.transaction(timeout=30)
def slow(tx: Transaction, seconds: float, key: str = "") -> int:
    """Write, and take some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    if key:
        effect(tx, key)
    return os.getpid()


@app.action(timeout=30)
def slow_action(seconds: float) -> int:
    """Take some time beside the database."""
    time.sleep(seconds)
    return os.getpid()


@app.transaction(timeout=0.5)
def spin(tx: Transaction, name: str) -> int:
    """Count up, and never end."""
    bump(tx, name)
    while True:
        pass


@app.transaction(timeout=0.5)
def block(tx: Transaction, name: str) -> int:
    """Count up, and block outside of Python, without the interpreter lock."""
    bump(tx, name)
    time.sleep(3600)
    return 0


@app.transaction(timeout=0.5)
def regex(tx: Transaction, name: str) -> bool:
    """Count up, and block outside of Python, with the interpreter lock."""
    bump(tx, name)
    return re.match(r"(a+)+$", "a" * 64 + "b") is not None


@app.action(timeout=1)
def regex_action() -> bool:
    """Hold the interpreter lock for ever, beside the database."""
    return re.match(r"(a+)+$", "a" * 64 + "b") is not None


@app.transaction
def kill_host(tx: Transaction, name: str = "kill") -> int:
    """Count up, and end the process."""
    bump(tx, name)
    os.kill(os.getpid(), 9)
    return 0


@app.query
def kill_host_query(tx: Transaction) -> int:
    """End the process, from a query."""
    os.kill(os.getpid(), 9)
    return 0


@app.action(retries=2)
def kill_host_action() -> int:
    """End the process, from an action."""
    os.kill(os.getpid(), 9)
    return 0


@app.transaction
def segfault(tx: Transaction) -> int:
    """Crash the interpreter."""
    return ctypes.string_at(0)[0]


@app.transaction
def leave(tx: Transaction, how: str) -> int:
    """End in ways that are no ordinary exception."""
    bump(tx, "leave")
    if how == "exit":
        sys.exit(3)
    if how == "os_exit":
        os._exit(3)
    if how == "abort":
        os.abort()
    raise {
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "GeneratorExit": GeneratorExit,
        "MemoryError": MemoryError,
        "RecursionError": RecursionError,
        "StopIteration": StopIteration,
        "BaseException": BaseException,
    }[how]


@app.query
def leave_query(tx: Transaction, how: str) -> int:
    """End a query in such ways."""
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "BaseException": BaseException}[how]


@app.action
def leave_action(how: str) -> int:
    """End an action in such ways."""
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "BaseException": BaseException}[how]


@app.transaction
def recurse(tx: Transaction, depth: int = 0) -> int:
    """Never come to the ground."""
    return recurse.body(tx, depth + 1)


@app.query
def large_result(tx: Transaction, megabytes: int) -> str:
    """A result of some size."""
    return "x" * (megabytes * 2**20)


@app.transaction
def descriptors(tx: Transaction, what: str) -> int:
    """Write to, or close, what the process inherited."""
    bump(tx, "descriptors")
    for number in range(3, 256):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        if what == "write" and (mode & 0o170000) == 0o140000:
            os.write(number, b"\xff\xff\xff\x7fgarbage" * 10)
        if what == "small" and (mode & 0o170000) == 0o140000:
            os.write(number, b"\x07\x00\x00\x00garbage")
        if what == "half" and (mode & 0o170000) == 0o140000:
            os.write(number, b"\x00\x00\x00\x10garbage")
    if what == "close":
        os.closerange(3, 256)
    return 1


@app.transaction
def fork(tx: Transaction, what: str) -> int:
    """Have a child that goes its own way."""
    bump(tx, "fork")
    if what == "fork":
        return os.fork()
    if what == "pty":
        return pty.fork()[0]
    if what == "multiprocessing":
        multiprocessing.get_context("fork").Process(target=print).start()
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        time.sleep(3600)
    return child


@app.action
def run_program(word: str) -> str:
    """Run another program."""
    return subprocess.run(["echo", word], check=True, capture_output=True, text=True, preexec_fn=os.getpid).stdout


@app.transaction
def print_much(tx: Transaction, lines: int) -> int:
    """Write to the standard output."""
    for number in range(lines):
        print("a line", number)
    return lines


@app.query
def fds(tx: Transaction) -> int:
    """How many descriptors the host has."""
    return len(os.listdir("/proc/self/fd"))
