"""Posts: writing them, liking them, and three ways to read them, each the newest first.

Whoever wants the next page asks again with `before` set to the number of the last post that they have.
"""

from apiary import Rejected, Transaction

from .accounts import signed_in
from .declared import app
from .models import Handle, Limit, Post, Text, Token

NEWEST = 2**53 - 1  # above every post number, and still exact in JavaScript
NOBODY = 0


@app.transaction
def post(tx: Transaction, session: Token, text: Text) -> Post:
    """Publish a text of 1 to 280 characters."""
    me = signed_in(tx, session)
    number = tx.execute(
        "insert into posts (user_id, text, at) values (:me, :text, :now) returning post_id",
        me=me,
        text=text,
        now=tx.now,
    ).scalar()
    return _post(tx, me, number)


@app.query
def timeline(tx: Transaction, session: Token, before: int = NEWEST, limit: Limit = 20) -> list[Post]:
    """What the user and those whom they follow have written."""
    return tx.execute(
        "select post_id, handle, text, at, likes, "
        "exists (select 1 from likes where likes.post_id = feed.post_id and likes.user_id = :me) as liked "
        "from feed where post_id < :before "
        "and (user_id = :me or user_id in (select followee_id from follows where follower_id = :me)) "
        "order by post_id desc limit :limit",
        me=signed_in(tx, session),
        before=before,
        limit=limit,
    ).all(Post)


@app.query
def latest(tx: Transaction, session: Token | None = None, before: int = NEWEST, limit: Limit = 20) -> list[Post]:
    """What anyone has written. Needs no session."""
    return tx.execute(
        "select post_id, handle, text, at, likes, "
        "exists (select 1 from likes where likes.post_id = feed.post_id and likes.user_id = :me) as liked "
        "from feed where post_id < :before order by post_id desc limit :limit",
        me=signed_in(tx, session) if session else NOBODY,
        before=before,
        limit=limit,
    ).all(Post)


@app.query
def posts_of(
    tx: Transaction, handle: Handle, session: Token | None = None, before: int = NEWEST, limit: Limit = 20
) -> list[Post]:
    """What one user has written. Needs no session."""
    return tx.execute(
        "select post_id, handle, text, at, likes, "
        "exists (select 1 from likes where likes.post_id = feed.post_id and likes.user_id = :me) as liked "
        "from feed where handle = :handle and post_id < :before order by post_id desc limit :limit",
        me=signed_in(tx, session) if session else NOBODY,
        handle=handle,
        before=before,
        limit=limit,
    ).all(Post)


@app.transaction
def like(tx: Transaction, session: Token, post: int) -> Post:
    """Like a post; liking it twice counts once."""
    me = signed_in(tx, session)
    liked = _post(tx, me, post)
    if liked.liked:
        return liked
    tx.execute("insert into likes (post_id, user_id) values (:post, :me)", post=post, me=me)
    return _post(tx, me, post)


@app.transaction
def unlike(tx: Transaction, session: Token, post: int) -> Post:
    """Take a like back."""
    me = signed_in(tx, session)
    tx.execute("delete from likes where post_id = :post and user_id = :me", post=post, me=me)
    return _post(tx, me, post)


def _post(tx: Transaction, me: int, number: int) -> Post:
    """One post as `me` sees it."""
    found = tx.execute(
        "select post_id, handle, text, at, likes, "
        "exists (select 1 from likes where likes.post_id = feed.post_id and likes.user_id = :me) as liked "
        "from feed where post_id = :number",
        me=me,
        number=number,
    ).first(Post)
    if found is None:
        raise Rejected("no such post", code="unknown_post", post=number)
    return found
