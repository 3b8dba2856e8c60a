"""What a call did, and what came of it."""

import json
from typing import Any

import pytest

from apiary.log import trace as tracing
from apiary.runtime.errors import NotFound
from apiary.runtime.ids import id_text, new_id


def tables(call: dict[str, Any], what: str) -> list[Any]:
    if what == "writes":
        return [(write["operation"], write["table"]) for write in call["writes"]]
    return [[(row["table"], row["key"]) for row in read["rows"]] for read in call["reads"]]


def test_a_call_shows_what_it_read_and_wrote(forum):
    forum.call("copy", post=1)
    shown = forum.log.show(forum.last("copy"))
    (read,) = shown["reads"]
    assert read["parameters"] == {"post": 1}
    assert read["rows"] == [{"table": "posts", "key": {"id": 1}, "row": {"id": 1, "body": "first"}}]
    after = {"id": 1, "post": 1, "body": "first"}
    assert shown["writes"] == [
        {"operation": "insert", "table": "copies", "key": {"id": 1}, "before": None, "after": after}
    ]
    assert not shown["more_effects"]


def test_a_call_shows_nothing_of_others(forum):
    forum.call("copy", post=1)
    forum.call("remove", post=-1)
    shown = forum.log.show(forum.last("remove"))
    assert (shown["reads"], shown["writes"]) == ([], [])


def test_a_workflow_is_traced_through_its_steps_and_children(forum):
    second = forum.call("write", author="bob", body="second")
    forum.call("publish_all", posts=[1, second])
    found = forum.log.trace(forum.last("publish_all"))
    assert [child["function"] for child in found["children"]] == ["publish", "publish"]
    for child, post in zip(found["children"], (1, second), strict=True):
        assert [(step["function"], step["step"]) for step in child["children"]] == [("copy", 0), ("tell", 1)]
        assert tables(child["children"][0], "reads") == [[("posts", {"id": post})]]
        assert tables(child["children"][0], "writes") == [("insert", "copies")]
        assert tables(child["children"][1], "writes") == [("insert", "news")]
    assert not found["more"]
    shown = forum.log.show(found["id"])
    assert [step["function"] for step in shown["steps"]] == ["publish", "publish"]


def test_calls_that_were_enqueued_are_traced(forum):
    forum.call("announce", post=1)
    forum.settle()
    found = forum.log.trace(forum.last("announce"))
    (told,) = found["children"]
    assert (told["function"], told["step"], told["input"]) == ("tell", None, {"post": 1})
    assert tables(told, "writes") == [("insert", "news")]


def test_a_trace_is_as_deep_and_as_wide_as_is_asked_for(forum):
    forum.call("publish_all", posts=[1, 1])
    root = forum.last("publish_all")
    assert [child["children"] for child in forum.log.trace(root, depth=1)["children"]] == [[], []]
    assert forum.log.trace(root, depth=0)["children"] == []
    cut = forum.log.trace(root, limit=3)
    assert [child["children"] for child in cut["children"]] == [[], []]
    assert cut["more"]
    assert not forum.log.trace(root, limit=7)["more"]


def test_what_is_too_much_to_tell_is_said(forum, monkeypatch):
    monkeypatch.setattr(tracing, "MAX_ROWS", 1)
    forum.call("publish", post=1)
    assert forum.log.trace(forum.last("publish"))["more"]


def test_a_workflow_that_waits_is_traced(forum):
    handle = forum.opened.start("wait_for", topic="go")
    found = forum.log.trace(handle.id)
    assert (found["status"], found["function"], found["kind"]) == ("waiting", "wait_for", "workflow")
    assert [step["function"] for step in found["children"]] == ["copy"]
    handle.send("go", None)
    handle.result()
    assert forum.log.trace(handle.id)["status"] == "ok"


@pytest.mark.parametrize("call", ["none", id_text(new_id())], ids=["no id", "no call"])
def test_what_is_no_call_is_not_traced(forum, call):
    with pytest.raises(NotFound):
        forum.log.trace(call)


def test_traces_are_found_by_indexes(forum, plan):
    of_tree = plan("log_tree", {"id": b"", "depth": 1, "limit": 1, "most": 1})
    assert "SEARCH calls USING INDEX apiary_calls_parent (parent=?)" in of_tree
    for name, table in (("log_written", "writes"), ("log_read", "reads")):
        found = plan(name, {"calls": json.dumps([1]), "limit": 1})
        assert any("sources_of_calls" in line for line in found), found
        assert any(line.startswith(f"SEARCH {table} USING PRIMARY KEY (effect=?") for line in found), found
