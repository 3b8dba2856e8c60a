"""People: their profiles, and who follows whom."""

from apiary import Rejected, Transaction

from .accounts import signed_in
from .declared import app
from .models import Handle, Profile, Token
from .posts import NOBODY


@app.query
def profile(tx: Transaction, handle: Handle, session: Token | None = None) -> Profile:
    """One user. Needs no session."""
    return _profile(tx, signed_in(tx, session) if session else NOBODY, handle)


@app.transaction
def follow(tx: Transaction, session: Token, handle: Handle) -> Profile:
    """See the posts of a user in the timeline from now on."""
    me, other = signed_in(tx, session), _user(tx, handle)
    if me == other:
        raise Rejected("nobody follows themselves", code="yourself")
    tx.execute(
        "insert into follows (follower_id, followee_id) values (:me, :other) on conflict do nothing",
        me=me,
        other=other,
    )
    return _profile(tx, me, handle)


@app.transaction
def unfollow(tx: Transaction, session: Token, handle: Handle) -> Profile:
    """No longer see the posts of a user in the timeline."""
    me, other = signed_in(tx, session), _user(tx, handle)
    tx.execute("delete from follows where follower_id = :me and followee_id = :other", me=me, other=other)
    return _profile(tx, me, handle)


def _user(tx: Transaction, handle: str) -> int:
    user = tx.execute("select user_id from users where handle = :handle", handle=handle).scalar()
    if user is None:
        raise Rejected("no such user", code="unknown_user", handle=handle)
    return int(user)


def _profile(tx: Transaction, me: int, handle: str) -> Profile:
    """One user as `me` sees them."""
    return tx.execute(
        "select handle, joined, "
        "(select count(*) from posts where user_id = :user) as posts, "
        "(select count(*) from follows where followee_id = :user) as followers, "
        "(select count(*) from follows where follower_id = :user) as following, "
        "exists (select 1 from follows where follower_id = :me and followee_id = :user) as followed "
        "from users where user_id = :user",
        me=me,
        user=_user(tx, handle),
    ).one(Profile)
