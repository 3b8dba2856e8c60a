"""Arguments given in Python, written as the JSON that a function reads them back from: whole, secrets included.

Serializers are for results. An argument is written by its fields, under the names by which they are read.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import GeneratorType
from typing import Any

import pydantic_core
from pydantic import AliasChoices, BaseModel, RootModel, Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo

from apiary.completeness import Schema, schemas_in
from apiary.runtime.declaration import Function
from apiary.runtime.errors import WrongArguments
from apiary.runtime.result import Result, Row

SECRETS = (SecretStr, SecretBytes, Secret)
PLAIN = frozenset({str, int, float, bool, type(None)})


def write_given(function: str, arguments: Mapping[str, Any]) -> tuple[bytes, list[str]]:
    """The arguments of a call as a JSON object, and the names of those with secrets in them.

    `WrongArguments` where JSON cannot say what they are.
    """
    whole: dict[str, Any] = {}
    secret = []
    try:
        for name, value in arguments.items():
            maker = _Whole()
            whole[name] = maker.of(value)
            if maker.secrets:
                secret.append(name)
        return pydantic_core.to_json(whole, bytes_mode="base64", fallback=as_row), secret
    except (pydantic_core.PydanticSerializationError, RecursionError, ValueError) as error:
        raise WrongArguments(f"{function}: {error}") from None


def secrets_of(names: Iterable[str], arguments: Mapping[str, Any]) -> list[Any]:
    """What the secrets hide that are in the arguments of these names."""
    maker = _Whole()
    for name in names:
        with suppress(WrongArguments, ValueError):  # of a model that cannot be written, what was found before that
            maker.of(arguments.get(name))
    return maker.secrets


def given_key(key: Any) -> str | None:
    """An idempotency key, checked as over HTTP; `WrongArguments` where it is none."""
    if key is None or (isinstance(key, str) and key.isascii() and key.isprintable() and 1 <= len(key.strip()) <= 255):
        return key
    raise WrongArguments(f"an idempotency key is text of 1 to 255 printable ASCII characters, not {key!r:.50}")


def check_callable(function: Any) -> None:
    """`WrongArguments` for what is neither a function of an app nor the name of one."""
    if not isinstance(function, str | Function):
        raise WrongArguments(
            f"{function!r:.80} is no function of an app, nor the name of one",
            hint="decorate it: @app.query, @app.transaction, @app.action or @app.workflow",
        )


def has_secrets(adapter: TypeAdapter[Any]) -> bool:
    """Whether there are values in a type that pydantic hides when it writes them."""
    if '"format":"password"' in json.dumps(adapter.json_schema(), separators=(",", ":")):
        return True
    return any(_serializer(schema) in HIDERS for schema in schemas_in(adapter.core_schema))


def _serializer(schema: Schema) -> Any:
    return schema["serialization"].get("function") if "serialization" in schema else None


HIDERS = {_serializer(TypeAdapter(Secret[int]).core_schema)}
"""The function by which pydantic writes a `Secret[…]`, of which the JSON Schema does not tell."""


def as_row(value: Any) -> Any:
    """A row as a dictionary, where pydantic meets one; `TypeError` for anything else that it does not know."""
    if isinstance(value, Row):
        return dict(zip(value.keys(), value, strict=True))
    if isinstance(value, Result):
        raise TypeError("a Result has no JSON form: return its rows, by all(), one(), first() or scalars()")
    raise TypeError(f"a {type(value).__name__} has no JSON form")


class _Whole:
    """Makes one argument whole: the fields of models for models, what they hide for secrets, which it collects."""

    def __init__(self) -> None:
        self.secrets: list[Any] = []

    def of(self, value: Any, mode: str = "base64") -> Any:
        """The value as it is to be written. `mode` is how the type around it reads bytes."""
        if type(value) in PLAIN:
            return value
        if isinstance(value, bytes):
            return value if mode == "base64" else value.hex() if mode == "hex" else value.decode()
        if isinstance(value, SECRETS):
            self.secrets.append(value.get_secret_value())
            return self.of(self.secrets[-1], mode)
        if isinstance(value, Row):
            value = as_row(value)
        if isinstance(value, dict):
            return {self._name(name, mode): self.of(item, mode) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset | deque | GeneratorType):
            return [self.of(item, mode) for item in value]
        if isinstance(value, type) or not (isinstance(value, BaseModel) or dataclasses.is_dataclass(value)):
            return value
        return self._of_record(value, mode)

    def _name(self, name: Any, mode: str) -> Any:
        return self.of(name, mode) if isinstance(name, SECRETS) else name

    def _of_record(self, value: Any, mode: str) -> Any:
        if isinstance(value, BaseModel):
            mode = value.model_config.get("val_json_bytes", "utf8")
            if isinstance(value, RootModel):
                return self.of(value.root, mode)
            fields = {**_by_alias(value, type(value).model_fields), **(value.model_extra or {})}
        elif is_pydantic_dataclass(type(value)):
            mode = value.__pydantic_config__.get("val_json_bytes", "utf8")
            fields = _by_alias(value, value.__pydantic_fields__)
        else:
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return self.of(fields, mode)


def _by_alias(value: Any, fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """The fields of a model under the names by which they are read."""
    written = {}
    for name, field in fields.items():
        alias = field.validation_alias or field.alias or name
        if isinstance(alias, AliasChoices):
            alias = next((choice for choice in alias.choices if isinstance(choice, str)), alias)
        if not isinstance(alias, str):
            raise WrongArguments(f"{type(value).__name__}.{name} is read from {alias}, and cannot be written there")
        written[alias] = getattr(value, name)
    return written
