"""One statement to the database fails: before it was sent, or after it was applied, which nobody is told.

Like points (`points.py`), mishaps are put into the product's own functions from outside, in a process of its own.
"""

import threading
from collections.abc import Callable
from typing import Any

import apsw
import psycopg

from apiary.engine.postgres.beside.pipeline import Pipeline
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.runner import InsideRunner

BEFORE, AFTER = "before", "after"
WATCHED = {"find", "find_all", "queued", "versions_due", "adopt", "scheduled"}
"""What the engine asks the database for itself. What it asks when an app is opened may fail to open it."""


class Mishap:
    """The n-th statement fails, `before` or `after` it was applied."""

    def __init__(self, when: str, number: int) -> None:
        self._when = when
        self._left = number
        self._lock = threading.Lock()

    def around(self, what: str, run: Callable[[], Any], lose: Callable[[], BaseException]) -> Any:
        """Run a statement. `lose` breaks what leads to the database, and returns the error that comes of it."""
        with self._lock:
            self._left -= 1
            fails = self._left == 0
        if not fails:
            return run()
        print(f"a mishap {self._when}: {what}", flush=True)
        if self._when == AFTER:
            run()
        raise lose()

    def on_sqlite(self) -> None:
        """Have statements of all connections fail that are opened from now on."""
        mishap = self

        class Connection(apsw.Connection):
            """A connection on which one statement fails."""

            def execute(self, statements: str, *given: Any, **named: Any) -> Any:
                def run() -> Any:
                    return super(Connection, self).execute(statements, *given, **named)

                if statements.startswith("pragma"):
                    return run()
                return mishap.around(statements, run, lambda: apsw.IOError("injected"))

        apsw.Connection = Connection  # type: ignore[misc]

    def on_postgres(self) -> None:
        """Have exchanges with the server fail, and their connections with them."""
        self._replace(Pipeline, "sync", lambda pipeline: pipeline._lost(psycopg.OperationalError("injected")))
        self._replace(InsideRunner, "_execute", lambda runner: runner._open().lost("injected"))
        run = PostgresEngine._run

        def ask(engine: PostgresEngine, cursor: Any, name: str, values: Any = ()) -> Any:
            def lose() -> BaseException:
                cursor.connection.close()
                return psycopg.OperationalError("injected")

            if name not in WATCHED:
                return run(engine, cursor, name, values)
            return self.around(name, lambda: run(engine, cursor, name, values), lose)

        PostgresEngine._run = ask  # type: ignore[method-assign]

    def _replace(self, owner: Any, name: str, lose: Callable[[Any], BaseException]) -> None:
        original = getattr(owner, name)

        def run(self_: Any, *given: Any) -> Any:
            return self.around(name, lambda: original(self_, *given), lambda: lose(self_))

        setattr(owner, name, run)
