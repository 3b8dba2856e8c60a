"""One app, open on every engine: embedded, inside PostgreSQL's backends, and beside PostgreSQL in this process.

Its databases are made once for a session and emptied between tests. One lane writes, as on SQLite, so that calls that
wait together share a batch and run in their order; tests of what happens between lanes ask for `crowded`.
"""

import inspect
import json
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw
import psycopg
import pytest

from apiary import App, OpenApp
from apiary.bundle import load_from
from apiary.codec import convert_rows
from apiary.embedded import LOCAL_VERSION
from apiary.engine.places import Source
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.engine.sqlite.engine import SqliteEngine
from apiary.runtime.ids import id_text
from apiary.runtime.session import Outcome

APPS = Path(__file__).parent / "apps"
PACKAGE = "contract_app"
ENGINES = ["sqlite", "inside", "beside"]
POSTGRES = ["inside", "beside"]
TABLES = ("children", "parents", "counters", "notes", "doctors", "portable")
RECORDED = (
    "seq", "id", "function", "kind", "version", "caller", "attempt", "status", "input", "output", "error", "lines",
    "nested", "parent", "key",
)  # fmt: skip
WAIT_SECONDS = 30.0
FOR_LONG_SECONDS = 3600.0


class Contract:
    """The app on one engine. `look` runs a statement beside the engine, as somebody who may see everything."""

    def __init__(self, name: str, opened: OpenApp, calls: Any, look: Callable[[str], list[Any]], log: str) -> None:
        self.name = name
        self.opened = opened
        self.look = look
        self.calls = calls
        self.call = opened.call
        self.drain = opened.drain
        self._log = log
        self._submitted: list[str] = []

    def reset(self) -> None:
        """Empty all tables, and put in what tests begin with. No call is refused because it waited."""
        self.opened._dispatcher.excuse(FOR_LONG_SECONDS)
        self._submitted.clear()
        emptied = " ".join(f"delete from {table};" for table in (*TABLES, f"{self._log}calls", f"{self._log}queue"))
        self.look(f"begin; {emptied} insert into counters (name, value) values ('a', 0), ('b', 100); commit;")

    def submit(self, function: str, /, *, _id: bytes | None = None, _key: str | None = None, **arguments: Any) -> Any:
        pending = self.calls.submit(function, json.dumps(arguments), id=_id, key=_key)
        self._submitted.append(id_text(pending.call.id))
        return pending

    def outcome(self, function: str, /, **arguments: Any) -> Outcome:
        """What a call comes to; `_key` is its idempotency key, `_id` its id."""
        outcome: Outcome = self.submit(function, **arguments).outcome()
        return outcome

    def code(self, function: str, /, **arguments: Any) -> str:
        """How a call ends: `ok`, or the code of its error."""
        return str((self.outcome(function, **arguments).error or {"code": "ok"})["code"])

    def run(self, body: Callable[..., Any], /, kind: str = "transaction", **arguments: Any) -> Any:
        """Run a function of a test inside a call. It gets the transaction, the module of the app, and `arguments`.

        Its source is sent, so it is a `def` and uses no names of the test but those that the module has too. What it
        returns is something that Python can write and read again.
        """
        function = "evaluate" if kind == "transaction" else "evaluate_query"
        return eval(self.call(function, **self.sent(body, **arguments)), sys.modules[PACKAGE].VALUES)

    def sent(self, body: Callable[..., Any], /, **arguments: Any) -> dict[str, Any]:
        """The arguments of the call that runs a function of a test."""
        source = textwrap.dedent(inspect.getsource(body))
        return {"source": source, "name": body.__name__, "arguments": repr(arguments)}

    def counters(self) -> dict[str, int]:
        return dict(self.look("select name, value from counters"))

    def notes(self) -> list[int]:
        return [row[0] for row in self.look("select id from notes order by id")]

    def waiting(self) -> int:
        """How many calls are in the queue."""
        count: int = self.look(f"select count(*) from {self._log}queue")[0][0]
        return count

    def records(self, least: int) -> list[dict[str, Any]]:
        """The records of all calls, without times, and with numbers for ids; waits until there are `least`.

        Those of callers come in the order in which they called, then those of the queue by what they say.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while len(rows := self.look(f"select {', '.join(RECORDED)} from {self._log}calls order by seq")) < least:
            assert time.monotonic() < deadline, f"{len(rows)} records instead of {least}"
            time.sleep(0.001)  # records of queries come a moment after their answers
        found = [dict(zip(RECORDED, row, strict=True)) for row in rows]
        for record in found:
            for name in ("id", "parent"):
                record[name] = (
                    id_text(bytes(record[name]))
                    if isinstance(record[name], bytes)
                    else record[name] and str(record[name])
                )
            for name in ("input", "output", "error", "lines", "nested"):
                record[name] = record[name] and json.loads(record[name])
            for note in (*(record["lines"] or ()), *(record["nested"] or ())):
                note.pop("at")
                note.pop("duration", None)
        return numbered(found, self._submitted)


def numbered(records: list[dict[str, Any]], submitted: list[str]) -> list[dict[str, Any]]:
    """Records whose ids say which call it was, in an order that does not depend on chance; paths without folders."""
    order = {identifier: number for number, identifier in enumerate(submitted)}
    callers = [record for record in records if record["parent"] is None]
    callers.sort(key=lambda record: (order.get(record["id"], len(order)), record["id"]))
    names = {record["id"]: f"{number:04}" for number, record in enumerate(callers)}
    for record in sorted(records, key=lambda record: record["seq"]):
        if record["parent"] is not None:
            said = f"{names[record['parent']]}: {record['function']} {record['input']}"
            names[record["id"]] = f"{names[record['parent']]}.{crc32(said.encode()):08x}"

    def plain(record: dict[str, Any]) -> dict[str, Any]:
        text = re.sub(r'[^" ]*/(?=contract_app/)', "", json.dumps(record))
        for identifier, name in names.items():
            text = text.replace(identifier, name)
        kept: dict[str, Any] = json.loads(text)
        del kept["seq"]
        return kept

    return sorted(map(plain, records), key=lambda record: (record["id"], json.dumps(record)))


@pytest.fixture(scope="session")
def contract_app() -> App:
    return load_from(APPS / PACKAGE)


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory, new_postgres_database: Any) -> Iterator[Callable[[str], Any]]:
    """For each engine, by name: a function that opens it, one that looks into its database, and where its log is."""
    made: dict[str, Any] = {}
    with ExitStack() as stack:

        def database(name: str) -> Any:
            if name not in made and name == "sqlite":
                made[name] = embedded(tmp_path_factory.mktemp("contract") / "contract.db", stack)
            elif name not in made:
                made[name] = in_postgres(stack.enter_context(new_postgres_database()), name, stack)
            return made[name]

        yield database


@pytest.fixture(scope="session")
def opened_contracts(
    contract_app: App, platform: Any, databases: Callable[[str], Any]
) -> Iterator[Callable[..., Contract]]:
    """The app on an engine, by its name and how many lanes write; opened when it is first asked for.

    Of those that share a database, the one that was asked for last runs the queue.
    """
    opened: dict[tuple[str, int], Contract] = {}
    run_by: dict[str, Contract] = {}
    with ExitStack() as stack:

        def on(name: str, writers: int = 1) -> Contract:
            if (name, writers) not in opened:
                make, look, log = databases(name)
                engine = make() if name == "sqlite" else make(writers=writers, readers=1)
                app = stack.enter_context(OpenApp(contract_app, engine))
                opened[name, writers] = Contract(name, app, platform(app), look, log)
            contract = opened[name, writers]
            running = run_by.setdefault(name, contract)
            if running is not contract:
                running.opened._dispatcher.backlog.deactivate()
                contract.opened._dispatcher.backlog.activate()
                run_by[name] = contract
            contract.reset()
            return contract

        yield on


def embedded(path: Path, stack: ExitStack) -> Any:
    SqliteEngine(path, convert_rows).close()
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(1000)
    stack.callback(connection.close)
    return partial(SqliteEngine, path, convert_rows), lambda sql: connection.execute(sql).fetchall(), "apiary_"


def in_postgres(url: str, placement: str, stack: ExitStack) -> Any:
    installer = Installer(url)
    target = installer.app("contract")
    if placement == "inside":
        assert installer.placement.inside, installer.placement.reason
        program = installer.program("contract", target.log, Source(PACKAGE, LOCAL_VERSION, (APPS,)))
        target = replace(target, program=program)
    installer.close()
    connection = psycopg.connect(url, autocommit=True, options="-c search_path=contract")
    stack.callback(connection.close)

    def look(statement: str) -> list[Any]:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []

    return partial(PostgresEngine, target, convert_rows), look, f"{target.log}."


@pytest.fixture(params=ENGINES)
def contract(request: pytest.FixtureRequest, opened_contracts: Callable[..., Contract]) -> Contract:
    """The app on one engine, its tables as they were in the beginning."""
    return opened_contracts(request.param)


@pytest.fixture(params=POSTGRES)
def postgres_contract(request: pytest.FixtureRequest, opened_contracts: Callable[..., Contract]) -> Contract:
    """The app on PostgreSQL, in one of the two placements."""
    return opened_contracts(request.param)


@pytest.fixture(params=ENGINES)
def crowded(request: pytest.FixtureRequest, opened_contracts: Callable[..., Contract]) -> Contract:
    """The app on one engine, with as many lanes as it would have."""
    return opened_contracts(request.param, 4)


@pytest.fixture
def contracts(opened_contracts: Callable[..., Contract]) -> list[Contract]:
    """The app on all engines."""
    return [opened_contracts(name) for name in ENGINES]
