"""Retwis: the small Twitter that systems are compared with. Users post; a timeline merges what they read.

A timeline reads the followees with one statement, then the latest posts of each with one more: 51 statements
and 550 rows for a user who follows 50 others, in one call and from one snapshot of the database. `gathered_timeline` is
the same as a workflow that starts a query for each of them, as if they were of other services.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Annotated

from pydantic import Field

from apiary import App, Rejected, Transaction, Workflow

app = App("retwis")

LATEST = 10


@dataclass(frozen=True)
class Post:
    """What one user wrote at one moment."""

    user_id: int
    post_id: int
    at: datetime
    text: str


@app.query
def timeline(tx: Transaction, user: int) -> list[Post]:
    """The 10 latest posts of everyone whom the user follows, the newest first."""
    followees = tx.execute("select followee_id from followees where user_id = :user", user=user).scalars()
    posts = [
        post
        for followee in followees
        for post in tx.execute(
            "select user_id, post_id, at, text from posts where user_id = :followee "
            "order by post_id desc limit :latest",
            followee=followee,
            latest=LATEST,
        ).all(Post)
    ]
    return sorted(posts, key=attrgetter("at"), reverse=True)


@app.query
def followees(tx: Transaction, user: int) -> list[int]:
    """Whom a user follows."""
    return tx.execute("select followee_id from followees where user_id = :user", user=user).scalars()


@app.query
def latest_posts(tx: Transaction, user: int) -> list[Post]:
    """The 10 latest posts of one user, the newest first."""
    return tx.execute(
        "select user_id, post_id, at, text from posts where user_id = :user order by post_id desc limit :latest",
        user=user,
        latest=LATEST,
    ).all(Post)


@app.workflow
def gathered_timeline(wf: Workflow, user: int) -> list[Post]:
    """The same as `timeline`, fanned out: a step for each of those whom the user follows."""
    begun = [wf.start(latest_posts, followee) for followee in wf.run(followees, user)]
    return sorted((post for posts in wf.gather(begun) for post in posts), key=attrgetter("at"), reverse=True)


@app.transaction
def post(tx: Transaction, user: int, text: Annotated[str, Field(min_length=1, max_length=280)]) -> int:
    """Publish a text, and return its number among the posts of this user."""
    return int(
        tx.execute(
            "insert into posts (user_id, post_id, at, text) "
            "select :user, coalesce(max(post_id), 0) + 1, :now, :text from posts where user_id = :user "
            "returning post_id",
            user=user,
            now=tx.now,
            text=text,
        ).scalar()
    )


@app.transaction
def follow(tx: Transaction, user: int, followee: int) -> None:
    """Have the posts of `followee` in the timeline of `user` from now on."""
    if user == followee:
        raise Rejected("nobody follows themselves", code="yourself", user=user)
    tx.execute(
        "insert into followees (user_id, followee_id) values (:user, :followee) on conflict do nothing",
        user=user,
        followee=followee,
    )


@app.transaction(timeout=60)
def seed(
    tx: Transaction,
    users: Annotated[int, Field(gt=0, le=10_000)] = 1_000,
    followees: Annotated[int, Field(ge=0, le=1_000)] = 50,
    posts: Annotated[int, Field(ge=0, le=100)] = 11,
) -> int:
    """Fill an empty database: `users` numbered from 0, each with so many followees and posts.

    The same numbers give the same data every time. Returns how many posts were written.
    """
    if followees >= users:
        raise Rejected("a user can follow all others at most", code="too_many_followees", users=users)
    if tx.execute("select 1 from posts limit 1").first() is not None:
        raise Rejected("there are posts already", code="not_empty")
    choice = random.Random(users)
    tx.execute_many(
        "insert into followees (user_id, followee_id) values (:user, :followee)",
        [
            {"user": user, "followee": (user + step) % users}
            for user in range(users)
            for step in choice.sample(range(1, users), followees)
        ],
    )
    start = tx.now - timedelta(seconds=users * posts)
    tx.execute_many(
        "insert into posts (user_id, post_id, at, text) values (:user, :post, :at, :text)",
        [
            {
                "user": user,
                "post": number + 1,
                "at": start + timedelta(seconds=number * users + user),
                "text": f"post {number + 1} of user {user}, as long as posts usually are in this hive",
            }
            for user in range(users)
            for number in range(posts)
        ],
    )
    return users * posts
