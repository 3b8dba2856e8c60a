"""Functions that say where they want to run."""

import os
from dataclasses import replace

import pytest

from apiary.bundle import load_app
from apiary.codec import compile_program, convert_rows
from apiary.embedded import OpenApp
from apiary.engine.places import Source
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.postgres.install import Installer
from apiary.engine.watchdog import Watchdog
from apiary.runtime.errors import BundleRefused

APP = """
import os
from apiary import App, Transaction

app = App("placed")


@app.transaction(placement="host")
def here(tx: Transaction) -> int:
    return os.getpid()


@app.transaction(placement="database")
def there(tx: Transaction) -> int:
    return os.getpid()


@app.query(placement="host")
def here_too(tx: Transaction) -> int:
    return os.getpid()


@app.transaction
def backend(tx: Transaction) -> int:
    return tx.execute("select pg_backend_pid()").scalar()


@app.transaction
def nearest(tx: Transaction) -> int:
    return os.getpid()
"""


def test_functions_run_where_they_ask_to(postgres_database, tmp_path, monkeypatch, together):

    (tmp_path / "placed.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    app = load_app("placed")
    installer = Installer(postgres_database)
    target = installer.app("placed")
    program = installer.program("placed", target.log, Source("placed", "local", (tmp_path,)))
    with OpenApp(app, PostgresEngine(replace(target, program=program), convert_rows, writers=1, readers=1)) as opened:
        assert opened.call("here") == opened.call("here_too") == os.getpid()
        assert opened.call("there") == opened.call("nearest") == opened.call("backend")
        mixed = together(opened.call, ["here", "there"] * 8)
        assert mixed == [os.getpid(), opened.call("there")] * 8
    beside = PostgresEngine(replace(target, why_beside="it has no Python"), convert_rows)
    with pytest.raises(BundleRefused, match=r"there must run inside the database.*it has no Python"):
        beside.writer(compile_program(app, "local"), Watchdog().guard())
    installer.close()
