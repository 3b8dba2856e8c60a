"""A forum whose log is asked: posts that are written, read, copied into others, and made known by a workflow."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import apiary
from apiary import App, OpenApp, Rejected, Transaction, Workflow
from apiary.engine.sqlite.expanded import SQL

TABLES = """
create table posts (id integer primary key, author text not null, body text not null,
                    public integer not null default 0);
create table copies (id integer primary key, post integer not null, body text not null);
create table news (post integer primary key, told text not null) without rowid;
create table notes (name text primary key) without rowid;
create table "odd table" (id integer primary key, "the caller" text, "select" text);
insert into "odd table" values (1, 'ada''s', 'x');
insert into posts values (1, 'ada', 'first', 1);
"""


def forum_app(folder: Path) -> App:  # noqa: C901 - many small functions
    (folder / "migrations").mkdir()
    (folder / "migrations" / "001-tables.sql").write_text(TABLES)
    app = App("forum", migrations=folder / "migrations")

    @app.transaction
    def write(tx: Transaction, author: str, body: str) -> int:
        insert = "insert into posts (author, body) values (:author, :body) returning id"
        found: int = tx.execute(insert, author=author, body=body).scalar()
        return found

    @app.transaction
    def edit(tx: Transaction, post: int, body: str) -> None:
        if tx.execute("update posts set body = :body where id = :post", body=body, post=post).rowcount == 0:
            raise Rejected("no such post", code="no_post")

    @app.transaction
    def assign(tx: Transaction, post: int, author: str) -> None:
        tx.execute("update posts set author = :author where id = :post", author=author, post=post)

    @app.transaction
    def note(tx: Transaction, name: str) -> str:
        tx.execute("insert into notes values (:name)", name=name)
        return str(tx.execute("select name from notes where name = :name", name=name).scalar())

    @app.transaction
    def odd(tx: Transaction) -> int:
        found: int = tx.execute('select id from "odd table"').scalar()
        return found

    @app.transaction
    def remove(tx: Transaction, post: int) -> None:
        tx.execute("delete from posts where id = :post", post=post)

    @app.query
    def read(tx: Transaction, post: int) -> str | None:
        found: str | None = tx.execute("select id, body from posts where id = :post", post=post).one().body
        return found

    @app.query
    def count(tx: Transaction) -> int:
        found: int = tx.execute("select count(*) from posts").scalar()
        return found

    @app.transaction
    def copy(tx: Transaction, post: int) -> int:
        body = tx.execute("select id, body from posts where id = :post", post=post).one().body
        insert = "insert into copies (post, body) values (:post, :body) returning id"
        found: int = tx.execute(insert, post=post, body=body).scalar()
        return found

    @app.transaction
    def tell(tx: Transaction, post: int) -> None:
        body = tx.execute("select post, body from copies where post = :post order by id", post=post).first()
        tx.execute("insert or replace into news values (:post, :told)", post=post, told="" if body is None else body[1])

    @app.transaction
    def rewrite(tx: Transaction, copy: int) -> None:
        body = tx.execute("select id, body from copies where id = :copy", copy=copy).one().body
        tx.execute("update copies set body = :body where id = :copy", body=body + "!", copy=copy)

    @app.transaction
    def announce(tx: Transaction, post: int) -> None:
        copy(tx, post)
        tx.enqueue(tell, post)

    @app.workflow
    def publish(wf: Workflow, post: int) -> int:
        copied: int = wf.run(copy, post)
        wf.run(tell, post)
        return copied

    @app.workflow
    def publish_all(wf: Workflow, posts: list[int]) -> int:
        return sum(wf.run(publish, post) for post in posts)

    @app.workflow
    def wait_for(wf: Workflow, topic: str) -> None:
        wf.run(copy, 1)
        wf.receive(topic)

    return app


class Forum:
    """The forum, its callers, and what its log is asked in these tests."""

    def __init__(self, opened: OpenApp) -> None:
        self.opened = opened

    def call(self, function: str, **arguments: Any) -> Any:
        return self.opened.call(function, **arguments)

    def by(self, caller: str, function: str, **arguments: Any) -> Any:
        """A call by somebody else."""
        self.opened._caller = caller
        try:
            return self.opened.call(function, **arguments)
        finally:
            self.opened._caller = "local"

    def settle(self) -> None:
        """Have the queue run, and the records of queries written: they come with the next transaction."""
        self.opened.drain()
        self.opened.call("remove", post=-1)

    def last(self, function: str) -> str:
        """The id of the latest call of a function."""
        found: str = self.opened.log.calls(function=function, limit=1)[0]["id"]
        return found

    @property
    def log(self) -> Any:
        return self.opened.log


@pytest.fixture
def forum(tmp_path: Path) -> Iterator[Forum]:
    with apiary.open(forum_app(tmp_path), f"sqlite:///{tmp_path}/forum.db") as opened:
        yield Forum(opened)


@pytest.fixture
def plan(forum: Forum) -> Callable[[str, dict[str, Any]], list[str]]:
    """A function that tells how SQLite answers one of the platform's questions: the lines of its plan."""
    forum.log.sql("select 1")  # opens the log
    expanded = forum.opened._log._expanded

    def plan_of(name: str, parameters: dict[str, Any]) -> list[str]:
        connection = expanded._connection
        return [str(row[3]) for row in connection.execute(f"explain query plan {SQL[name]}", parameters)]

    return plan_of
