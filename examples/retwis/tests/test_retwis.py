"""Retwis: timelines, posts, and the data that the benchmark begins with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import apiary

RETWIS = Path(__file__).parents[1]


@pytest.fixture
def retwis(apiary_app: Callable[[Path], Any]) -> Any:
    return apiary_app(RETWIS)


def test_a_timeline_merges_what_the_followees_wrote(retwis: Any) -> None:
    for author in (2, 3, 4):
        retwis.call("post", user=author, text=f"hello from {author}")
    retwis.call("follow", user=1, followee=2)
    retwis.call("follow", user=1, followee=3)
    retwis.call("follow", user=1, followee=3)
    timeline = retwis.call("timeline", user=1)
    assert {post.text for post in timeline} == {"hello from 2", "hello from 3"}
    assert retwis.call("timeline", user=2) == []


def test_a_timeline_that_is_fanned_out_is_the_same(retwis: Any) -> None:
    retwis.call("seed", users=20, followees=12, posts=11)
    timeline = retwis.call("gathered_timeline", user=3)
    assert len(timeline) == 120
    assert timeline == retwis.call("timeline", user=3)
    assert retwis.call("gathered_timeline", user=99) == []


def test_only_the_ten_latest_posts_of_each_come_newest_first(retwis: Any) -> None:
    numbers = [retwis.call("post", user=2, text=f"number {number}") for number in range(1, 13)]
    assert numbers == list(range(1, 13))
    retwis.call("follow", user=1, followee=2)
    timeline = retwis.call("timeline", user=1)
    assert [post.post_id for post in timeline] == list(range(12, 2, -1))
    assert [post.at for post in timeline] == sorted((post.at for post in timeline), reverse=True)


def test_posting_again_with_the_same_key_posts_once(retwis: Any) -> None:
    for _ in range(3):
        assert retwis.call("post", user=2, text="once", idempotency_key="post-1") == 1
    assert retwis.call("post", user=2, text="another") == 2


def test_the_seed_gives_everyone_followees_and_posts(retwis: Any) -> None:
    assert retwis.call("seed", users=60, followees=50, posts=11) == 660
    for user in (0, 59):
        timeline = retwis.call("timeline", user=user)
        assert len(timeline) == 500
        assert len({post.user_id for post in timeline} - {user}) == 50


@pytest.mark.parametrize(
    ("code", "function", "arguments"),
    [
        ("yourself", "follow", {"user": 1, "followee": 1}),
        ("too_many_followees", "seed", {"users": 10, "followees": 10}),
        ("not_empty", "seed", {"users": 10, "followees": 5}),
    ],
)
def test_refusals(retwis: Any, code: str, function: str, arguments: dict[str, Any]) -> None:
    retwis.call("seed", users=3, followees=2, posts=1)
    with pytest.raises(apiary.Rejected) as refused:
        retwis.call(function, **arguments)
    assert refused.value.code == code


@pytest.mark.parametrize("text", ["", "x" * 281])
def test_a_post_has_one_to_280_characters(retwis: Any, text: str) -> None:
    with pytest.raises(apiary.WrongArguments):
        retwis.call("post", user=1, text=text)
