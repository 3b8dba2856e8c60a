"""A process of its own for the tests: opens the app on a database, runs calls, and tells each outcome on a line.

`python child.py DATABASE OUTSIDE WORKER KEYS`. A line is written after the call was answered, never before.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apiary
from apiary import App, OpenApp, Rejected, Transaction

TABLES = """
create table accounts (name text primary key, cents integer not null check (cents >= 0));
create table entries (key text primary key, half integer not null);
create table sent (key text primary key);
insert into accounts (name, cents) values ('a', 1000), ('b', 1000);
"""
FUNCTIONS = ("move", "refuse", "leave", "act")
THREADS = 4


def make_app(outside: Path) -> App:
    """Money moves, and each call leaves two entries: both or none. Actions append to the file `outside`."""
    app = App("child", migrations=outside.parent / "migrations")

    @app.transaction
    def move(tx: Transaction, key: str, cents: int) -> int:
        tx.execute("insert into entries (key, half) values (:key, 1)", key=key)
        tx.execute("update accounts set cents = cents - :cents where name = 'a'", cents=cents)
        tx.execute("update accounts set cents = cents + :cents where name = 'b'", cents=cents)
        tx.execute("update entries set half = 0 where key = :key", key=key)
        return tx.execute("select count(*) from entries").scalar()

    @app.transaction
    def refuse(tx: Transaction, key: str, cents: int) -> None:
        raise Rejected("no", seen=move(tx, key, cents))

    @app.transaction
    def leave(tx: Transaction, key: str, cents: int) -> str:
        move(tx, key, cents)
        tx.enqueue(note, key)
        return tx.enqueue(act, key, cents)

    @app.transaction
    def note(tx: Transaction, key: str) -> None:
        tx.execute("insert into sent (key) values (:key)", key=key)

    @app.action
    def act(key: str, cents: int) -> str:
        with outside.open("a") as file:
            file.write(f"{key}\n")
        return f"{key} {cents}"

    @app.query
    def state(tx: Transaction) -> dict[str, list[list[str | int]]]:
        return {
            table: [list(row) for row in tx.execute(f"select * from {table} order by 1")]
            for table in ("accounts", "entries", "sent")
        }

    return app


def call(opened: OpenApp, function: str, key: str, cents: int) -> object:
    """The outcome of a keyed call, whatever it is, as JSON has it."""
    try:
        return opened.call(function, key, cents, idempotency_key=key)
    except Rejected as error:
        return [error.call_id, error.details]


def main() -> None:
    database, outside, worker, keys = sys.argv[1:]
    opened = apiary.open(make_app(Path(outside)), f"sqlite:///{database}")
    print("ready", flush=True)
    sys.stdin.readline()

    lock = threading.Lock()

    def work(thread: int) -> None:
        for number in range(thread, int(keys), THREADS):
            function = FUNCTIONS[number % 3 if number % 9 else 3]
            key = f"{worker}{number}-{function}"
            line = json.dumps([function, key, number % 3, call(opened, function, key, number % 3)])
            with lock:
                print(line, flush=True)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    opened.close()


if __name__ == "__main__":
    main()
