"""Types at the border: what goes in comes out, and what does not fit is refused with its name."""

import dataclasses
import enum
import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, Required
from uuid import UUID, uuid4

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SecretStr
from pydantic_core import core_schema
from typing_extensions import TypedDict

from apiary import App, InternalError, Transaction, WrongArguments
from apiary.codec import FunctionCodec, convert_rows
from apiary.runtime.errors import DeclarationError
from apiary.runtime.result import Shape
from apiary.runtime.session import Call


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    BIG = 2


class Inner(BaseModel):
    at: datetime
    tags: set[str] = set()


class Model(BaseModel):
    id: UUID
    inner: Inner | None = None
    amounts: list[Decimal] = []


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    size: int = Field(1, alias="theSize")


class Base64Model(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    content: bytes


@dataclasses.dataclass
class Data:
    name: str
    content: bytes = b""
    sizes: dict[str, Size] = dataclasses.field(default_factory=dict)


class Typed(TypedDict):
    when: date
    content: bytes
    colour: Colour


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Point(NamedTuple):
    x: int
    y: float


instants = st.datetimes(timezones=st.just(UTC))
floats = st.floats(allow_nan=False, allow_infinity=False)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
inners = st.builds(Inner, at=instants, tags=st.sets(texts, max_size=3))
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int": (int, st.integers(-(2**63), 2**63 - 1)),
    "float": (float, floats),
    "bool": (bool, st.booleans()),
    "str": (str, texts),
    "bytes": (bytes, st.binary()),
    "datetime": (datetime, instants | st.datetimes()),
    "date": (date, st.dates()),
    "time": (time, st.times()),
    "timedelta": (timedelta, st.timedeltas(timedelta(-10000), timedelta(10000))),
    "decimal": (Decimal, decimals),
    "uuid": (UUID, st.uuids()),
    "enum": (Colour, st.sampled_from(Colour)),
    "int enum": (Size, st.sampled_from(Size)),
    "literal": (Literal["a", 1], st.sampled_from(["a", 1])),
    "optional": (Optional[int], st.none() | st.integers(-5, 5)),  # noqa: UP045
    "union": (int | str | None, st.none() | st.integers(-5, 5) | texts),
    "list": (list[Decimal], st.lists(decimals, max_size=5)),
    "dict": (dict[str, bytes], st.dictionaries(texts, st.binary(), max_size=5)),
    "dict of ints": (dict[int, date], st.dictionaries(st.integers(0, 9), st.dates(), max_size=5)),
    "set": (set[date], st.sets(st.dates(), max_size=5)),
    "frozen set": (frozenset[int], st.frozensets(st.integers(0, 99), max_size=5)),
    "tuple": (tuple[int, str], st.tuples(st.integers(0, 5), texts)),
    "many": (tuple[int, ...], st.lists(st.integers(0, 5)).map(tuple)),
    "model": (Model, st.builds(Model, id=st.uuids(), inner=st.none() | inners, amounts=st.lists(decimals, max_size=3))),
    "aliased": (Aliased, st.builds(lambda size: Aliased(size=size), st.integers(0, 99))),
    "model with bytes": (Base64Model, st.builds(Base64Model, content=st.binary())),
    "dataclass": (
        Data,
        st.builds(Data, name=texts, content=st.binary(), sizes=st.dictionaries(texts, st.sampled_from(Size))),
    ),
    "typed dict": (
        Typed,
        st.fixed_dictionaries({"when": st.dates(), "content": st.binary(), "colour": st.sampled_from(Colour)}),
    ),
    "list of dataclasses": (list[Data], st.lists(st.builds(Data, name=texts, content=st.binary()), max_size=3)),
    "optional dataclass": (Data | None, st.none() | st.builds(Data, name=texts, content=st.binary())),
    "named tuple": (Point, st.builds(Point, st.integers(0, 9), floats)),
    "recursive": (
        Node,
        st.recursive(
            st.builds(Node, value=st.integers(0, 9)),
            lambda inner: st.builds(Node, value=st.integers(0, 9), children=st.lists(inner, max_size=3)),
            max_leaves=10,
        ),
    ),
    "anything": (
        Any,
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        ),
    ),
}


def codec_of(body, kind="query") -> FunctionCodec:
    return FunctionCodec(getattr(App("codec"), kind)(body))


def codec_for(kind: Any) -> FunctionCodec:
    def echo(tx: Transaction, value: kind) -> kind: ...

    return codec_of(echo)


CODECS = {name: codec_for(kind) for name, (kind, _) in KINDS.items()}


def decode(codec: FunctionCodec, body: str | bytes, lax: bool = False) -> dict[str, Any]:
    return codec.decode(Call(b"", "f", body.encode() if isinstance(body, str) else body, lax=lax))


@pytest.mark.parametrize("name", KINDS)
def test_any_value_goes_in_and_out_as_it_is(name):
    codec, (_, values) = CODECS[name], KINDS[name]
    input_schema = jsonschema_rs.validator_for(inline(codec.input_schema()))
    output_schema = jsonschema_rs.validator_for(inline(codec.output_schema()))

    @settings(max_examples=30, deadline=None)
    @given(values)
    def check(value):
        body = codec.encode_arguments((value,), {})
        assert decode(codec, body) == {"value": value}
        assert codec.encode_arguments((), {"value": value}) == body
        result = codec.encode(value)
        assert codec.decode_result(result) == value
        input_schema.validate(json.loads(body))
        output_schema.validate(json.loads(result))

    check()


def inline(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its references where a validator looks for them, checked to be JSON Schema 2020-12."""
    text = json.dumps(schema).replace("#/components/schemas/", "#/$defs/")
    made: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(text)}
    jsonschema_rs.meta.validate(made)
    return made


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("int", ['"7"', "7.5", "true", "null", str(2**63), str(-(2**63) - 1), "[]", "1e400"]),
        ("float", ['"7"', "true", "NaN", "Infinity"]),
        ("bool", ["1", '"true"', "null"]),
        ("str", ["1", "null", "[]"]),
        ("bytes", ['"%%"', "1"]),
        ("datetime", ['"soon"', "true", "[]"]),
        ("date", ['"2026-02-30"']),
        ("decimal", ['"x"', "true", '"NaN"']),
        ("uuid", ['"x"', "1"]),
        ("enum", ['"RED"', '"green"']),
        ("int enum", ["3", '"SMALL"']),
        ("optional", ['"1"']),
        ("list", ["{}", "null", '["x"]']),
        ("model", ["{}", "[]", '{"id": 1}']),
        ("dataclass", ['{"name": 1}', '{"name": "x", "more": 1}', '["x"]']),
        ("typed dict", ['{"when": "2026-01-01"}', "null"]),
        ("tuple", ["[1]", '[1, "a", 2]', '["a", 1]']),
    ],
)
def test_what_does_not_fit_is_refused_by_name(kind, wrong):
    for value in wrong:
        with pytest.raises(WrongArguments) as raised:
            decode(CODECS[kind], f'{{"value": {value}}}')
        assert raised.value.message.startswith("echo: value")
        assert all(error["argument"].startswith("value") for error in raised.value.details["errors"])
        assert raised.value.hint.startswith("the function is echo(value: ")


@pytest.mark.parametrize(
    "body", ["", "[]", "7", "null", '"x"', "{", '{"value": 1', "{'value': 1}", b"\xff", b'{"value": "\xff"}', "{} {}"]
)
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(WrongArguments):
        decode(CODECS["str"], body)


def test_deep_json_is_refused_and_not_fatal():
    deep = '{"value": ' + "[" * 100_000 + "]" * 100_000 + "}"
    for codec in (CODECS["anything"], CODECS["list"]):
        with pytest.raises(WrongArguments):
            decode(codec, deep)


def test_names_that_are_wrong_get_a_suggestion():
    def order(tx: Transaction, quantity: int, item: str = "x") -> None: ...

    codec = codec_of(order)
    with pytest.raises(WrongArguments, match="order: quantity: this argument is missing") as raised:
        decode(codec, '{"quantty": 1}')
    messages = {error["argument"]: error["message"] for error in raised.value.details["errors"]}
    assert messages["quantty"] == "there is no such argument; did you mean 'quantity'?"
    assert "order(quantity: int, item: str = 'x')" in raised.value.hint


def test_defaults_stay_the_functions_own():
    shared: list[int] = [1]

    def f(tx: Transaction, a: int, b: list[int] = shared, c: Colour = Colour.RED, d: Inner | None = None) -> None: ...

    codec = codec_of(f)
    assert decode(codec, '{"a": 1}') == {"a": 1}
    assert decode(codec, '{"a": 1, "b": []}') == {"a": 1, "b": []}
    schema = codec.input_schema()
    assert schema["required"] == ["a"]
    assert schema["properties"]["b"]["default"] == [1]
    assert schema["properties"]["c"]["default"] == "red"
    assert schema["properties"]["d"]["default"] is None
    assert shared == [1]


def test_a_default_that_json_cannot_say_is_left_out():
    sentinel: Any = object()

    def f(tx: Transaction, a: int = sentinel, b: int = None) -> None: ...  # noqa: RUF013

    schema = codec_of(f).input_schema()
    assert "default" not in schema["properties"]["a"]
    assert schema["properties"]["b"]["default"] is None


QUERY = {
    "int": (["7"], 7),
    "float": (["7.5"], 7.5),
    "bool": (["true"], True),
    "str": (["x", "y"], "y"),
    "bytes": (["_w=="], b"\xff"),
    "datetime": (["2026-01-01T00:00:00Z"], datetime(2026, 1, 1, tzinfo=UTC)),
    "date": (["2026-01-01"], date(2026, 1, 1)),
    "decimal": (["1.10"], Decimal("1.10")),
    "uuid": (["12345678-1234-5678-1234-567812345678"], UUID("12345678-1234-5678-1234-567812345678")),
    "enum": (["red"], Colour.RED),
    "int enum": (["2"], Size.BIG),
    "optional": (["3"], 3),
    "list": (["1", "2.5"], [1, Decimal("2.5")]),
    "set": (["2026-01-01", "2026-01-01"], {date(2026, 1, 1)}),
    "many": (["1", "2"], (1, 2)),
    "model": (
        ['{"id": "12345678-1234-5678-1234-567812345678"}'],
        Model(id=UUID("12345678-1234-5678-1234-567812345678")),
    ),
    "dict": (['{"a": "_w=="}'], {"a": b"\xff"}),
}


@pytest.mark.parametrize("kind", QUERY)
def test_a_query_string_is_text_that_is_converted(kind):
    given_, expected = QUERY[kind]
    assert decode(CODECS[kind], json.dumps({"value": given_}), lax=True) == {"value": expected}
    canonical = CODECS[kind].canonical(Call(b"", "f", json.dumps({"value": given_}).encode(), lax=True))
    assert decode(CODECS[kind], canonical) == {"value": expected}


@pytest.mark.parametrize(
    ("kind", "given_", "expected"),
    [
        (list[int] | None, ["1", "2"], [1, 2]),
        (Optional[list[int]], ["1"], [1]),  # noqa: UP045
        (Annotated[list[int], Field(max_length=3)], ["1", "2"], [1, 2]),
        (list, ["1", "2"], ["1", "2"]),
        (list[int], ["[1, 2]"], [1, 2]),
        (list[Point], ["[[1, 2.5]]"], [Point(1, 2.5)]),
        (int | None, ["null"], None),
        (str | None, ["null"], "null"),
        (str, ['{"a": 1}'], '{"a": 1}'),
        (str, ["[1]"], "[1]"),
        (str, ["{"], "{"),
        (str, [""], ""),
        (str, ["5"], "5"),
        (int | str, ["5"], "5"),
        (Literal["a", "b"], ["b"], "b"),
    ],
)
def test_text_in_a_query_string_means_what_the_parameter_takes(kind, given_, expected):
    assert decode(codec_for(kind), json.dumps({"value": given_}), lax=True) == {"value": expected}


@pytest.mark.parametrize(
    ("kind", "given_"), [("int", "x"), ("int", ""), ("bool", "maybe"), ("date", "1"), ("model", "{"), ("float", "nan")]
)
def test_text_that_does_not_fit_is_refused(kind, given_):
    with pytest.raises(WrongArguments, match="value"):
        decode(CODECS[kind], json.dumps({"value": [given_]}), lax=True)


def test_parameters_may_have_any_name():
    def f(
        tx: Transaction,
        self: int,
        schema: int,
        model_config: int,
        json: int,
        args: int,
        kwargs: int,
        cls: int,
        _private: int,
    ) -> None: ...

    codec = codec_of(f)
    names = ["self", "schema", "model_config", "json", "args", "kwargs", "cls", "_private"]
    body = codec.encode_arguments(range(8), {})
    assert decode(codec, body) == {name: number for number, name in enumerate(names)}
    assert codec.encode_arguments((), json.loads(body)) == body
    assert list(codec.input_schema()["properties"]) == names


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "7"),
        (int, None),
        (None, 7),
        (str, 7),
        (datetime, "2026-01-01"),
        (list[int], ["x"]),
        (Model, {"id": "x"}),
        (Typed, {"when": 1, "content": b"", "colour": Colour.RED}),
        (Any, object()),
        (Any, {"x": object()}),
        (str, "\ud800"),
        (Colour, "red"),
    ],
)
def test_a_result_that_is_not_what_was_declared_is_an_internal_error(kind, value):
    with pytest.raises(InternalError, match=r"not declare|surrogate"):
        codec_for(kind).encode(value)


def test_rows_become_objects():
    row = Shape(("a", "b")).row((1, "x"))
    for kind, value, expected in [
        (Any, row, {"a": 1, "b": "x"}),
        (Any, [row], [{"a": 1, "b": "x"}]),
        (dict[str, Any], row, {"a": 1, "b": "x"}),
        (list[dict[str, Any]], [row, row], [{"a": 1, "b": "x"}] * 2),
        (dict[str, dict[str, Any]], {"r": row}, {"r": {"a": 1, "b": "x"}}),
        (list, [row], [{"a": 1, "b": "x"}]),
    ]:
        assert json.loads(codec_for(kind).encode(value)) == expected
    with pytest.raises(InternalError):
        codec_for(int).encode(row)


def test_no_annotation_means_anything():
    def f(tx, a, b=2): ...

    codec = codec_of(f)
    assert decode(codec, '{"a": {"x": [1]}}') == {"a": {"x": [1]}}
    assert codec.encode({"x": (1, 2)}) == b'{"x":[1,2]}'
    inline(codec.input_schema())
    inline(codec.output_schema())


@pytest.mark.parametrize(
    ("kind", "result", "place"),
    [
        (float, math.nan, "NaN at the top"),
        (list[float], [1.0, -math.inf], "-Infinity at [1]"),
        (Any, {"a": [{"b c": math.inf}]}, "Infinity at a[0].b c"),
        (Point, Point(1, math.nan), r"NaN at [1]"),
        (dict[str, Any], {"NaN": "Infinity", "x": math.nan}, "NaN at x"),
    ],
)
def test_a_number_that_json_does_not_have_is_no_result(kind, result, place):
    with pytest.raises(InternalError, match=re.escape(place)):
        codec_for(kind).encode(result)


def test_words_that_look_like_numbers_are_words():
    assert json.loads(codec_for(Any).encode({"NaN": ["Infinity"]})) == {"NaN": ["Infinity"]}
    assert json.loads(codec_for(str).encode("NaN")) == "NaN"


class Leaf(TypedDict):
    name: str
    note: NotRequired[str]


class Tree(TypedDict, total=False):
    leaves: Required[list[Leaf]]
    parts: "dict[str, Tree]"


class Holder(BaseModel):
    leaf: Leaf
    ref: int = 1
    type: str = "typed-dict"


@dataclasses.dataclass
class Pot:
    trees: tuple[Tree, ...]
    first: tuple[int, Leaf] | None = None


LEAF: Any = {"name": "a"}


@pytest.mark.parametrize(
    ("kind", "whole", "broken", "place"),
    [
        (Leaf, LEAF, {"note": "x"}, "name"),
        (Leaf | None, None, {}, "name"),
        (list[Leaf], [LEAF], [LEAF, {}], "[1].name"),
        (Sequence[Leaf], [LEAF], [LEAF, {}], None),
        (Tree, {"leaves": [LEAF]}, {"leaves": [LEAF, {}]}, "leaves[1].name"),
        (Tree, {"leaves": [], "parts": {"x": {"leaves": []}}}, {"leaves": [], "parts": {"x": {}}}, "parts.x.leaves"),
        (Holder, Holder(leaf=LEAF), Holder.model_construct(leaf={}), "leaf.name"),
        (Pot, Pot(({"leaves": []},), (1, LEAF)), Pot(({"leaves": []}, {})), "trees[1].leaves"),
        (Pot, Pot((), (1, LEAF)), Pot((), (1, {})), "first[1].name"),
        (Leaf | Tree, {"leaves": []}, {}, ""),
        (Leaf | list[Tree], [{"leaves": []}], {"note": "x"}, ""),
        (str | list[Tree], [{"leaves": []}], [{}], ""),
        (str | list[Tree], [{"leaves": [LEAF]}], [{"leaves": [{}]}], ""),
        (dict[str, Annotated[Leaf, Field(description="x")]], {"a": LEAF}, {"a": {}}, "a.name"),
    ],
)
def test_a_typed_dictionary_without_all_its_keys_is_no_result(kind, whole, broken, place):
    codec = codec_for(kind)
    codec.decode_result(codec.encode(whole))
    if place is not None:
        with pytest.raises(InternalError, match=re.escape(f" {place} is missing") if place else "does not declare"):
            codec.encode(broken)


def test_a_row_is_a_typed_dictionary_where_it_has_the_keys():
    complete, other = (Shape(names).row(("a",)) for names in (("name",), ("nam",)))
    codec = codec_for(list[Leaf])
    assert codec.encode([complete]) == b'[{"name":"a"}]'
    with pytest.raises(InternalError, match=re.escape("[0].name is missing")):
        codec.encode([other])


def test_a_record_of_an_older_version_that_does_not_fit_is_an_internal_error():
    with pytest.raises(InternalError, match="kept"):
        CODECS["int"].decode_result(b'"x"')


def test_python_arguments_are_checked_like_a_body():
    def f(tx: Transaction, a: int, *, b: str = "x") -> None: ...

    codec = codec_of(f)
    assert decode(codec, codec.encode_arguments((1,), {"b": "y"})) == {"a": 1, "b": "y"}
    for args, kwargs, message in [
        ((), {}, "a: this argument is missing"),
        ((1, "y", 3), {}, "takes 2 arguments, 3 were given"),
        ((1,), {"a": 1}, "the argument a twice"),
        (("1",), {}, "a: input should be a valid integer"),
        ((object(),), {}, "no JSON form"),
    ]:
        with pytest.raises(WrongArguments, match=message):
            codec.encode_arguments(args, kwargs)


def test_bytes_of_a_model_are_as_its_own_configuration_says():
    class Plain(BaseModel):
        content: bytes

    codec = codec_for(Plain)
    text = Plain(content="größe".encode())
    assert codec.decode_result(codec.encode(text)) == text
    assert decode(codec, codec.encode_arguments((text,), {})) == {"value": text}
    with pytest.raises(InternalError):
        codec.encode(Plain(content=b"\xff"))


def test_a_validator_that_fails_is_the_callers_mistake_and_one_that_breaks_is_not():
    from pydantic import field_validator

    class Picky(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, x: int) -> int:
            if x == 1:
                raise ValueError("not one")
            if x == 2:
                raise RuntimeError("broken")
            return x

    codec = codec_for(Picky)
    with pytest.raises(WrongArguments, match="not one"):
        decode(codec, '{"value": {"x": 1}}')
    with pytest.raises(RuntimeError):
        decode(codec, '{"value": {"x": 2}}')


@pytest.mark.parametrize("kind", [type(open), type(uuid4), "Missing", "list[", "1 / 0"])
def test_a_type_that_cannot_travel_is_refused_when_it_is_declared(kind):
    def echo(tx: Transaction, value: kind) -> None: ...

    def back(tx: Transaction) -> kind: ...

    for body in (echo, back):
        with pytest.raises(DeclarationError, match=body.__name__):
            codec_of(body).input_schema()


def test_a_default_made_by_field_is_refused():
    def f(tx: Transaction, x: int = Field(gt=0)) -> None: ...

    with pytest.raises(DeclarationError, match="Field"):
        codec_of(f)


def test_a_first_parameter_that_is_no_transaction_is_refused():
    def cart(user: int) -> None: ...

    with pytest.raises(DeclarationError, match="where its transaction is to be") as raised:
        codec_of(cart)
    assert "def cart(tx: Transaction, user" in raised.value.hint


def test_annotations_may_be_postponed(tmp_path, monkeypatch):
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
from dataclasses import dataclass
from apiary import App
if TYPE_CHECKING:
    from apiary import Transaction

app = App("later")

@app.query
def f(tx: Transaction, thing: Thing, things: list[Thing] = []) -> dict[str, Thing]: ...

@dataclass
class Thing:
    name: str
    parent: Thing | None = None
"""
    (tmp_path / "postponed_app.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import postponed_app

    codec = FunctionCodec(postponed_app.f)
    thing = postponed_app.Thing("a", postponed_app.Thing("b"))
    assert decode(codec, '{"thing": {"name": "a", "parent": {"name": "b"}}}') == {"thing": thing}
    assert codec.decode_result(codec.encode({"x": thing})) == {"x": thing}


def test_rows_are_read_as_records_by_name():
    @dataclasses.dataclass
    class Some:
        a: int
        b: date | None = None

    @dataclasses.dataclass(kw_only=True)
    class Keywords:
        a: int
        b: date

    rows = [(1, "2026-01-01"), (2, "2026-01-02")]
    assert convert_rows(Some, ("a", "b"), rows)[0] == Some(1, date(2026, 1, 1))
    assert convert_rows(Some, ("b", "a"), [row[::-1] for row in rows])[0] == Some(1, date(2026, 1, 1))
    assert convert_rows(Some, ("a",), [(1,)]) == [Some(1)]
    assert convert_rows(Keywords, ("a", "b"), rows)[1] == Keywords(a=2, b=date(2026, 1, 2))
    assert convert_rows(Point, ("x", "y"), [(1, 2)]) == [Point(1, 2.0)]
    assert convert_rows(dict, ("x", "y"), [(1, 2)]) == [{"x": 1, "y": 2}]
    assert convert_rows(date, ("b",), [("2026-01-01",)]) == [date(2026, 1, 1)]
    assert convert_rows(Aliased, ("size",), [(3,)]) == [Aliased(size=3)]


class Unwritable:
    """Something that pydantic reads and has no way to write."""

    def __init__(self, name: Any) -> None:
        self.name = name

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        return {"type": "string"}


def raising(value: Any) -> Any:
    raise RuntimeError("not today")


Grumpy = Annotated[str, PlainSerializer(raising)]


@pytest.mark.parametrize("kind", ["query", "transaction"])
def test_what_a_type_cannot_write_is_recorded_as_it_came(make_app, engine_app, platform, kind):
    """A serializer is of no importance to the call: it would fail for ever, as if the database were away."""
    app = make_app()

    def body(tx: Transaction, odd: Unwritable, grumpy: Grumpy, secret: SecretStr, n: int = 1) -> str:
        return f"{odd.name} {grumpy} {n}"

    body.__name__ = "take"
    getattr(app, kind)(body)
    opened = engine_app(app)
    calls = platform(opened)
    arguments = {"odd": "o", "grumpy": "g", "secret": "quiet", "n": 2}
    for key in (None, "k", "k"):
        outcome = calls.run("take", json.dumps(arguments), key=key)
        assert (outcome.error, outcome.output) == (None, b'"o g 2"')
    changed = calls.run("take", json.dumps({**arguments, "secret": "other"}), key="k")
    assert changed.error["code"] == "idempotency_key_reused"
    codec = FunctionCodec(app.functions["take"])
    lax = json.dumps({"odd": ["x", "o"], "grumpy": ["g"], "secret": ["quiet"], "n": ["2"]}).encode()
    for call in (Call(b"", "take", json.dumps(arguments).encode()), Call(b"", "take", lax, lax=True)):
        assert json.loads(codec.canonical(call)) == {**arguments, "secret": "**********"}


def test_an_argument_without_a_json_schema_is_refused_at_once(make_app, sqlite_app):
    app = make_app()

    @app.query
    def take(tx: Transaction, callback: Callable[[], int]) -> None: ...

    with pytest.raises(DeclarationError, match="take uses a type that does not travel as JSON: callback: "):
        sqlite_app(app)


def test_a_result_without_a_json_schema_is_refused_at_once(make_app):
    def give(tx: Transaction) -> Callable[[], int]: ...

    with pytest.raises(DeclarationError, match="give uses a type that does not travel as JSON: return: "):
        FunctionCodec(make_app().query(give))


def test_what_pydantic_advises_and_nobody_can_do_is_not_told(make_app):
    def take(tx: Transaction, zone: timezone) -> None: ...

    with pytest.raises(DeclarationError, match=r"schema for <class 'datetime.timezone'>$"):
        FunctionCodec(make_app().query(take))


NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1E+0400", "1" + "0" * 400 + ".0", '{"a": [1, 1.5e309]}']
NUMBERS = ["1e308", "1e-999", '"NaN"', '"1e999 Infinity"', '{"NaN": "1e999"}', "1" + "0" * 400, '"' + "1" * 400 + '"']


def anything(tx: Transaction, x: Any) -> Any:
    return x


def named(tx: Transaction, x: dict[str, Any]) -> Any:
    return x


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_is_refused(make_app, text):
    body = f'{{"a": {text}}}'
    strict = (anything, Call(b"", "anything", f'{{"x": {body}}}'.encode()))
    lax = (named, Call(b"", "named", json.dumps({"x": [body]}).encode(), lax=True))
    for function, call in (strict, lax):
        with pytest.raises(WrongArguments, match="no number in JSON") as caught:
            FunctionCodec(make_app().query(function)).decode(call)
        assert caught.value.details["errors"][0]["argument"].startswith("x.a")


@pytest.mark.parametrize("text", NUMBERS)
def test_what_looks_like_none_is_taken(make_app, text):
    codec = FunctionCodec(make_app().query(anything))
    assert codec.decode(Call(b"", "anything", f'{{"x": {text}}}'.encode())) == {"x": json.loads(text)}


@dataclasses.dataclass
class Line:
    price: Decimal
    weight: float = 0.0


class Bill(BaseModel):
    lines: list[Line]
    sum: Decimal = Field(default=Decimal(), alias="theSum")


def bill(tx: Transaction, bill: Bill, tax: Decimal | None = None, rates: dict[str, Decimal] = {}) -> None: ...  # noqa: B006


LONG = "12345678901234567.89"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ('{"bill": {"lines": []}, "tax": %s}', "tax"),
        ('{"bill": {"lines": []}, "rates": {"a.b": 1.5, "c": -%s}}', "rates.c"),
        ('{"bill": {"lines": [{"price": 1}, {"price": %s}]}}', "bill.lines.1.price"),
        ('{"bill": {"lines": [], "theSum": %s}}', "bill.theSum"),
        ('{"bill": {"lines": []}, "tax": %se-99999999999999999999}', "tax"),
    ],
)
def test_a_decimal_that_a_number_cannot_say_is_refused(make_app, body, place):
    codec = FunctionCodec(make_app().query(bill))
    with pytest.raises(WrongArguments, match="write it as text") as caught:
        codec.decode(Call(b"", "bill", (body % LONG).encode()))
    assert caught.value.details["errors"][0]["argument"] == place
    if "e-9" not in body:
        said = f"-{LONG}" if "-%s" in body else LONG
        codec.decode(Call(b"", "bill", (body.replace("-%s", "%s") % f'"{said}"').encode()))


@pytest.mark.parametrize(
    "number",
    ["1.10", "0.30000000000000004", "123456789012345.5", "12345678901234567890", "1e22", "100000000000000000.0"],
)
def test_a_decimal_that_a_number_can_say_is_taken(make_app, number):
    codec = FunctionCodec(make_app().query(bill))
    arguments = codec.decode(Call(b"", "bill", f'{{"bill": {{"lines": []}}, "tax": {number}}}'.encode()))
    assert arguments["tax"] == Decimal(number)


def test_a_float_may_have_more_digits_than_it_keeps(make_app):
    codec = FunctionCodec(make_app().query(bill))
    body = f'{{"bill": {{"lines": [{{"price": "1.5", "weight": {LONG}}}]}}}}'
    assert codec.decode(Call(b"", "bill", body.encode()))["bill"].lines[0].weight == float(LONG)


def test_no_number_is_given_from_python(make_app):
    codec = FunctionCodec(make_app().query(anything))
    for value in (math.nan, math.inf, [-math.inf]):
        with pytest.raises(WrongArguments, match="no number in JSON"):
            codec.encode_arguments((value,), {})


@pytest.mark.parametrize("text", ["-_8=", "+/8=", "-_8", "+/8"])
def test_bytes_are_read_in_both_alphabets_and_written_as_the_schema_says(make_app, text):
    def same(tx: Transaction, value: bytes) -> bytes:
        return value

    codec = FunctionCodec(make_app().query(same))
    arguments = codec.decode(Call(b"", "same", json.dumps({"value": text}).encode()))
    assert arguments == {"value": b"\xfb\xff"}
    assert codec.encode(arguments["value"]) == b'"-_8="'
    assert codec.input_schema()["properties"]["value"]["format"] == "base64url"
    assert codec.output_schema()["format"] == "base64url"
