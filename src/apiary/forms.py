"""Forms: which arguments and results a database has types of its own for, read from pydantic's core schemas.

A form is a scalar (`int`, `str`, …), many of one (`int[]`), `none` (a result that is always None), or `json`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic_core
from pydantic import TypeAdapter

from apiary.completeness import Schema

JSON = "json"
NONE = "none"
MANY = "[]"
SCALARS = frozenset(
    {"int", "float", "str", "bool", "bytes", "decimal", "uuid", "date", "time", "datetime", "timedelta"}
)
NAIVE = "naive-datetime"
"""The form of a datetime that has to be without a time zone."""
INSIDE = {
    "nullable": "schema",
    "default": "schema",
    "definitions": "schema",
    "function-after": "schema",
    "function-before": "schema",
    "function-wrap": "schema",
    "lax-or-strict": "strict_schema",
    "json-or-python": "json_schema",
}
"""Schemas that say more about the values of another one: where that is."""
SEVERAL = frozenset({"list", "set", "frozenset"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function. `optional`: it has a default, which is `constant` (in JSON's types).

    Where that is None, the default is None itself, or one that JSON cannot say: it is left to the function.
    """

    name: str
    form: str
    optional: bool = False
    constant: Any = None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and returns, in forms."""

    parameters: tuple[Parameter, ...]
    result: str


def read_signature(found: Mapping[str, Any]) -> Signature:
    """A signature that was written as JSON (`dataclasses.asdict`)."""
    return Signature(tuple(Parameter(**parameter) for parameter in found["parameters"]), found["result"])


def signature_of(
    parameters: Mapping[str, inspect.Parameter],
    arguments: Schema,
    result: Schema,
    adapter: Callable[[str], TypeAdapter[Any]],
) -> Signature:
    """The signature of a function, from the core schemas of its arguments (a TypedDict) and its result.

    `adapter` gives that of a parameter, by its name.
    """

    def default(name: str) -> tuple[bool, Any]:
        value = parameters[name].default
        return (False, None) if value is inspect.Parameter.empty else (True, _constant(value, adapter(name)))

    forms = _forms_of_fields(arguments)
    found = [Parameter(name, form, *default(name)) for name, form in forms.items()]
    return Signature(tuple(found), _form(result, _named(result), written=True) or JSON)


def _constant(value: Any, adapter: TypeAdapter[Any]) -> Any:
    """A default in JSON's types, where they say exactly that."""
    try:
        written = pydantic_core.to_json(value, bytes_mode="base64")
        read = adapter.validate_json(written, strict=True)
        return json.loads(written) if type(read) is type(value) and bool(read == value) else None
    except Exception:  # noqa: BLE001 - of the user's types
        return None


def _forms_of_fields(schema: Schema) -> dict[str, str]:
    """The forms of the fields of a TypedDict, as they are read from JSON."""
    named = _named(schema)
    while schema["type"] != "typed-dict":
        schema = named[schema["schema_ref"]] if schema["type"] == "definition-ref" else schema["schema"]
    found = {name: _form(field["schema"], named, written=False) for name, field in schema["fields"].items()}
    return {name: JSON if form in (None, NONE) else form for name, form in found.items()}


def _named(schema: Schema) -> dict[str, Schema]:
    return {inner["ref"]: inner for inner in schema.get("definitions", ())}


def _form(schema: Schema, named: Mapping[str, Schema], *, written: bool) -> str | None:
    kind = schema["type"]
    if written and "serialization" in schema:
        return None
    if kind == "definition-ref":
        return _form(named[schema["schema_ref"]], named, written=written)
    if kind in INSIDE:
        return _form(schema[INSIDE[kind]], named, written=written)
    if kind == "datetime" and schema.get("tz_constraint") == "naive":
        return NAIVE
    if kind in SCALARS or kind == NONE:
        return str(kind)
    if kind in ("literal", "enum"):
        values = schema["expected"] if kind == "literal" else [member.value for member in schema["members"]]
        return _form_of_values([value for value in values if value is not None])
    item = _item(schema)
    form = None if item is None else _form(item, named, written=written)
    return form + MANY if form is not None and form != NONE and not form.endswith(MANY) else None


def _form_of_values(values: list[Any]) -> str | None:
    """The form of values that are named one by one: text, or integers."""
    kinds = {"str" if isinstance(value, str) else type(value).__name__ for value in values}
    return kinds.pop() if kinds in ({"str"}, {"int"}) else None


def _item(schema: Schema) -> Schema | None:
    """The schema of the items, where there may be any number of them and all have the same."""
    if schema["type"] in SEVERAL:
        item: Schema | None = schema.get("items_schema")
        return item
    if schema["type"] == "tuple" and schema.get("variadic_item_index") == 0 and len(schema["items_schema"]) == 1:
        return dict(schema["items_schema"][0])
    return None
