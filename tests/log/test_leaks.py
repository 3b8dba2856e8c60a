"""Who read rows that were not for them."""

from datetime import UTC, datetime

import pytest

from apiary.runtime.errors import Error, NotFound, RuleBroken, WrongArguments

ENDLESS = "with recursive n (i) as (select 1 union all select i + 1 from n) select max(i) from n"


def seen(found):
    return sorted((read["caller"], read["function"], read["key"] and read["key"]["id"]) for read in found["reads"])


@pytest.fixture
def posts(forum):
    """The public first post of ada, and two others that are not public."""
    return [1, forum.call("write", author="ada", body="hers"), forum.call("write", author="bob", body="his")]


def test_who_read_rows_of_others_is_told(forum, posts):
    for caller in ("ada", "bob"):
        for post in posts:
            forum.by(caller, "read", post=post)
    forum.settle()
    found = forum.log.leaks("posts", "author = caller")
    assert seen(found) == [("ada", "read", posts[2]), ("bob", "read", 1), ("bob", "read", posts[1])]
    assert [(each["caller"], each["calls"], each["rows"], each["unknown"]) for each in found["callers"]] == [
        ("bob", 2, 2, 0),
        ("ada", 1, 1, 0),
    ]
    assert not found["more"]
    assert seen(forum.log.leaks("posts", "public or author = caller")) == [
        ("ada", "read", posts[2]),
        ("bob", "read", posts[1]),
    ]
    assert seen(forum.log.leaks("posts", "author = caller", caller="ada")) == [("ada", "read", posts[2])]
    assert seen(forum.log.leaks("posts", "author = caller", function="copy")) == []
    assert seen(forum.log.leaks("posts", "author = caller", since=datetime.now(UTC))) == []
    few = forum.log.leaks("posts", "author = caller", limit=1)
    assert (len(few["reads"]), few["more"], few["reads"][0]["caller"]) == (1, True, "bob")


def test_a_row_counts_as_it_was_when_it_was_read(forum, posts):
    forum.by("eve", "copy", post=posts[1])
    forum.call("assign", post=posts[1], author="eve")
    forum.by("eve", "copy", post=posts[1])
    first, second = (call["id"] for call in reversed(forum.log.calls(function="copy")))
    found = forum.log.leaks("posts", "author = caller", caller="eve")
    assert [read["call"] for read in found["reads"]] == [first]
    assert second != first
    forum.call("edit", post=posts[1], body="secret")
    forum.by("eve", "copy", post=posts[1])
    assert len(forum.log.leaks("posts", "body <> 'secret'", caller="eve")["reads"]) == 1


def test_reads_of_rows_that_are_not_known_may_be_leaks(forum, posts):
    forum.by("eve", "count")
    forum.settle()
    found = forum.log.leaks("posts", "author = caller")
    assert [(read["caller"], read["certain"]) for read in found["reads"]] == [("eve", False)]
    assert found["callers"][0]["unknown"] == 1
    assert forum.log.leaks("posts", "caller in ('eve', 'local')")["reads"] == []


def test_conditions_may_be_anything_that_reads(forum, posts):
    forum.by("eve", "copy", post=posts[1])
    for allowed in (
        "function = 'copy'",
        "true -- always",
        "id in (select post from copies)",
        "posts.id > 1",
        "\"author\" > 'a'",
    ):
        assert forum.log.leaks("posts", allowed)["reads"] == [], allowed
    assert len(forum.log.leaks("posts", "null")["reads"]) == 1


def test_wrong_conditions_are_refused(forum, posts):
    forum.by("eve", "copy", post=posts[1])
    for allowed in ("nothing = 1", "author =", "", "true) from (select 1)); drop table posts; select ((1"):
        with pytest.raises((WrongArguments, RuleBroken)):
            forum.log.leaks("posts", allowed)
    with pytest.raises(NotFound, match="there is no table 'none'"):
        forum.log.leaks("none", "true")


def test_conditions_that_never_end_are_ended(forum, posts, monkeypatch):
    monkeypatch.setattr("apiary.log.leaks.SQL_SECONDS", 0.1)
    forum.call("copy", post=1)
    with pytest.raises(Error, match=r"longer than 0\.1 s"):
        forum.log.leaks(
            "posts", "(with recursive n (i) as (select 1 union all select i + 1 from n) select max(i) from n)"
        )


def test_columns_of_any_name_can_be_asked_for(forum):
    forum.call("edit", post=1, body="it's")
    forum.by("eve", "odd")
    assert forum.log.leaks("odd table", '"the caller" = caller')["reads"] != []
    assert forum.log.leaks("odd table", "\"the caller\" = 'ada''s'")["reads"] == []


def test_reads_are_looked_at_in_their_order(forum, posts, monkeypatch):
    """The latest come first, and nothing is sorted, so few of many take no longer."""
    ran = []
    sql = type(forum.opened._log).sql
    monkeypatch.setattr(type(forum.opened._log), "sql", lambda log, *asked: ran.append(asked) or sql(log, *asked))
    for post in posts:
        forum.by("eve", "copy", post=post)
    found = forum.log.leaks("posts", "author = caller", limit=2)
    assert [read["key"]["id"] for read in found["reads"]] == [posts[2], posts[1]]
    ((statement, _, _, parameters),) = ran
    connection = forum.opened._log._expanded._connection
    plan = [row[3] for row in connection.execute(f"explain query plan {statement}", parameters)]
    assert plan[0] == "SEARCH reads USING PRIMARY KEY (effect>?)"
    assert not any("ORDER BY" in line for line in plan if "version" not in line), plan


def test_only_what_began_since_then_is_looked_at(forum, posts):
    forum.by("eve", "copy", post=posts[1])
    start = datetime.now(UTC)
    assert forum.log.leaks("posts", "false", since=start)["reads"] == []
    forum.by("eve", "copy", post=posts[2])
    found = forum.log.leaks("posts", "false", since=start)
    assert [read["key"]["id"] for read in found["reads"]] == [posts[2]]
