"""The values that go in and out of nectar."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

Handle = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{2,20}$")]
Password = Annotated[SecretStr, Field(min_length=8, max_length=200)]
Token = Annotated[SecretStr, Field(max_length=200)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=280)]
Limit = Annotated[int, Field(gt=0, le=100)]


@dataclass(frozen=True)
class SignedIn:
    """A user who has signed in. `session` goes into every further call, until it expires."""

    handle: str
    session: str
    expires: datetime


@dataclass(frozen=True)
class Post:
    """One post. `liked` says whether the one who asks likes it."""

    post_id: int
    handle: str
    text: str
    at: datetime
    likes: int
    liked: bool


@dataclass(frozen=True)
class Profile:
    """One user. `followed` says whether the one who asks follows them."""

    handle: str
    joined: datetime
    posts: int
    followers: int
    following: int
    followed: bool
