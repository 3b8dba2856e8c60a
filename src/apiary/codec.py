"""Types at the border: JSON to arguments, results to JSON, rows to values, and the schemas of all of them (pydantic).

A body must fit strictly (`"7"` is no integer); a query string is text, so its values are converted.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import operator
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache, partial
from types import UnionType
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin, get_type_hints

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs
from typing_extensions import TypeAliasType, TypedDict

from apiary.completeness import Completeness
from apiary.decimals import has_decimals, rounded
from apiary.finite import no_number
from apiary.forms import Signature, signature_of
from apiary.given import as_row, has_secrets, secrets_of, write_given
from apiary.hints import culprit, hints_of
from apiary.recorded import RecordedArguments
from apiary.runtime.call import Bound, Program
from apiary.runtime.declaration import App, Function
from apiary.runtime.errors import DeclarationError, InternalError, PayloadTooLarge, WrongArguments
from apiary.runtime.result import Row
from apiary.runtime.session import Call

CONFIG = ConfigDict(
    extra="forbid",
    ser_json_bytes="base64",
    val_json_bytes="base64",
    arbitrary_types_allowed=False,
    allow_inf_nan=False,
)
RESULT_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
MAX_ERRORS_SHOWN = 20
MAX_NUMBER_SHOWN = 30
MAX_RESULT_BYTES = 16 * 1024 * 1024
ADVICE = re.compile(r"\.? Set `arbitrary_types_allowed|\n")  # of pydantic, to do what is not possible here
EXACT = {"int": int, "str": str, "bool": bool, "none": type(None)}
"""Types whose own values need no look: to ask pydantic for its warnings costs ten times as much as to write one."""


class FunctionCodec:
    """The codec of one function, made from its signature."""

    def __init__(self, function: Function[..., Any]) -> None:
        self.function = function
        self._hints = hints_of(function)
        names = self._names = list(function.parameters)
        try:
            arguments = _arguments_type(function, self._hints)
            self._arguments: TypeAdapter[Any] = TypeAdapter(arguments)
            result = self._hints.get("return", Any)
            self._result: TypeAdapter[Any] = _adapter(result)
            self._result.json_schema(mode="serialization")  # deploy writes it down
            self._secret = frozenset(name for name in names if has_secrets(_adapter(self._hints.get(name, Any))))
            self.has_secrets, self.secrets = bool(self._secret), partial(secrets_of, self._secret)
            self.visible: Sequence[str] | None = sorted(set(names) - self._secret) if self._secret else None
            """The arguments of which the log shows more than stars; `None`: all."""
            self._recorded = RecordedArguments(_configured(arguments), self._secret)
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError) as error:
            odd = culprit(function, self._hints, lambda hint: _adapter(hint).json_schema())
            raise DeclarationError(
                f"{function.name} uses a type that does not travel as JSON: {odd}{ADVICE.split(error.message)[0]}",
                hint="arguments and results are what pydantic can describe: int, str, datetime, dataclasses, models, …",
            ) from error
        self._has_decimals = has_decimals(self._arguments.core_schema)
        self._validate_json = self._arguments.validator.validate_json
        self._dump = self._result.serializer.to_json
        self._completeness = Completeness(self._result.core_schema)
        self._none = _takes_none(self._result)
        schema = self._result.core_schema
        self._exact = EXACT.get(schema["type"]) if "serialization" not in schema else None

    def decode(self, call: Call) -> dict[str, Any]:
        """The arguments of a call by name; those that are not given are left to the function's defaults."""
        try:
            if call.lax:
                return self._decode_text(json.loads(call.input))
            return self._read(call.input or b"{}", strict=True)
        except ValidationError as error:
            raise self._refusal(error) from None

    def _decode_text(self, texts: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments from a query string: scalars and lists of scalars as text, anything else as JSON text."""
        values = _texts(texts, self._hints)
        try:
            return self._read(json.dumps(values).encode(), strict=False)
        except ValidationError:
            read = {name: _read_json(value) for name, value in values.items()}
            if read == values:
                raise
            return self._read(json.dumps(read).encode(), strict=False)

    def _read(self, body: bytes, *, strict: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = self._validate_json(body, strict=strict)
        found, fault = no_number(body), "is no number in JSON, or out of range"
        if found is None and self._has_decimals:
            found, fault = rounded(body, arguments), "has more digits than a number in JSON keeps; write it as text"
        if found is None:
            return arguments
        place, name = ".".join(map(str, found[0])), found[1]
        message = f"{name[:MAX_NUMBER_SHOWN]} {fault}"
        raise WrongArguments(
            f"{self.function.name}: {place}: {message}", errors=[{"argument": place, "message": message}]
        )

    def canonical(self, call: Call) -> bytes:
        """The input as the log keeps it: the body as it came, a query string as the arguments that it meant.

        Where an argument is secret (`pydantic.SecretStr`), the arguments are written again, with stars for it.
        """
        if not call.lax and not self._secret:
            return call.input or b"{}"
        came = json.loads(call.input or b"{}")
        return self._recorded.write(call, self.decode(call), _texts(came, self._hints) if call.lax else came)

    def unread(self, call: Call) -> bytes:
        return self._recorded.unread(call.input)

    def digest(self, call: Call) -> str | None:
        return self._recorded.digest(call)

    def encode(self, result: Any) -> bytes:
        """The result as JSON; `InternalError` where it is not what the signature says, or is too large to travel."""
        if result is None and not self._none:
            raise InternalError(f"{self.function.name} returned None, which it does not declare")
        output = self._written(result)
        if len(output) > MAX_RESULT_BYTES:
            raise PayloadTooLarge(
                f"the result of {self.function.name} has {len(output)} bytes; {MAX_RESULT_BYTES} are the most",
                hint="return it in pages",
            )
        return output

    def _written(self, result: Any) -> bytes:
        try:
            if type(result) is self._exact:
                return self._dump(result)
            try:
                output = self._dump(result, by_alias=True, warnings="error", fallback=as_row)
            except pydantic_core.PydanticSerializationError:
                plain = _without_rows(result)
                if plain is result:
                    raise
                result = plain
                output = self._dump(result, by_alias=True, warnings="error", fallback=as_row)
        except pydantic_core.PydanticSerializationError as error:
            raise InternalError(f"{self.function.name} returned what it does not declare: {error}") from error
        fault = self._completeness.fault(result, output)
        if fault is not None:
            raise InternalError(f"{self.function.name} returned what it does not declare: {fault}")
        return output

    def encode_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Python arguments as the JSON object of a call; `WrongArguments` where they do not fit."""
        if len(args) > len(self._names):
            raise WrongArguments(f"{self.function.name} takes {len(self._names)} arguments, {len(args)} were given")
        given = dict(zip(self._names, args, strict=False))
        twice = given.keys() & kwargs.keys()
        if twice:
            raise WrongArguments(f"{self.function.name} got the argument {min(twice)} twice")
        given.update(kwargs)
        encoded, secret = write_given(self.function.name, given)
        try:
            self._read(encoded, strict=True)
        except ValidationError as error:
            raise self._refusal(error) from None
        for name in secret:
            if name not in self._secret:
                raise WrongArguments(
                    f"{self.function.name}: {name} was given a secret, and the log would show it",
                    hint=f"declare the argument as SecretStr, or give the text itself: {name}.get_secret_value()",
                )
        return encoded

    def decode_result(self, output: bytes) -> Any:
        """A result from its JSON, as a value of the type that the function declares."""
        try:
            return self._result.validate_json(output)
        except ValidationError as error:
            raise InternalError(
                f"the call was kept, but its result is none that {self.function.name} declares: {error}"
            ) from error

    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of the arguments, with defaults."""
        schema = self._arguments.json_schema(mode="validation", ref_template="#/components/schemas/{model}")
        for name, parameter in self.function.parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                with suppress(pydantic_core.PydanticSerializationError):  # a default that JSON cannot say
                    adapter = _adapter(self._hints.get(name, Any))
                    default = adapter.dump_python(parameter.default, mode="json", by_alias=True, warnings=False)
                    schema["properties"][name]["default"] = default
        schema["title"] = f"{self.function.name} arguments"
        return schema

    def output_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of the result."""
        hint: Any = self._hints.get("return", Any)
        many: TypeAdapter[Any] = TypeAdapter(list[hint], config=RESULT_CONFIG)
        schema = many.json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        shared = {"$defs": schema["$defs"]} if "$defs" in schema else {}
        return {**schema["items"], **shared}

    def signature(self) -> Signature:
        """What the function takes and returns, as a database may know it."""
        schemas = self._arguments.core_schema, self._result.core_schema
        return signature_of(self.function.parameters, *schemas, lambda name: _adapter(self._hints.get(name, Any)))

    def _refusal(self, error: ValidationError) -> WrongArguments:
        """A refusal that names each argument that is wrong, what it was to be, and the nearest name."""
        errors = [
            {
                "argument": ".".join(str(part) for part in item["loc"]),
                "message": self._explain(item),
            }
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_ERRORS_SHOWN]
        ]
        first = errors[0]
        place = f"{first['argument']}: " if first["argument"] else ""
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return WrongArguments(
            f"{self.function.name}: {place}{first['message']}{more}",
            hint=f"the function is {self.function.name}({self._signature()})",
            errors=errors,
        )

    def _signature(self) -> str:
        """The parameters as a reader of the function's source knows them, without annotations' metadata."""
        parameters = []
        for name, parameter in self.function.parameters.items():
            hint = get_type_hints(self.function.body).get(name, Any)
            shown = hint.__name__ if isinstance(hint, type) and not get_origin(hint) else str(hint)
            text = f"{name}: {shown.replace('typing.', '')}"
            given = parameter.default is not inspect.Parameter.empty
            parameters.append(f"{text} = {parameter.default!r}" if given else text)
        return ", ".join(parameters)

    def _explain(self, item: Any) -> str:
        message: str = item["msg"]
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            near = get_close_matches(str(item["loc"][0]), self._names, 1)
            return "there is no such argument" + (f"; did you mean {near[0]!r}?" if near else "")
        if item["type"] == "missing" and len(item["loc"]) == 1:
            return "this argument is missing"
        return message[:1].lower() + message[1:]


def compile_program(app: App, version: str) -> Program:
    """The program of an app: every function with its codec. `DeclarationError` where a type cannot travel."""
    functions = {name: Bound(f, FunctionCodec(f)) for name, f in app.functions.items()}
    return Program(app.name, version, functions, pydantic_core.to_json, app.queues)


def convert_rows(kind: type[Any], names: Sequence[str], rows: list[tuple[Any, ...]]) -> list[Any]:
    """Rows as values of a type: records by the names of the columns, other types from the only column."""
    reader = _row_reader(kind)  # type: ignore[arg-type]
    if reader.positional == names:
        return reader.adapter.validate_python([ArgsKwargs(row) for row in rows])
    if reader.is_record:
        return reader.adapter.validate_python([dict(zip(names, row)) for row in rows])  # noqa: B905 - both are columns
    if len(names) != 1:
        raise InternalError(f"a row of {len(names)} columns is no {kind!r}", hint="ask for a record, or one column")
    return reader.adapter.validate_python([row[0] for row in rows])


class _RowReader:
    """How rows become values of a type. `positional`: the columns that a dataclass takes in this very order."""

    def __init__(self, kind: Any) -> None:
        origin = get_origin(kind) or kind
        fields = dataclasses.fields(origin) if dataclasses.is_dataclass(origin) else ()
        self.adapter: TypeAdapter[list[Any]] = TypeAdapter(list[kind])
        self.positional = tuple(field.name for field in fields) if all(f.init and not f.kw_only for f in fields) else ()
        self.is_record = (
            bool(fields)
            or (isinstance(origin, type) and issubclass(origin, BaseModel | dict))
            or hasattr(origin, "__total__")
            or hasattr(origin, "_fields")
        )


@lru_cache(maxsize=1024)
def _row_reader(kind: Any) -> _RowReader:
    return _RowReader(kind)


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """An adapter with our way of writing bytes, where the type does not bring its own configuration."""
    try:
        return TypeAdapter(kind, config=RESULT_CONFIG)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return TypeAdapter(kind)
    return _configured(kind)


def _configured(kind: Any) -> TypeAdapter[Any]:
    """An adapter whose configuration is ours also where the type is a dataclass or a TypedDict."""
    alias: Any = TypeAliasType("Result", kind)
    return TypeAdapter(alias, config=RESULT_CONFIG)


def _arguments_type(function: Function[..., Any], hints: Mapping[str, Any]) -> Any:
    """The arguments as a TypedDict, so that any parameter name will do and defaults stay the function's own."""
    fields: dict[str, Any] = {}
    for name, parameter in function.parameters.items():
        if isinstance(parameter.default, FieldInfo):
            raise DeclarationError(
                f"{function.name} has {name} = Field(…), which would be its value",
                hint=f"write {name}: Annotated[…, Field(…)], and the default as a default",
            )
        _check_default(function.name, parameter, hints.get(name, Any))
        hint = _bounded(hints.get(name, Any))
        fields[name] = hint if parameter.default is inspect.Parameter.empty else NotRequired[hint]
    arguments = TypedDict(f"{function.name}_arguments", fields)  # type: ignore[misc]
    arguments.__pydantic_config__ = CONFIG  # type: ignore[attr-defined]
    return arguments


def _check_default(function: str, parameter: inspect.Parameter, hint: Any) -> None:
    """`DeclarationError` where a default is text or a number and not of its type. Other things may say `not given`."""
    if not isinstance(parameter.default, str | int | float):
        return
    try:
        _adapter(hint).validate_python(parameter.default)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise DeclarationError(f"{function} has a default that its {parameter.name} cannot have: {reason}") from None


def _bounded(hint: Any) -> Any:
    """Plain integers are limited to the 64 bits that databases have, so that one too large is refused early."""
    if hint is int:
        return Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
    return hint


def _takes_none(adapter: TypeAdapter[Any]) -> bool:
    """Whether None is a value of the type. Pydantic writes None for any type, because it so often is a default."""
    try:
        adapter.validate_python(None)
    except ValidationError:
        return False
    except Exception:  # noqa: BLE001 - of the user's validators
        return True
    return True


def _is_many(hint: Any) -> bool:
    """Whether a parameter takes several values, each named in a query string: `list[int]`, `list[int] | None`."""
    origin = get_origin(hint)
    if origin in (Annotated, Union, UnionType):
        return any(_is_many(part) for part in get_args(hint))
    return (origin or hint) in (list, tuple, set, frozenset)


def _texts(given: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of a query string: one for each parameter, but where it takes several."""
    return {name: texts if _is_many(hints.get(name)) else texts[-1] for name, texts in given.items()}


def _read_json(value: Any) -> Any:
    """Text that looks like JSON as what it means; a list of one such text, too."""
    if isinstance(value, list) and len(value) == 1:
        read = _read_json(value[0])
        return value if read is value[0] else read
    if isinstance(value, str) and (value[:1] in ("{", "[") or value == "null"):
        with suppress(ValueError, RecursionError):
            return pydantic_core.from_json(value)
    return value


def _without_rows(value: Any) -> Any:
    """The value with rows as dictionaries; the same value where it holds none."""
    if isinstance(value, Row):
        return as_row(value)
    if isinstance(value, list):
        items = [_without_rows(item) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    if isinstance(value, dict):
        named = {name: _without_rows(item) for name, item in value.items()}
        return value if all(map(operator.is_, named.values(), value.values())) else named
    return value
