"""Retwis: a timeline that fans out over the followees, and posts."""

from dataclasses import dataclass
from operator import attrgetter

from apiary import App, Transaction

from . import statements

app = App("retwis")


@dataclass(frozen=True)
class Post:
    """A post. `at` in seconds since 1970."""

    post_id: int
    user_id: int
    at: float
    text: str


@app.query
def timeline(tx: Transaction, user: int) -> list[Post]:
    """The 10 latest posts of everyone the user follows, merged, newest first."""
    posts: list[Post] = []
    for followee in tx.execute(statements.FOLLOWEES, user=user).scalars():
        posts += tx.execute(statements.LATEST, user=followee).all(Post)
    posts.sort(key=attrgetter("at"), reverse=True)
    return posts


@app.transaction
def post(tx: Transaction, user: int, text: str) -> int:
    """Publish a post; its id."""
    return tx.execute(statements.ADD_POST, user=user, at=tx.now.timestamp(), text=text).scalar()


@app.query
def effects(tx: Transaction) -> int:
    """How many posts there are."""
    return tx.execute(statements.EFFECTS).scalar()


@app.transaction
def load_users(tx: Transaction, first: int, last: int) -> None:
    """Make the followees and the posts of the users first..last."""
    tx.execute(statements.LOAD_FOLLOWEES, first=first, last=last)
    tx.execute(statements.LOAD_POSTS, first=first, last=last)
