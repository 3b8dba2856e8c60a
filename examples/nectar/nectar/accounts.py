"""Accounts: registering, signing in and out.

Secrets are `SecretStr`, which pydantic prints as asterisks. Checking a password inside the transaction
holds up other writers for some 40 ms: right for a small network, and simple.
"""

import secrets
from datetime import timedelta

from apiary import Rejected, Transaction

from .declared import app
from .models import Handle, Password, SignedIn, Token
from .passwords import NOBODYS_PASSWORD, hash_password, hash_token, matches

SESSION = timedelta(days=14)


@app.transaction
def register(tx: Transaction, handle: Handle, password: Password) -> SignedIn:
    """Open an account, and sign in."""
    new = tx.execute(
        "insert into users (handle, password, joined) values (:handle, :password, :now) "
        "on conflict (handle) do nothing returning user_id",
        handle=handle,
        password=hash_password(password.get_secret_value()),
        now=tx.now,
    ).first()
    if new is None:
        raise Rejected("this handle is taken", code="handle_taken", handle=handle)
    return _sign_in(tx, new.user_id, handle)


@app.transaction
def login(tx: Transaction, handle: Handle, password: Password) -> SignedIn:
    """Sign in."""
    user = tx.execute("select user_id, password from users where handle = :handle", handle=handle).first()
    right = matches(password.get_secret_value(), user.password if user else NOBODYS_PASSWORD)
    if user is None or not right:
        raise Rejected("the handle or the password is wrong", code="wrong_login")
    return _sign_in(tx, user.user_id, handle)


@app.transaction
def logout(tx: Transaction, session: Token) -> None:
    """End a session. One that has ended already is no error."""
    tx.execute("delete from sessions where token_hash = :hash", hash=hash_token(session.get_secret_value()))


@app.query
def whoami(tx: Transaction, session: Token) -> str:
    """The handle of the user whose session this is."""
    return str(tx.execute("select handle from users where user_id = :user", user=signed_in(tx, session)).scalar())


def signed_in(tx: Transaction, session: Token) -> int:
    """The id of the user whose session this is; anyone else is refused."""
    user = tx.execute(
        "select user_id from sessions where token_hash = :hash and expires > :now",
        hash=hash_token(session.get_secret_value()),
        now=tx.now,
    ).scalar()
    if user is None:
        raise Rejected("sign in first: the session has ended or never was", code="signed_out")
    return int(user)


def _sign_in(tx: Transaction, user: int, handle: str) -> SignedIn:
    tx.execute("delete from sessions where user_id = :user and expires <= :now", user=user, now=tx.now)
    token, expires = secrets.token_urlsafe(32), tx.now + SESSION
    tx.execute(
        "insert into sessions (token_hash, user_id, expires) values (:hash, :user, :expires)",
        hash=hash_token(token),
        user=user,
        expires=expires,
    )
    return SignedIn(handle, token, expires)
