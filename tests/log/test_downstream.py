"""What came of data: who read what a call wrote, and what that led to."""

import json
import re
from typing import Any

import pytest

from apiary.log.downstream import dot
from apiary.runtime.errors import NotFound, WrongArguments


def edges(graph: dict[str, Any]) -> list[tuple[str, str, str, Any]]:
    """The edges by the names of functions."""
    names = {call["id"]: call["function"] for call in graph["calls"]}
    return sorted((names[edge["from"]], names[edge["to"]], edge["how"], edge["table"]) for edge in graph["edges"])


def reached(graph: dict[str, Any]) -> dict[str, int]:
    return {call["function"]: call["distance"] for call in graph["calls"]}


def test_who_read_what_a_call_wrote_is_downstream_of_it(forum):
    post = forum.call("write", author="ada", body="x")
    first = forum.last("write")
    forum.call("copy", post=post)
    forum.call("tell", post=post)
    forum.call("copy", post=1)
    graph = forum.log.downstream(call=first)
    assert reached(graph) == {"write": 0, "copy": 1, "tell": 2}
    assert edges(graph) == [("copy", "tell", "read", "copies"), ("write", "copy", "read", "posts")]
    assert graph["edges"][0]["key"] == {"id": post}
    assert all(edge["certain"] for edge in graph["edges"])
    assert not graph["more"]


def test_who_reads_a_later_version_is_not_downstream_of_the_earlier(forum):
    forum.call("edit", post=1, body="old")
    old = forum.last("edit")
    forum.call("edit", post=1, body="new")
    new = forum.last("edit")
    forum.call("copy", post=1)
    assert "copy" not in reached(forum.log.downstream(call=old))
    assert reached(forum.log.downstream(call=new)) == {"edit": 0, "copy": 1}


def test_who_reads_a_row_and_writes_it_is_downstream_of_its_writer(forum):
    forum.call("write", author="ada", body="x")
    forum.call("copy", post=1)
    first = forum.last("copy")
    forum.call("rewrite", copy=1)
    graph = forum.log.downstream(call=first)
    assert edges(graph) == [("copy", "rewrite", "read", "copies")]


def test_a_query_is_downstream_of_what_it_saw_however_late_its_record_is(forum):
    """The record of the first may be behind the second edit; the other one began after that."""
    forum.call("edit", post=1, body="seen")
    forum.call("read", post=1)
    forum.call("edit", post=1, body="newer")
    forum.call("read", post=1)
    forum.settle()
    newer, seen = (call["id"] for call in forum.log.calls(function="edit"))
    late, early = (call["id"] for call in forum.log.calls(function="read"))
    found = forum.log.downstream(call=seen)
    assert [edge["to"] for edge in found["edges"] if edge["how"] == "read"] == [early]
    assert late in [edge["to"] for edge in forum.log.downstream(call=newer)["edges"]]


def test_reads_of_rows_that_are_not_known_are_uncertain(forum):
    forum.call("write", author="ada", body="x")
    forum.call("count")
    forum.settle()
    graph = forum.log.downstream(call=forum.last("write"))
    (edge,) = [edge for edge in graph["edges"] if edge["how"] == "read"]
    assert not edge["certain"]
    assert reached(graph) == {"write": 0, "count": 1}


def test_steps_and_enqueued_calls_are_downstream(forum):
    forum.call("publish", post=1)
    graph = forum.log.downstream(call=forum.last("publish"))
    assert [edge for edge in edges(graph) if edge[2] != "read"] == [
        ("copy", "tell", "then", None),
        ("publish", "copy", "began", None),
        ("publish", "tell", "began", None),
    ]
    forum.call("announce", post=1)
    forum.settle()
    assert ("announce", "tell", "began", None) in edges(forum.log.downstream(call=forum.last("announce")))


def test_all_that_was_ever_written_to_a_row_has_a_graph(forum):
    forum.call("edit", post=1, body="old")
    forum.call("copy", post=1)
    forum.call("edit", post=1, body="new")
    forum.call("write", author="eve", body="other")
    forum.call("copy", post=2)
    graph = forum.log.downstream(table="posts", key={"id": 1})
    assert reached(graph) == {"edit": 0, "copy": 1}
    assert len(graph["edges"]) == 1


def test_a_graph_is_as_large_as_is_asked_for(forum):
    post = forum.call("write", author="ada", body="x")
    first = forum.last("write")
    for _ in range(3):
        forum.call("copy", post=post)
    forum.call("tell", post=post)
    assert "tell" not in reached(forum.log.downstream(call=first, depth=1))
    graph = forum.log.downstream(call=first, limit=2)
    assert (len(graph["edges"]), graph["more"]) == (2, True)
    assert {edge["to"] for edge in graph["edges"]} < {call["id"] for call in graph["calls"]}
    everything = forum.log.downstream(call=first)
    assert not everything["more"]
    assert not forum.log.downstream(call=first, limit=len(everything["edges"]))["more"]


def test_a_graph_is_written_for_graphviz(forum):
    post = forum.call("write", author='"quoted"', body="x")
    forum.call("copy", post=post)
    forum.call("count")
    forum.settle()
    graph = forum.log.downstream(call=forum.last("write"))
    text = dot(graph)
    assert text.startswith("digraph downstream {")
    assert len(re.findall(r'^  "[0-9a-f-]{36}" \[label=', text, re.MULTILINE)) == len(graph["calls"])
    assert len(re.findall(r'^  "[0-9a-f-]{36}" -> "[0-9a-f-]{36}" \[', text, re.MULTILINE)) == len(graph["edges"])
    assert text.count("style=dashed") == 1


def test_downstream_of_nothing_is_refused(forum):
    for asked in ({}, {"call": "x", "table": "posts"}, {"table": "posts"}):
        with pytest.raises(WrongArguments):
            forum.log.downstream(**asked)
    with pytest.raises(NotFound):
        forum.log.downstream(call="0198f1c2-0000-7000-8000-000000000000")
    assert forum.log.downstream(table="posts", key={"id": 77}) == {"calls": [], "edges": [], "more": False}


def test_what_came_of_calls_is_found_by_indexes(forum, plan):
    asked = {"calls": json.dumps([1]), "late": 1, "limit": 1, "table": None, "keys": None}
    found = plan("log_read_from", asked)
    by_row = "SEARCH reads USING COVERING INDEX reads_of_rows (table_name=? AND key=? AND effect>? AND effect<?)"
    assert by_row in found, found
    scanned = [line for line in found if line.startswith("SCAN") and "json_each" not in line]
    assert set(scanned) <= {"SCAN written"}, found
    assert not [line for line in plan("log_came_of", asked) if line.startswith("SCAN") and "json_each" not in line]
    found = plan("log_writers", {"table": "posts", "keys": "[]", "limit": 1})
    assert "SEARCH main.writes USING COVERING INDEX writes_of_rows (table_name=? AND key=?)" in found, found
