"""How values for PostgreSQL are written and read, without a server; tests/contract compares them with psycopg's."""

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import Transformer
from psycopg.types.array import ArrayLoader

from apiary.engine.postgres import types
from apiary.engine.postgres.types import Kind, Types
from apiary.engine.postgres.values import as_array, check_text, convert, parameter, reader
from apiary.runtime.errors import ValueOutOfRange


class Shade(Enum):
    LIGHT = "light"
    NOTHING = None
    MANY = (1, None)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


class TextArrayLoader(ArrayLoader):
    base_oid = types.TEXT


@given(st.lists(st.none() | TEXT))
def test_a_list_is_written_as_an_array_that_can_be_read(values):
    loader = TextArrayLoader(1009, Transformer())
    assert loader.load(as_array(values).encode()) == values
    nested = [values, values]
    assert loader.load(as_array(nested).encode()) == nested


def test_elements_of_arrays_are_written_like_parameters():
    values = [True, 1, 0.5, Decimal("NaN"), b"\x00", Shade.LIGHT, Shade.NOTHING, Shade.MANY, {"a": 1}, (2,), None]
    assert as_array(values) == (r'{"true","1","0.5","NaN","\\x00","light",NULL,{"1",NULL},"{\"a\": 1}",{"2"},NULL}')


@given(st.floats(width=32, allow_nan=False))
def test_a_float_of_32_bits_is_the_shortest_decimal_that_stands_for_it(value):
    read = reader(Kind(types.FLOAT4))
    found = read(value)
    assert struct.pack("f", found) == struct.pack("f", value)
    digits = len(Decimal(repr(found)).normalize().as_tuple().digits) if math.isfinite(found) else 1
    if digits > 1:
        shorter = float(f"{value:.{digits - 1}g}")
        assert abs(shorter) > 3.5e38 or struct.unpack("f", struct.pack("f", shorter))[0] != value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2025-12-31 22:00:00+00:00"),
        (timedelta(microseconds=-1), "-1 days 86399.999999 seconds"),
        (timedelta(days=2, seconds=5), "2 days 5.000000 seconds"),
        (memoryview(b"ab"), "\\x6162"),
        (Shade.MANY, [1, None]),
        (True, "true"),
        (10**4000, "1" + "0" * 4000),
    ],
)
def test_parameters_travel_as_text(value, text):
    assert parameter(value) == text


@pytest.mark.parametrize("value", [1 << 20_000, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))], ids=type)
def test_what_no_text_stands_for_is_refused(value):
    with pytest.raises(ValueOutOfRange):
        parameter(value)


@pytest.mark.parametrize("text", ["\0", "a\0b", "é\0", "\ud800", "x" * 1000 + "\udfff"])
def test_text_that_postgres_cannot_hold_is_refused(text):
    with pytest.raises(ValueOutOfRange):
        check_text(text)


@pytest.mark.parametrize("text", [None, "", "abc", "é😀\u2028\x01\x7f"])
def test_other_text_is_not(text):
    check_text(text)


def test_rows_are_converted_where_a_column_needs_it():
    rows = [("[1]", "2026-01-01 00:00:00+00", 5), (None, None, None)]
    readers = [(0, reader(Kind(types.JSON))), (1, reader(Kind(types.TIMESTAMPTZ)))]
    assert convert(rows, readers) == [([1], datetime(2026, 1, 1, tzinfo=UTC), 5), (None, None, None)]
    deep = reader(Kind(199, types.JSON))
    assert deep([[json.dumps({"a": 1}), None], ["5", "null"]]) == [[{"a": 1}, None], [5, None]]
    assert reader(Kind(types.TEXT)) is reader(Kind(1009, types.TEXT)) is None


def test_types_are_looked_up_once_and_to_the_end():
    asked = []
    catalog = {
        20_000: ("d", 20_001, None),  # a domain over a domain over timestamptz
        20_001: ("d", types.TIMESTAMPTZ, None),
        20_002: ("b", 0, 20_000),  # an array of the first
        20_003: ("d", 20_002, None),  # a domain over that array
        20_004: ("e", 0, None),
        20_005: ("c", 0, None),
        20_006: ("b", 0, 20_005),  # an array of rows
        869: ("b", 0, None),
    }

    def ask(oid):
        asked.append(oid)
        return catalog.get(oid)

    found = Types(ask)
    for _ in range(2):
        assert found.kind(20_000) == Kind(types.TIMESTAMPTZ)
        assert found.kind(20_003) == found.kind(20_002) == Kind(20_002, types.TIMESTAMPTZ)
        assert found.kind(20_004) == Kind(20_004)
        assert found.kind(20_005).is_row
        assert found.kind(20_006) == Kind(20_006, 20_005, is_row=True)
        assert found.kind(types.RECORD).is_row
        assert found.kind(2287).is_row
        assert found.kind(869) == Kind(869)
        assert found.kind(99_999) == Kind(99_999)
        assert found.kind(types.INT4) == Kind(types.INT4)
        assert found.kind(1007) == Kind(1007, types.INT4)
    assert len(asked) == len(set(asked))
