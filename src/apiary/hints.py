"""The annotations of a function, resolved."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from apiary.runtime.declaration import FIRST, IDEMPOTENCY_KEY, Function, Kind
from apiary.runtime.errors import DeclarationError
from apiary.runtime.transaction import Transaction
from apiary.runtime.workflow import Workflow


def hints_of(function: Function[..., Any]) -> dict[str, Any]:
    """The annotations of a function. `Transaction` and `Workflow` need be imported for type checkers only."""
    body = function.body
    try:
        names = {"Transaction": Transaction, "Workflow": Workflow, **inspect.unwrap(body).__globals__}
        hints = get_type_hints(body, names, include_extras=True)
    except Exception as error:  # an annotation is an expression, which may raise anything
        raise DeclarationError(f"{function.name} has an annotation that cannot be resolved: {error}") from error
    key = hints.get(IDEMPOTENCY_KEY, str)
    if function.kind is Kind.ACTION and key is not Any and str not in (key, *get_args(key)):
        raise DeclarationError(f"{function.name} has {IDEMPOTENCY_KEY}: {key!r}, which is given to it as str")
    first = next(iter(inspect.signature(body).parameters), "")
    wanted = Workflow if function.kind is Kind.WORKFLOW else Transaction
    if function.kind is not Kind.ACTION and hints.get(first, Any) not in (wanted, Any):
        raise DeclarationError(
            f"{function.name} has {first}: {hints[first]!r} where its {wanted.__name__.lower()} is to be",
            hint=f"write `def {function.name}({FIRST[function.kind]}, {first}, …)`",
        )
    return hints


def culprit(function: Function[..., Any], hints: Mapping[str, Any], describe: Callable[[Any], object]) -> str:
    """Of the arguments and the result of a function, which is the first that cannot be described, as `name: `."""
    for name in (*function.parameters, "return"):
        try:
            describe(hints.get(name, Any))
        except Exception:  # noqa: BLE001 - an annotation is the user's
            return f"{name}: "
    return ""
