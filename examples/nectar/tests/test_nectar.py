"""Nectar: accounts, posts, likes, people, and what it refuses."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import apiary

NECTAR = Path(__file__).parents[1]
PAGE = (NECTAR / "nectar" / "web" / "index.html").read_text(encoding="utf-8")
PASSWORD = "royal jelly"


@pytest.fixture
def nectar(apiary_app: Callable[[Path], Any]) -> Any:
    return apiary_app(NECTAR)


def register(nectar: Any, handle: str) -> str:
    """Open an account, and return its session."""
    return str(nectar.call("register", handle=handle, password=PASSWORD).session)


def refusal(nectar: Any, function: str, **arguments: Any) -> str:
    with pytest.raises(apiary.Rejected) as refused:
        nectar.call(function, **arguments)
    return str(refused.value.code)


def texts(posts: list[Any]) -> list[str]:
    return [post.text for post in posts]


def test_register_login_logout(nectar: Any) -> None:
    first = register(nectar, "bee1")
    second = nectar.call("login", handle="bee1", password=PASSWORD).session
    assert first != second
    assert nectar.call("whoami", session=second) == "bee1"
    nectar.call("logout", session=second)
    nectar.call("logout", session=second)
    assert refusal(nectar, "whoami", session=second) == "signed_out"
    assert nectar.call("whoami", session=first) == "bee1"


def test_a_wrong_password_and_an_unknown_handle_look_the_same(nectar: Any) -> None:
    register(nectar, "bee1")
    problems = []
    for handle in ("bee1", "bee2"):
        with pytest.raises(apiary.Rejected) as refused:
            nectar.call("login", handle=handle, password="wax, not jelly")
        problems.append((refused.value.code, str(refused.value), refused.value.details))
    assert problems[0] == problems[1]
    assert problems[0][0] == "wrong_login"


def test_a_handle_is_taken_once(nectar: Any) -> None:
    register(nectar, "bee1")
    assert refusal(nectar, "register", handle="bee1", password="another password") == "handle_taken"
    assert nectar.call("login", handle="bee1", password=PASSWORD).handle == "bee1"


@pytest.mark.parametrize(
    ("handle", "password"),
    [("x", PASSWORD), ("Bee1", PASSWORD), ("bee 1", PASSWORD), ("bee1\n", PASSWORD), ("bee1", "short")],
)
def test_handles_and_passwords_have_rules(nectar: Any, handle: str, password: str) -> None:
    with pytest.raises(apiary.WrongArguments) as refused:
        nectar.call("register", handle=handle, password=password)
    assert PASSWORD not in str(refused.value)


def test_the_timeline_has_ones_own_posts_and_those_of_followees(nectar: Any) -> None:
    bees = {handle: register(nectar, handle) for handle in ("bee1", "bee2", "bee3")}
    for handle, session in bees.items():
        nectar.call("post", session=session, text=f"buzz from {handle}")
    assert texts(nectar.call("timeline", session=bees["bee1"])) == ["buzz from bee1"]
    nectar.call("follow", session=bees["bee1"], handle="bee2")
    assert texts(nectar.call("timeline", session=bees["bee1"])) == ["buzz from bee2", "buzz from bee1"]
    assert texts(nectar.call("timeline", session=bees["bee2"])) == ["buzz from bee2"]
    assert texts(nectar.call("latest")) == ["buzz from bee3", "buzz from bee2", "buzz from bee1"]
    nectar.call("unfollow", session=bees["bee1"], handle="bee2")
    assert texts(nectar.call("timeline", session=bees["bee1"])) == ["buzz from bee1"]


def test_pages_follow_each_other(nectar: Any) -> None:
    session = register(nectar, "bee1")
    for number in range(1, 6):
        nectar.call("post", session=session, text=str(number))
    for function, who in (("timeline", {"session": session}), ("latest", {}), ("posts_of", {"handle": "bee1"})):
        first = nectar.call(function, limit=3, **who)
        second = nectar.call(function, limit=3, before=first[-1].post_id, **who)
        assert texts(first) + texts(second) == ["5", "4", "3", "2", "1"]


def test_a_repeated_post_with_the_same_key_is_one_post(nectar: Any) -> None:
    session = register(nectar, "bee1")
    first = nectar.call("post", session=session, text="once", idempotency_key="post-1")
    assert nectar.call("post", session=session, text="once", idempotency_key="post-1") == first
    assert texts(nectar.call("latest")) == ["once"]


def test_likes_count_each_user_once(nectar: Any) -> None:
    bee1, bee2 = register(nectar, "bee1"), register(nectar, "bee2")
    number = nectar.call("post", session=bee1, text="like me").post_id
    for _ in range(2):
        post = nectar.call("like", session=bee2, post=number)
        assert (post.likes, post.liked) == (1, True)
    assert nectar.call("like", session=bee1, post=number).likes == 2
    assert nectar.call("latest")[0].liked is False
    post = nectar.call("unlike", session=bee2, post=number)
    assert (post.likes, post.liked) == (1, False)


def test_profiles_count_posts_and_followers(nectar: Any) -> None:
    bee1, bee2 = register(nectar, "bee1"), register(nectar, "bee2")
    nectar.call("post", session=bee2, text="buzz")
    nectar.call("follow", session=bee1, handle="bee2")
    nectar.call("follow", session=bee1, handle="bee2")
    seen = nectar.call("profile", handle="bee2", session=bee1)
    assert (seen.posts, seen.followers, seen.following, seen.followed) == (1, 1, 0, True)
    assert nectar.call("profile", handle="bee2").followed is False
    assert nectar.call("profile", handle="bee1").following == 1


def test_text_is_kept_as_it_was_written(nectar: Any) -> None:
    text = "<script>alert('🐝')</script> & \"more\""
    post = nectar.call("post", session=register(nectar, "bee1"), text=f"  {text}\n")
    assert post.text == text


@pytest.mark.parametrize("text", ["", "   ", "x" * 281])
def test_a_post_has_one_to_280_characters(nectar: Any, text: str) -> None:
    session = register(nectar, "bee1")
    with pytest.raises(apiary.WrongArguments):
        nectar.call("post", session=session, text=text)


@pytest.mark.parametrize(
    ("code", "function", "arguments"),
    [
        ("unknown_user", "follow", {"handle": "bee9"}),
        ("unknown_user", "unfollow", {"handle": "bee9"}),
        ("unknown_user", "profile", {"handle": "bee9"}),
        ("yourself", "follow", {"handle": "bee1"}),
        ("unknown_post", "like", {"post": 404}),
        ("unknown_post", "unlike", {"post": 404}),
    ],
)
def test_refusals(nectar: Any, code: str, function: str, arguments: dict[str, Any]) -> None:
    assert refusal(nectar, function, session=register(nectar, "bee1"), **arguments) == code


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("post", {"text": "buzz"}),
        ("timeline", {}),
        ("latest", {}),
        ("like", {"post": 1}),
        ("follow", {"handle": "bee1"}),
        ("profile", {"handle": "bee1"}),
    ],
)
def test_a_session_that_never_was_is_refused(nectar: Any, function: str, arguments: dict[str, Any]) -> None:
    register(nectar, "bee1")
    assert refusal(nectar, function, session="made up", **arguments) == "signed_out"


def test_the_page_calls_functions_that_there_are(nectar: Any) -> None:
    named = re.findall(r'(?:call|showFeed)\((?:view, )?"(\w+)"', PAGE)
    names = {*named, "login", "register", "like", "unlike"}
    assert {"post", "timeline", "latest", "posts_of", "profile", "logout"} <= names
    for name in names:
        with pytest.raises(apiary.WrongArguments):
            nectar.call(name, no_such_argument=True)


def test_the_page_needs_nothing_else_and_writes_no_html() -> None:
    assert not re.search(r"(src|href)=[\"'](https?:)?//", PAGE)
    for way_in in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way_in not in PAGE
