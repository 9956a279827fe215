"""Keys: two rows share one only when they are the same question."""

import hashlib
import math
import struct
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade import keys
from cascade.keys import key_maker
from cascade.protocols import InputSpec

dtypes = st.sampled_from(["<f4", ">f4", "<f8", "<i4", ">i4", "<i8", "|u1", "|b1", "<f2"])
arrays = hnp.arrays(dtypes, hnp.array_shapes(max_dims=3, max_side=3, min_dims=0))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.binary(max_size=4)
)
rows = st.recursive(
    st.one_of(scalars, arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
    ),
    max_leaves=6,
)


def content(row):
    """What makes two rows the same, said another way than the key says it."""
    if isinstance(row, np.ndarray):
        return ("array", row.dtype.str, row.shape, row.tobytes())
    if isinstance(row, float):
        return ("float", struct.pack("<d", row))
    if isinstance(row, dict):
        return ("dict", sorted((k, content(v)) for k, v in row.items()))
    if isinstance(row, (list, tuple)):
        return (type(row), [content(item) for item in row])
    return (type(row), row)


@given(rows, rows)
def test_no_false_hit_and_no_false_miss(a, b):
    key = key_maker([])
    assert (key(a) == key(b)) == (content(a) == content(b))


@given(rows)
def test_a_key_is_stable_and_hashable(row):
    key = key_maker([])
    assert key(row) == key(row)
    hash(key(row))


def test_lookalikes_differ():
    key = key_maker([])
    nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
    alike = [
        1, 1.0, True, "1", b"1", 0.0, -0.0, 0, False, math.nan, nan, None, "None", [1], (1,), [[1]],
        np.zeros((2, 3), "f4"), np.zeros((3, 2), "f4"), np.zeros((2, 3), "i4"), np.float32(1),
        np.array(1, "f4"), {"a": 1}, {"a": 1.0}, [], (), {}, "", b"",
    ]  # fmt: skip
    assert len({key(row) for row in alike}) == len(alike)


def test_whole_numbers_of_any_sign_and_size_have_keys():
    key, numbers = key_maker([]), [0, 1, -1, 127, 128, -128, -129, 255, 2**80, -(2**80)]
    assert None not in map(key, numbers)
    assert len(set(map(key, numbers))) == len(numbers)


@pytest.mark.parametrize("digest", ["auto", "blake2b"])
@pytest.mark.parametrize("size", [3, 5000])
def test_declared_inputs(digest, size):
    key = key_maker([InputSpec("x", "float32", (size,))], digest)
    row = np.arange(size, dtype=np.float32)
    other = row.copy()
    other[-1] = -1
    assert key(row) == key(row.copy())
    assert key(row) != key(other)
    text = key_maker([InputSpec("x", "text", ())], digest)
    assert text("a" * size) == text("a" * size)
    assert text("a" * size) != text("a" * (size - 1) + "b")
    assert text("\ud800") == text("\ud800")


def test_what_has_no_stable_content_has_no_key():
    key = key_maker([])
    assert key(object()) is None
    assert key(np.array([object()])) is None
    assert key([1, {2, 3}]) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([(1,)], [("a", "<i4")]), np.array([(1,)], [("b", "<i4")])),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    ],
    ids=["fields", "masks"],
)
def test_arrays_that_hold_more_than_their_bytes_share_no_key(one, other):
    key = key_maker([])
    assert key(one) is None or key(one) != key(other)


@pytest.mark.parametrize("inside", [lambda x: [x], lambda x: (x,), lambda x: {"a": x}])
def test_what_is_nested_too_deeply_has_no_key(inside):
    deep = "x"
    for _ in range(20):
        deep = inside(deep)
    assert key_maker([])(deep) is not None
    for _ in range(20):
        deep = inside(deep)
    assert key_maker([])(deep) is None


def test_with_blake2b_nothing_is_kept_as_it_was_asked(monkeypatch):
    made = []

    class Watched:
        @staticmethod
        def blake2b(data, **settings):
            made.append(settings["digest_size"])
            return hashlib.blake2b(data, **settings)

    monkeypatch.setattr(keys, "hashlib", Watched)
    byte = InputSpec("x", "uint8", (1,))
    asked = [([], "x"), ([], b"x"), ([InputSpec("x", "text", ())], "x"), ([byte], np.uint8([7]))]
    for specs, row in asked:
        key = key_maker(specs, digest="blake2b")(row)
        whole = key if isinstance(key, bytes) else key[0]
        assert len(whole) == 16
    assert made == [16] * len(asked)
    key_maker([])("x" * 10_000)
    assert made == [16] * len(asked)  # the default is another


class Spiteful:
    def __repr__(self):
        raise ZeroDivisionError


class Odd(Mapping):
    """A question whose own code fails."""

    def __getitem__(self, key):
        raise ZeroDivisionError

    def __iter__(self):
        return iter("ab")

    def __len__(self):
        return 2


@pytest.mark.parametrize("x", [Odd(), {Spiteful(): 1}, {frozenset(): Odd()}])
def test_a_question_whose_own_code_fails_has_no_key(x):
    assert key_maker([])(x) is None
