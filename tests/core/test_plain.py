"""What functions say in errors and log lines can be written, whatever it holds."""

import json

from hypothesis import given
from hypothesis import strategies as st

from apiary.runtime.plain import plain

TEXT = st.text(st.characters())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary() | st.complex_numbers()
ODD = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT | st.integers(), inner) | st.tuples(inner),
)


@given(ODD)
def test_anything_becomes_json_that_can_be_stored(value):
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text.encode("utf-8")) == plain(value)


def test_a_lone_surrogate_and_a_huge_number_can_be_written():
    assert plain({"c\ud800": "d\ud800"}) == {"c?": "d?"}
    assert isinstance(plain(10**5000), str)
