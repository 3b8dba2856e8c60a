"""A small social network: accounts, posts, people who follow each other, and a web page for all of it.

`accounts` signs users in and out, `posts` has what they write and like, `people` whom they follow;
`passwords` knows how secrets are kept, `models` what callers send and receive. The page is `web/index.html`.
"""

from . import accounts, people, posts
from .declared import app

__all__ = ["accounts", "app", "people", "posts"]
