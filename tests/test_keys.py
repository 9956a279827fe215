"""Two requests share a key only when they ask the same question."""

import datetime as dt
import itertools
import struct
import types
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cascade.inputs import row_caster
from cascade.keys import key_maker
from cascade.protocols import InputSpec

ANY = key_maker([])


def nan(payload):
    return struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0000 | payload))[0]


DIFFERENT = {
    "one": 1, "one as float": 1.0, "true": True, "one as text": "1", "one as bytes": b"1",
    "zero": 0, "zero as float": 0.0, "minus zero": -0.0, "false": False, "none": None,
    "nan": nan(0), "another nan": nan(1), "empty text": "", "empty bytes": b"",
    "list": [1], "tuple": (1,), "nested": [[1]], "two": [1, 1], "empty list": [], "empty": (),
    "dict": {"a": 1}, "dict of float": {"a": 1.0}, "other key": {"b": 1}, "no key": {},
    "bytes key": {b"a": 1}, "pairs": [("a", 1)], "int8": np.int8(1), "int64": np.int64(1),
    "float32": np.float32(1), "bool": np.bool_(True), "text scalar": np.str_("1"),
    "0-d": np.array(1), "1-d": np.array([1]), "2-d": np.array([[1]]), "f4": np.ones(1, "<f4"),
    "big-endian": np.ones(1, ">f4"), "f8": np.ones(1, "<f8"), "i4": np.ones(1, "<i4"),
    "no rows": np.ones((0, 2)), "no columns": np.ones((2, 0)), "none at all": np.ones(0),
    "days": np.array([1], "M8[D]"), "seconds": np.array([1], "M8[s]"),
    "array of nan": np.array([nan(0)]), "array of another nan": np.array([nan(1)]),
    "array of minus zero": np.array([-0.0]), "array of zero": np.array([0.0]),
    "long": 2**70, "long negative": -(2**70), "256": 256, "-1": -1, "255": 255,
    "text in list": ["1"], "bytes in list": [b"1"], "surrogate": "\ud800",
}  # fmt: skip


def test_what_is_different_has_different_keys():
    keys = {name: ANY(value) for name, value in DIFFERENT.items()}
    assert None not in keys.values()
    shared = [(a, b) for a, b in itertools.combinations(keys, 2) if keys[a] == keys[b]]
    assert not shared


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a", ["b"]], [["a"], "b"]),
        ([b"a", b""], [b"", b"a"]),
        ({"a": "bc"}, {"ab": "c"}),
        ([{"a": 1}, {"b": 2}], [{"a": 1, "b": 2}]),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(6), np.zeros((2, 3))),
        ([np.zeros(2), np.zeros(1)], [np.zeros(1), np.zeros(2)]),
        (np.arange(4).reshape(2, 2), np.arange(4).reshape(2, 2).T),
        ("x" * 5000, b"x" * 5000),
        ("x" * 5000, ["x" * 5000]),
        (np.zeros(5000, "<f4"), np.zeros(2500, "<f8")),
        (np.zeros(5000, "<f4"), np.zeros(5000, ">f4")),
    ],
)
def test_pieces_cannot_be_shifted_from_one_place_to_another(one, other):
    assert ANY(one) != ANY(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([(1,)], [("a", "<i4")]), np.array([(1,)], [("b", "<i4")])),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    ],
    ids=["fields", "masks"],
)
def test_arrays_that_hold_more_than_their_bytes_share_no_key(one, other):
    assert ANY(one) is None or ANY(one) != ANY(other)


def test_what_has_no_stable_content_has_no_key():
    for value in (object(), {1, 2}, np.array([object()]), [object()], {"a": lambda: 0},
                  np.array(["a"], np.dtypes.StringDType()), dt.date(2020, 1, 1)):  # fmt: skip
        assert ANY(value) is None
    loop = []
    loop.append(loop)
    assert ANY(loop) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, OrderedDict(a=1)),
        ({"a": 1}, types.MappingProxyType({"a": 1})),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (np.arange(10)[::2], np.arange(0, 10, 2)),
        ("x" * 9000, "x" * 9000),
        (np.zeros(9000), np.zeros(9000)),
    ],
)
def test_the_same_question_has_the_same_key(one, other):
    assert ANY(one) == ANY(other)


def by_value(x):
    """Name a value by type and content, told apart as strictly as a key should."""
    if isinstance(x, float):
        return ("float", struct.pack("<d", x))
    if isinstance(x, dict):
        return ("dict", tuple(sorted((repr(k), by_value(v)) for k, v in x.items())))
    if isinstance(x, (list, tuple)):
        return (type(x).__name__, tuple(map(by_value, x)))
    if isinstance(x, np.ndarray):
        return ("array", x.dtype.str, x.shape, x.tobytes())
    return (type(x).__name__, x)


plain = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.text("01ab", max_size=3),
    st.binary(max_size=3), st.sampled_from([0.0, -0.0, 1.0, nan(0), nan(7)]),
    arrays.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "<i4", "i1", "?"]),
        arrays.array_shapes(max_dims=2, max_side=2), elements=st.just(1), fill=st.nothing(),
    ),
)  # fmt: skip
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    ),
    max_leaves=5,
)


@given(values, values)
def test_keys_are_equal_exactly_when_the_values_are(one, other):
    assert (ANY(one) == ANY(other)) == (by_value(one) == by_value(other))


@given(st.text(max_size=3), st.text(max_size=3))
def test_texts_are_keyed_by_their_content(one, other):
    key = key_maker([InputSpec("text", "text", ())])
    hashed = key_maker([InputSpec("text", "text", ())], "blake2b")
    assert (key(one) == key(other)) == (one == other)
    assert (hashed(one) == hashed(other)) == (one == other)


@pytest.mark.parametrize("digest", ["auto", "blake2b"])
@pytest.mark.parametrize("width", [3, 3000])
def test_arrays_are_keyed_after_the_cast(digest, width):
    spec = InputSpec("x", "float32", (width,))
    cast, key = row_caster([spec]), key_maker([spec], digest)
    row = np.linspace(-1, 1, width, dtype="float32")
    same = [row.tolist(), row.astype(">f4"), np.repeat(row, 2)[::2], np.asarray(row, "<f4")]
    assert {key(cast(x)) for x in same} == {key(cast(row))}
    changed = row.copy()
    changed[-1] = np.nextafter(changed[-1], np.float32(2))
    assert key(cast(changed)) != key(cast(row))
    zeros, minus = np.zeros(width, "float32"), -np.zeros(width, "float32")
    assert key(cast(zeros)) != key(cast(minus))


def test_rows_of_any_length_are_keyed_with_their_shape():
    spec = InputSpec("x", "float32", (None, None))
    cast, key = row_caster([spec]), key_maker([spec])
    assert key(cast(np.zeros((2, 3)))) != key(cast(np.zeros((3, 2))))
    assert key(cast(np.zeros((2, 3)))) == key(cast(np.zeros((2, 3), "float32")))


def test_several_inputs_are_keyed_by_name():
    specs = [InputSpec("a", "int64", (1,)), InputSpec("b", "int64", (1,))]
    cast, key = row_caster(specs), key_maker(specs)
    assert key(cast({"a": [1], "b": [2]})) == key(cast({"b": [2], "a": [1]}))
    assert key(cast({"a": [1], "b": [2]})) != key(cast({"a": [2], "b": [1]}))


def test_large_inputs_are_digested_with_a_secret_of_their_own():
    big = np.zeros(5000)
    for digest in ("auto", "blake2b"):
        first, second = key_maker([], digest), key_maker([], digest)
        assert first(big) == first(big.copy())
        assert first(big) != second(big)
        assert len(repr(first(big))) < 200


@given(st.integers(0, 5000 * 8 - 1))
def test_large_inputs_that_differ_in_one_bit_differ(bit):
    other = bytearray(5000)
    other[bit // 8] ^= 1 << bit % 8
    assert ANY(bytes(5000)) != ANY(bytes(other))
