"""Calls that were made before: what one that repeats an id or an idempotency key is answered with."""

from __future__ import annotations

import json

from apiary.runtime.call import DIGEST, Bound
from apiary.runtime.errors import (
    Error,
    Forbidden,
    KeyReused,
    Unavailable,
    UnknownFunction,
    WrongArguments,
    known_errors,
)
from apiary.runtime.failures import told
from apiary.runtime.ids import id_text
from apiary.runtime.plain import same_json
from apiary.runtime.session import OPEN, Call, Outcome, Record
from apiary.runtime.transaction import check_roles

REFUSALS = (WrongArguments, Forbidden, KeyReused, Unavailable, UnknownFunction)
"""With these a call may be refused before there is anything of it that could be recorded."""


def recorded_outcome(record: Record, call: Call, bound: Bound | None) -> Outcome:
    """What a repeated call is answered with: the recorded outcome, or `KeyReused` where it is another call.

    Also where this version has no such function any more (no `bound`). An open workflow is always another call: who
    repeats that joins it (`beginning.joined`). `Forbidden` for those who may not call the function, and for all but its
    own caller and the role `admin`: what it came to may depend on who called.
    """
    if bound is not None and not call.queued:
        check_roles(bound.function, call.roles)
    check_first_caller(record.caller, call)
    if record.status == OPEN or record.function != call.function or not _same_input(record, call, bound):
        raise KeyReused(
            f"the idempotency key was used for another call of {record.function}",
            first_call_id=id_text(record.id),
        )
    return replayed(record)


def check_first_caller(first: str, call: Call) -> None:
    """`Forbidden` where a call repeats the idempotency key of somebody else's."""
    if first != call.caller and "admin" not in call.roles:
        raise Forbidden(
            "the idempotency key was used by another caller", hint="use keys that nobody else chooses, such as UUIDs"
        )


def replayed(record: Record) -> Outcome:
    """The outcome that is recorded."""
    if record.error is None:
        return Outcome(record.output or b"null", replayed=record.id)
    return Outcome(error=told(json.loads(record.error)), replayed=record.id)


def is_refused(outcome: Outcome) -> bool:
    """Whether a workflow that was to be begun has not begun. A backend tells of errors by their codes only."""
    error = outcome.error
    if error is None or outcome.replayed is not None:
        return False
    kind = known_errors().get(str(error["code"]))
    return kind is not None and issubclass(kind, REFUSALS) and error["status"] == kind.status


def _same_input(record: Record, call: Call, bound: Bound | None) -> bool:
    """Whether a call repeats the recorded arguments, however they are written; `WrongArguments` where it has none.

    Secrets are not compared where the function is gone, and with it the knowledge of which they are.
    """
    recorded = json.loads(record.input)
    try:
        given = json.loads(_canonical(bound, call) if bound else call.input or b"{}")
        return same_json(recorded, given) or (bound is None and DIGEST in recorded)
    except (ValueError, RecursionError):
        if bound is not None:
            bound.codec.decode(call)
        return False


def _canonical(bound: Bound, call: Call) -> bytes:
    try:
        return bound.codec.canonical(call)
    except Error:
        raise
    except Exception:  # noqa: BLE001 - of the user's types, as when it was recorded
        return bound.codec.unread(call)
