"""What pydantic writes without a word and a result must not have: TypedDicts with holes, numbers that JSON lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, cycle, repeat
from typing import Any

from apiary.finite import Place, no_number

Schema = Mapping[str, Any]

FIELDS = ("typed-dict", "model-fields", "dataclass-args")
ITEMS = ("list", "tuple", "set", "frozenset")
ANYTHING: Schema = {"type": "any"}
MISSING = object()


class Completeness:
    """Looks for such faults in results of one type, known by its core schema; most types can have none of them."""

    def __init__(self, schema: Schema) -> None:
        every = list(schemas_in(schema))
        self._schema = schema
        self._named = {inner["ref"]: inner for inner in every if isinstance(inner.get("ref"), str)}
        self._has_keys = any(inner.get("type") == "typed-dict" for inner in every)
        self._has_numbers = any(inner.get("type") in ("float", "any") or "serialization" in inner for inner in every)

    def fault(self, value: Any, output: bytes) -> str | None:
        """The first fault of a result, with its place; `output` is what pydantic wrote.

        Unions are left to pydantic, which tries each choice, and keys that a serializer of the user's own writes are
        left to the user.
        """
        if self._has_keys:
            for place in _holes(self._schema, value, (), self._named):
                return f"{_name_of(place)} is missing"
        if self._has_numbers and (found := no_number(output)):
            place, name = found
            return f"{name} at {_name_of(place)} is no number in JSON"
        return None


def schemas_in(schema: Any) -> Iterator[Schema]:
    """A core schema, and all that are inside it."""
    if isinstance(schema, Mapping):
        yield schema
        schema = schema.values()
    elif not isinstance(schema, list | tuple):
        return
    for inner in schema:
        yield from schemas_in(inner)


def _holes(schema: Schema, value: Any, place: Place, named: Mapping[str, Schema]) -> Iterator[Place]:
    kind = schema["type"]
    if kind == "definition-ref":
        yield from _holes(named[schema["schema_ref"]], value, place, named)
    elif "serialization" not in schema:
        if kind == "typed-dict" and isinstance(value, Mapping):
            fields = schema["fields"].items()
            yield from ((*place, name) for name, field in fields if field.get("required", True) and name not in value)
        for inner, item, name in _parts(schema, value):
            yield from _holes(inner, item, place if name is None else (*place, name), named)


def _parts(schema: Schema, value: Any) -> Iterator[tuple[Schema, Any, str | int | None]]:
    """What a value of a schema is made of: schemas, values, and names. A part without a name is the value itself."""
    kind = schema["type"]
    if kind in FIELDS:
        yield from _fields(schema["fields"], value)
    elif kind in ITEMS:
        if isinstance(value, list | tuple | set | frozenset):
            yield from zip(_of_items(schema), value, count(), strict=False)
    elif kind == "dict":
        if isinstance(value, Mapping):
            values = schema.get("values_schema", ANYTHING)
            yield from ((values, item, str(name)) for name, item in value.items())
    elif inner := schema.get("schema") or schema.get("python_schema") or schema.get("strict_schema"):
        yield inner, value, None


def _of_items(schema: Schema) -> Iterable[Schema]:
    items: Any = schema.get("items_schema", ANYTHING)
    if isinstance(items, Mapping):
        return repeat(items)
    return cycle(items) if len(items) == 1 else items


def _fields(fields: Any, value: Any) -> Iterator[tuple[Schema, Any, str]]:
    for name, field in fields.items() if isinstance(fields, Mapping) else ((field["name"], field) for field in fields):
        item = value.get(name, MISSING) if isinstance(value, Mapping) else getattr(value, name, MISSING)
        if item is not MISSING:
            yield field["schema"], item, name


def _name_of(place: Place) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".") or "the top"
