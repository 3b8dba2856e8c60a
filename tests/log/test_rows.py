"""What the log tells of one row: its versions, how it was at a time."""

import time
from datetime import UTC, datetime

import pytest


def now() -> int:
    return time.time_ns() // 1000


def test_a_row_is_told_as_it_was(forum):
    before = now()
    post = forum.call("write", author="ada", body="draft")
    written = now()
    forum.by("bob", "edit", post=post, body="better")
    edited = now()
    forum.call("remove", post=post)
    row = {"id": post, "author": "ada", "body": "draft", "public": 0}
    key = {"id": post}
    assert forum.log.as_of("posts", key, before) is None
    assert forum.log.as_of("posts", key, written)["row"] == row
    found = forum.log.as_of("posts", key, datetime.fromtimestamp(edited / 1e6, UTC))
    assert found["row"] == {**row, "body": "better"}
    assert (found["function"], found["caller"], found["operation"]) == ("edit", "bob", "update")
    assert forum.log.show(found["call"])["input"] == {"post": post, "body": "better"}
    gone = forum.log.as_of("posts", key, now())
    assert (gone["row"], gone["operation"]) == (None, "delete")


def test_a_row_of_a_migration_has_no_call(forum):
    found = forum.log.as_of("posts", {"id": 1}, now())
    assert (found["row"]["author"], found["call"], found["function"]) == ("ada", None, "001-tables.sql")


def test_a_call_that_runs_has_made_no_version_yet(forum):
    post = forum.call("write", author="ada", body="draft")
    ((start, duration),) = forum.log.sql("select started, duration from calls where function = 'write'").rows
    assert duration > 0
    assert forum.log.as_of("posts", {"id": post}, start + duration - 1) is None
    assert forum.log.as_of("posts", {"id": post}, start + duration)["row"]["body"] == "draft"


def test_history_and_readers_are_asked_by_key(forum):
    forum.call("edit", post=1, body="x")
    forum.call("copy", post=1)
    assert [version["operation"] for version in forum.log.history("posts", {"id": 1})] == ["insert", "update"]
    assert [(read["function"], read["row"]) for read in forum.log.readers("posts", {"id": 1})] == [
        ("copy", {"id": 1, "body": "x"})
    ]
    assert forum.log.readers("posts", {"id": 1}, since=datetime.now(UTC)) == []


@pytest.mark.parametrize(
    ("question", "index"),
    [("log_history", "writes_of_rows"), ("log_readers", "reads_of_rows"), ("log_as_of", "writes_of_rows")],
)
def test_rows_are_found_by_indexes_in_their_order(plan, question, index):
    found = plan(question, {"table": "posts", "key": "{}", "limit": 1, "since": 0, "at": 0})
    assert found[0].endswith(f"USING INDEX {index} (table_name=? AND key=?)")
    assert [line for line in found if line.startswith(("SCAN", "USE TEMP", "MATERIALIZE"))] == []


def test_a_key_is_found_in_each_form(forum):
    """What looks like a number on the command line may be text in the table."""
    forum.call("note", name="7")
    assert len(forum.log.history("notes", {"name": 7})) == 1
    assert forum.log.as_of("notes", {"name": 7}, now())["row"] == {"name": "7"}
    assert forum.log.readers("notes", {"name": 7})[0]["certain"]
