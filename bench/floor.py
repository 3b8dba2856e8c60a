"""The floor: the statements of each workload on bare APSW, in this process, without HTTP, records or conversion.

One commit per call, and 64 calls per commit; WAL, `synchronous=full`, like the embedded engine. The distance between a
platform on the same database and this loop is what the platform costs.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import apsw

from bench.mix import UNIFORM, Load, Workload
from bench.stream import Call, calls

APPS = Path(__file__).parent / "apps"
CALLS_PER_COMMIT = (1, 64)
PRAGMAS = "pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -65536"
DRAWN_CALLS = 20_000
CLOCK_EVERY = 16

Function = Callable[..., Any]


@dataclass(frozen=True)
class FloorRun:
    """Calls/s of the bare loop."""

    calls_per_commit: int
    calls_per_second: float


def measure(workload: Workload, folder: Path, seconds: float, seed: int = 5) -> list[FloorRun]:
    """Load the workload into a new database in `folder`, and run it for `seconds` with each commit size."""
    sql = statements(workload.app)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        database = apsw.Connection(f"{place}/floor.db")
        try:
            prepare(database, workload, sql)
            functions = FUNCTIONS[workload.app](database.cursor(), sql)
            return [run(database, workload, functions, size, seconds, seed) for size in CALLS_PER_COMMIT]
        finally:
            database.close()


def statements(app: str) -> ModuleType:
    """The app's module of SQL, loaded by its path: the app itself is not imported."""
    spec = importlib.util.spec_from_file_location(f"floor_statements_{app}", APPS / app / "statements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(database: apsw.Connection, workload: Workload, sql: ModuleType) -> None:
    database.execute(PRAGMAS)
    for migration in sorted((APPS / workload.app / "migrations").glob("*.sql")):
        if not migration.match("*.postgresql.sql"):
            database.execute(migration.read_text())
    for load in workload.load:
        with database:
            for text in LOADING[load.function](sql):
                database.execute(text, bounds(load))


def bounds(load: Load) -> dict[str, int]:
    return {"first": 1, "last": load.rows}


def run(
    database: apsw.Connection,
    workload: Workload,
    functions: dict[str, Function],
    calls_per_commit: int,
    seconds: float,
    seed: int,
) -> FloorRun:
    drawn = list(islice(calls(workload, UNIFORM, seed), DRAWN_CALLS))
    done, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        if calls_per_commit == 1:
            for call in islice_around(drawn, done, CLOCK_EVERY):
                database.execute("begin" if call.operation.reads_only else "begin immediate")
                functions[call.operation.function](**call.arguments)
                database.execute("commit")
            done += CLOCK_EVERY
        else:
            database.execute("begin immediate")
            for call in islice_around(drawn, done, calls_per_commit):
                functions[call.operation.function](**call.arguments)
            database.execute("commit")
            done += calls_per_commit
    return FloorRun(calls_per_commit, done / (time.perf_counter() - start))


def islice_around(drawn: list[Call], start: int, count: int) -> list[Call]:
    """`count` calls from position `start` on, going around."""
    position = start % (len(drawn) - count)
    return drawn[position : position + count]


def increment_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def increment(key: int) -> int:
        rows: list[Any] = cursor.execute(sql.READ, {"key": key}).fetchall()
        value: int = (rows[0][0] if rows else 0) + 1
        cursor.execute(sql.WRITE, {"key": key, "value": value})
        return value

    return {"increment": increment}


def shop_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def browse(prefix: str, top: int) -> list[Any]:
        return cursor.execute(sql.BROWSE, {"prefix": prefix, "top": top}).fetchall()

    def update_cart(user: int, item: int, quantity: int) -> int:
        cost = _one(cursor, sql.ITEM_COST, {"item": item})[0]
        cursor.execute(sql.SET_LINE, {"user": user, "item": item, "quantity": quantity, "cost": cost})
        total: int = cost * quantity
        return total

    def checkout(user: int) -> tuple[int, int]:
        cart: list[Any] = cursor.execute(sql.CART, {"user": user}).fetchall()
        total = sum(quantity * cost for _, quantity, cost in cart)
        order = _one(cursor, sql.ADD_ORDER, {"user": user, "cost": total})[0]
        for item, quantity, _ in cart:
            cost = _one(cursor, sql.ITEM, {"item": item})[0]
            cursor.execute(sql.RESERVE, {"item": item, "quantity": quantity})
            assert cursor.connection.changes() == 1
            cursor.execute(sql.ADD_LINE, {"order": order, "item": item, "quantity": quantity, "cost": cost})
        return order, total

    return {"browse": browse, "update_cart": update_cart, "checkout": checkout}


def _one(cursor: apsw.Cursor, text: str, values: dict[str, Any]) -> Any:
    """The only row; read to its end, because a statement that is under way keeps a transaction from its commit."""
    return cursor.execute(text, values).fetchall()[0]


def retwis_functions(cursor: apsw.Cursor, sql: ModuleType) -> dict[str, Function]:
    def timeline(user: int) -> list[Any]:
        posts: list[Any] = []
        for (followee,) in cursor.execute(sql.FOLLOWEES, {"user": user}).fetchall():
            posts += cursor.execute(sql.LATEST, {"user": followee}).fetchall()
        posts.sort(key=itemgetter(2), reverse=True)
        return posts

    def post(user: int, text: str) -> Any:
        return _one(cursor, sql.ADD_POST, {"user": user, "at": time.time(), "text": text})

    return {"timeline": timeline, "post": post}


FUNCTIONS: dict[str, Callable[[apsw.Cursor, ModuleType], dict[str, Function]]] = {
    "increment": increment_functions,
    "shop": shop_functions,
    "retwis": retwis_functions,
}
LOADING: dict[str, Callable[[ModuleType], list[str]]] = {
    "load": lambda sql: [sql.LOAD],
    "load_items": lambda sql: [sql.LOAD_ITEMS],
    "load_carts": lambda sql: [sql.LOAD_CARTS],
    "load_users": lambda sql: [sql.LOAD_FOLLOWEES, sql.LOAD_POSTS],
}
