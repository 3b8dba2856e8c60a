"""The data set of a workload without its app: tables by the app's migrations, rows by the app's loading statements."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from bench.mix import Load, Workload

APPS = Path(__file__).parent / "apps"


def statements(app: str) -> ModuleType:
    """The app's module of SQL, loaded by its path: the app itself is not imported."""
    spec = importlib.util.spec_from_file_location(f"floor_statements_{app}", APPS / app / "statements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def migrations(app: str, *, postgresql: bool) -> list[str]:
    """The text of the app's migrations for one of the databases."""
    folder = APPS / app / "migrations"
    special = {path.name.removesuffix(".postgresql.sql") for path in folder.glob("*.postgresql.sql")}
    return [
        path.read_text()
        for path in sorted(folder.glob("*.sql"))
        if path.match("*.postgresql.sql") == (postgresql and path.name.partition(".")[0] in special)
    ]


def loads(workload: Workload) -> Iterator[tuple[Load, list[str]]]:
    """What the app's loading functions execute, with the parameters `first` and `last`."""
    sql = statements(workload.app)
    for load in workload.load:
        yield load, LOADING[load.function](sql)


def postgresql_script(workload: Workload) -> str:
    """All of it as a script for psql, which puts the parameters into the text."""
    rows = [
        f"\\set first 1\n\\set last {load.rows}\n{text.strip()};" for load, texts in loads(workload) for text in texts
    ]
    return "\n".join([*migrations(workload.app, postgresql=True), *rows, "vacuum analyze;"])


LOADING: dict[str, Callable[[ModuleType], list[str]]] = {
    "load": lambda sql: [sql.LOAD],
    "load_items": lambda sql: [sql.LOAD_ITEMS],
    "load_carts": lambda sql: [sql.LOAD_CARTS],
    "load_season": lambda sql: [sql.LOAD_SEASON],
    "load_hotels": lambda sql: [sql.LOAD_HOTELS, sql.LOAD_ROOMS],
    "load_warehouses": lambda sql: [sql.LOAD_WAREHOUSES, sql.LOAD_DISTRICTS],
    "load_stock": lambda sql: [sql.LOAD_STOCK],
    "load_customers": lambda sql: [sql.LOAD_CUSTOMERS],
    "load_steps": lambda sql: [sql.LOAD_ITEMS, sql.LOAD_ACCOUNTS],
    "load_users": lambda sql: [sql.LOAD_FOLLOWEES, sql.LOAD_POSTS],
}
