"""Copies of a database that is in use."""

import os
import threading

import apiary
from apiary import App, Transaction
from apiary.engine.sqlite.log import backup


def test_a_backup_is_one_moment_while_calls_write(tmp_path, make_app):
    app = make_app("create table pairs (a integer, b integer); create table ballast (x text);")

    @app.transaction
    def fill(tx: Transaction) -> None:
        tx.execute_many("insert into ballast (x) values (:x)", ({"x": "x" * 1000} for _ in range(20_000)))

    @app.transaction
    def add(tx: Transaction, n: int) -> None:
        tx.execute("insert into pairs (a) values (:n)", n=n)
        tx.execute("insert into ballast (x) values (:x)", x="y" * 1000)
        tx.execute("update pairs set b = a where a = :n", n=n)

    path = tmp_path / "source.db"
    ended = threading.Event()
    with apiary.open(app, f"sqlite:///{path}") as opened:
        opened.call(fill)

        def write() -> None:
            n = 0
            while not ended.is_set():
                opened.call(add, n)
                n += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            backup(path, tmp_path / "copy.db")
        finally:
            ended.set()
            writer.join()
    assert _torn(App("core", migrations=app.migrations), tmp_path / "copy.db") == 0


def _torn(app: App, path) -> int:
    @app.query
    def torn(tx: Transaction) -> int:
        return tx.execute("select count(*) from pairs where b is null").scalar()

    with apiary.open(app, f"sqlite:///{path}") as copy:
        return copy.call(torn)


def test_a_backup_waits_for_the_disk(tmp_path, make_app, monkeypatch):
    with apiary.open(make_app(), f"sqlite:///{tmp_path / 'source.db'}"):
        synced = []
        monkeypatch.setattr(os, "fdatasync", synced.append)
        backup(tmp_path / "source.db", tmp_path / "copy.db")
        assert synced
