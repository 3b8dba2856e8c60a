"""Calls that are found among others: by function, caller, status, time, and by the words in them."""

import time
from datetime import UTC, datetime

import apsw
import pytest

from apiary.engine.sqlite import finding
from apiary.runtime.errors import Rejected, WrongArguments


def functions(found):
    return [call["function"] for call in found]


def test_calls_are_found_by_words(forum):
    forum.call("write", author="ada", body="A Bee's nest, ünder the roof_top")
    forum.call("write", author="bob", body="no insects\nanywhere")
    for text in ("bee", "BEE nest", "ünd", "roof", "top", "ada bee", "roof_top", "nest's"):
        found = forum.log.calls(text=text)
        assert [forum.log.show(call["id"])["input"]["author"] for call in found] == ["ada"], text
    assert functions(forum.log.calls(text="anywhere")) == ["write"], "a line break joins no words"
    assert forum.log.calls(text="ee") == []
    assert forum.log.calls(text="bee", function="read") == []
    with pytest.raises(WrongArguments, match="no word"):
        forum.log.calls(text='"*')


def test_errors_and_log_lines_have_words(forum):
    with pytest.raises(Rejected):
        forum.call("edit", post=99, body="x")
    assert functions(forum.log.calls(text="no_post")) == ["edit"]


def test_calls_are_found_by_time(forum):
    start = datetime.now(UTC)
    forum.call("write", author="ada", body="x")
    middle = time.time_ns() // 1000
    forum.call("edit", post=1, body="y")
    assert functions(forum.log.calls(since=start)) == ["edit", "write"]
    assert functions(forum.log.calls(since=middle)) == ["edit"]
    assert functions(forum.log.calls(until=middle)) == ["write"]
    assert functions(forum.log.calls(since=middle, until=middle)) == []
    assert functions(forum.log.calls(until=middle, text="ada")) == ["write"]


def test_filters_are_combined_with_pages(forum):
    for number in range(5):
        forum.by(f"caller {number % 2}", "write", author="ada", body=f"post {number}")
    found = forum.log.calls(caller="caller 0", limit=2)
    assert len(found) == 2
    older = forum.log.calls(caller="caller 0", before=found[-1]["seq"])
    assert [call["caller"] for call in older] == ["caller 0"]
    assert older[0]["seq"] < found[-1]["seq"]
    assert [call["seq"] for call in forum.log.calls(text="post", after=older[0]["seq"], status="ok")] == sorted(
        {call["seq"] for call in forum.log.calls()} - {older[0]["seq"]}, reverse=True
    )
    assert forum.log.calls(status="failed") == []


def test_the_index_follows_in_parts(forum, monkeypatch):
    monkeypatch.setattr(finding, "CALLS_AT_ONCE", 2)
    for number in range(5):
        forum.call("write", author="ada", body=f"post {number}")
    assert len(forum.log.calls(text="post")) == 5
    forum.call("write", author="ada", body="post 5")
    assert len(forum.log.calls(function="write")) == 6


def test_the_index_of_another_file_is_made_again(forum, tmp_path):
    forum.call("write", author="ada", body="gone")
    assert len(forum.log.calls(text="gone")) == 1
    with apsw.Connection(str(tmp_path / "forum.db")) as connection:
        connection.execute("delete from apiary_calls")
    forum.call("write", author="ada", body="here")
    assert forum.log.calls(text="gone") == []
    assert len(forum.log.calls(text="here")) == 1


def test_without_room_for_the_index_calls_are_found_all_the_same(forum, monkeypatch):
    def full(self):
        raise apsw.FullError("no room")

    monkeypatch.setattr(finding.Finding, "catch_up", full)
    forum.call("write", author="ada", body="x")
    forum.call("edit", post=1, body="y")
    assert functions(forum.log.calls(function="edit")) == ["edit"]


def test_calls_are_found_in_the_index(forum, plan):
    filters = ("function", "status", "caller", "since", "until", "words", "before", "after")
    asked = {**dict.fromkeys(filters), "limit": 1}
    found = plan("log_calls_found", asked)
    assert found == [
        "SEARCH found USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH calls USING INTEGER PRIMARY KEY (rowid=?)",
    ]
    found = plan("log_calls_said", asked)
    assert found[0].startswith("SCAN main.said VIRTUAL TABLE INDEX"), found
    assert "USE TEMP B-TREE FOR ORDER BY" not in found


def test_calls_that_were_dropped_take_no_place(forum, tmp_path):
    for number in range(4):
        forum.call("write", author="ada", body=f"post {number}")
    latest, second, third, _ = forum.log.calls(text="post")
    with apsw.Connection(str(tmp_path / "forum.db")) as connection:
        connection.execute("delete from apiary_calls where seq = ?", (second["seq"],))
    for found in (forum.log.calls(text="post", limit=2), forum.log.calls(function="write", limit=2)):
        assert [call["id"] for call in found] == [latest["id"], third["id"]]
