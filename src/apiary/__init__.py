"""Apiary: functions that run as transactions inside the database. User code imports this module only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from apiary.runtime.beating import beat
from apiary.runtime.declaration import App, Function
from apiary.runtime.errors import (
    Cancelled,
    Conflict,
    ConstraintViolated,
    DatabaseError,
    DeadlineExceeded,
    DeclarationError,
    Error,
    Forbidden,
    InternalError,
    KeyReused,
    Nondeterministic,
    NoSuchRow,
    NotAuthenticated,
    NotFound,
    Overloaded,
    Rejected,
    RuleBroken,
    StepFailed,
    Unavailable,
    UnknownApp,
    UnknownFunction,
    ValueOutOfRange,
    WrongArguments,
)
from apiary.runtime.result import Result, Row
from apiary.runtime.transaction import Transaction
from apiary.runtime.workflow import Future, Workflow

if TYPE_CHECKING:
    from apiary.client import Client
    from apiary.embedded import OpenApp, open
    from apiary.handle import WorkflowHandle

__version__ = "0.1.0"

__all__ = [
    "App",
    "Cancelled",
    "Client",
    "Conflict",
    "ConstraintViolated",
    "DatabaseError",
    "DeadlineExceeded",
    "DeclarationError",
    "Error",
    "Forbidden",
    "Function",
    "Future",
    "InternalError",
    "KeyReused",
    "NoSuchRow",
    "Nondeterministic",
    "NotAuthenticated",
    "NotFound",
    "OpenApp",
    "Overloaded",
    "Rejected",
    "Result",
    "Row",
    "RuleBroken",
    "StepFailed",
    "Transaction",
    "Unavailable",
    "UnknownApp",
    "UnknownFunction",
    "ValueOutOfRange",
    "Workflow",
    "WorkflowHandle",
    "WrongArguments",
    "beat",
    "open",
]

_LAZY = {
    "Client": "apiary.client",
    "OpenApp": "apiary.embedded",
    "WorkflowHandle": "apiary.handle",
    "open": "apiary.embedded",
}


def __getattr__(name: str) -> Any:
    """Import what is not needed to declare functions only when it is asked for."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'apiary' has no attribute {name!r}")
