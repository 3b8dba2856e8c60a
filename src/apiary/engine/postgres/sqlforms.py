"""Forms as types of SQL: how a value of a call goes from SQL into its JSON, and from its result's JSON into SQL."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pydantic_core
from pydantic import TypeAdapter

from apiary.engine.postgres.types import INTERVAL
from apiary.engine.postgres.values import READERS, as_array, parameter
from apiary.forms import JSON, MANY, NAIVE, NONE, Parameter
from apiary.runtime.errors import ValueOutOfRange, WrongArguments

TYPES = {
    "int": "bigint",
    "float": "double precision",
    "str": "text",
    "bool": "boolean",
    "bytes": "bytea",
    "decimal": "numeric",
    "uuid": "uuid",
    "date": "date",
    "time": "time without time zone",
    "datetime": "timestamp with time zone",
    NAIVE: "timestamp without time zone",
    "timedelta": "interval",
    JSON: "jsonb",
    NONE: "void",
}
"""The types of scalars, as PostgreSQL itself calls them."""

PLAIN = frozenset({"int", "float", "bool", JSON})
"""What JSON and SQL write in the same way."""

_spans: TypeAdapter[timedelta] = TypeAdapter(timedelta)

Mend = Callable[[Any], Any]


def sql_type(form: str) -> str:
    """The type of a form, as PostgreSQL itself writes it."""
    return TYPES[form.removesuffix(MANY)] + MANY * form.endswith(MANY)


def sql_argument(form: str, position: int) -> str:
    """The expression that makes JSON of a parameter; PostgreSQL writes numbers so that JSON would lose digits."""
    exact = form.removesuffix(MANY) == "decimal"
    return f"${position}" + f"::text{MANY * form.endswith(MANY)}" * exact


def mend_argument(given: Parameter) -> Mend | None:
    """What makes the codec's JSON of a parameter's, where PostgreSQL writes it in another way."""
    mend = {"timedelta": _span_from_sql, "bytes": _bytes_from_sql}.get(given.form.removesuffix(MANY))
    if mend is None or not given.form.endswith(MANY):
        return mend
    return lambda values: values and [value if value is None else mend(value) for value in values]


def sql_text(form: str, output: bytes) -> str | None:
    """A result, or a constant, as text that PostgreSQL reads as its type; `output` is JSON."""
    if output == b"null":
        return None
    text = output.decode()
    if form not in PLAIN:
        value = json.loads(output)
        text = (
            as_array([_text(form[: -len(MANY)], item) for item in value]) if form.endswith(MANY) else _text(form, value)
        )
    if "\0" in text or (form == JSON and "\\u0000" in text):
        raise ValueOutOfRange("the database cannot hold text with a NUL character")
    return text


def _text(form: str, value: Any) -> Any:
    if form == "timedelta" and value is not None:
        return parameter(_spans.validate_python(value))
    if form == "bytes" and value is not None:
        return parameter(base64.urlsafe_b64decode(value))
    return parameter(value)


def _span_from_sql(text: str) -> Any:
    try:
        return pydantic_core.to_jsonable_python(READERS[INTERVAL](text))
    except (ValueError, OverflowError):
        raise WrongArguments(f"{text!r} is a time that Python cannot hold") from None


def _bytes_from_sql(text: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(text[2:])).decode()
