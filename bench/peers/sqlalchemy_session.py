"""The engine of `sqlalchemy_app.py`, and its transactions, which are run again when they conflict."""

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from fastapi import HTTPException
from psycopg.errors import DeadlockDetected, SerializationFailure
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

CONFLICTS = (SerializationFailure, DeadlockDetected)
DEADLINE_SECONDS = 10.0
BACKOFF_FIRST_SECONDS = 0.001
BACKOFF_LAST_SECONDS = 0.05

T = TypeVar("T")

SIZE = int(os.environ["BENCH_POOL_SIZE"])
ENGINE = create_engine(
    os.environ["BENCH_DSN"].replace("postgresql:", "postgresql+psycopg:", 1),
    isolation_level="SERIALIZABLE",
    pool_size=SIZE,
    max_overflow=0,
)


def transact(work: Callable[[Session], T]) -> T:
    """Run the work in a session and commit it, again with jittered backoff when it conflicts with another."""
    deadline, backoff = time.monotonic() + DEADLINE_SECONDS, BACKOFF_FIRST_SECONDS
    while True:
        try:
            with Session(ENGINE) as session, session.begin():
                return work(session)
        except DBAPIError as error:
            if not isinstance(error.orig, CONFLICTS):
                raise
            if time.monotonic() > deadline:
                raise HTTPException(503, "too many conflicts") from None
        time.sleep(random.uniform(0, backoff))
        backoff = min(2 * backoff, BACKOFF_LAST_SECONDS)
