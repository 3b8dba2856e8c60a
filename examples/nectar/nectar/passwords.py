"""How secrets are kept: passwords with scrypt, session tokens with SHA-256 (they are long and random)."""

import hashlib
import hmac
import secrets

N, R, P = 2**14, 8, 1  # 16 MiB and some 40 ms for one password


def hash_password(password: str) -> str:
    """What the database keeps of a password: the parameters of scrypt, the salt, the hash."""
    salt = secrets.token_bytes(16)
    return f"scrypt:{N}:{R}:{P}:{salt.hex()}:{_scrypt(password, salt, N, R, P).hex()}"


def matches(password: str, kept: str) -> bool:
    """Whether `kept` was made of this password. Takes equally long either way."""
    _, n, r, p, salt, expected = kept.split(":")
    found = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(expected))


def hash_token(token: str) -> str:
    """What the database keeps of a session token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=32)


NOBODYS_PASSWORD = hash_password(secrets.token_urlsafe())
"""Compared with when the handle is unknown, so that the time of an answer does not tell which handles exist."""
