"""Inputs: what is taken, how it is cast, and what is said of what is not."""

from types import MappingProxyType

import numpy as np
import pytest

from cascade import InputTypeError, InputValueError
from cascade.inputs import row_caster, rows_caster
from cascade.protocols import InputSpec

VECTOR = [InputSpec("x", "float32", (2,))]
COUNTS = [InputSpec("n", "uint8", (2,))]
TEXT = [InputSpec("t", "text", ())]
LONG = [InputSpec("x", "float32", (None,))]
ONE = [InputSpec("x", "float32", (1,))]
FLAGS = [InputSpec("f", "bool", (2,))]
HALF = [InputSpec("h", "float16", (2,))]
MASKED = np.ma.array(np.ones(2, dtype="float32"), mask=[False, True])
TWO = [InputSpec("a", "float32", (1,)), InputSpec("b", "float32", (1,))]


class Table:
    """Rows that are indexed by the names of their columns, as pandas has them."""

    def __init__(self, rows):
        self.rows = rows

    def keys(self):
        return ["a", "b"]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, name):
        return self.rows[:, self.keys().index(name)]

    def __array__(self, dtype=None, copy=None):
        return self.rows


class Series:
    """A row of a table whose columns are of several dtypes, as pandas has it."""

    dtype = np.dtype(object)

    def __init__(self, numbers):
        self.numbers = numbers

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numbers, dtype=object)


@pytest.mark.parametrize(
    ("specs", "given", "expected"),
    [
        (VECTOR, {"x": [1, 2]}, [1.0, 2.0]),
        (VECTOR, np.ma.array([1.0, 2.0], mask=False), [1.0, 2.0]),
        (TEXT, {"t": "x"}, "x"),
        (ONE, 5, [5.0]),
        (ONE, {"x": 5.0}, [5.0]),
        (VECTOR, np.array([1, 2], dtype=">f8"), [1.0, 2.0]),
        (COUNTS, [1, 255], [1, 255]),
        (COUNTS, np.array([0, 3], dtype=np.uint8), [0, 3]),
        (VECTOR, Series([True, 2.5]), [1.0, 2.5]),
        (TEXT, np.str_("x"), "x"),
        (TEXT, np.array("x"), "x"),
        (TEXT, np.array(["x"], dtype=object), "x"),
        ([], [1, 2], [1, 2]),
    ],
)
def test_a_row_that_fits_is_cast(specs, given, expected):
    got = row_caster(specs)(given)
    assert (got.tolist() if isinstance(got, np.ndarray) else got) == expected
    assert type(got) in {str, list, np.ndarray}


@pytest.mark.parametrize(
    ("specs", "given", "error", "words"),
    [
        ([], None, InputTypeError, "got None"),
        ([], {}, InputValueError, "got an empty dict"),
        (VECTOR, MASKED, InputValueError, "got masked values"),
        (TWO, {"a": MASKED[:1], "b": MASKED[1:]}, InputValueError, "'b'.* got masked values"),
        (COUNTS, [1, 256], InputValueError, "outside the range of uint8"),
        (COUNTS, [-1, 2], InputValueError, "outside the range of uint8"),
        (
            COUNTS,
            [1.5, 2.0],
            InputTypeError,
            "float64: another kind is not cast to uint8$",
        ),
        (TEXT, {"x": 1, "y": 2}, InputValueError, "a dict that lacks 't' and has 2 unknown keys$"),
        (ONE, {"height": 1}, InputValueError, "got a dict that lacks 'x' and has 1 unknown key$"),
        (COUNTS, [2**80, 1], InputValueError, "outside the range of uint8"),
        (FLAGS, [0, 2], InputValueError, "outside the range of bool"),
        (VECTOR, Series([2.5, "x"]), InputTypeError, "got a Series that holds a str"),
        (VECTOR, np.full(2, 1e300), InputValueError, "outside the range of float32"),
        (VECTOR, [10**400, 1], InputValueError, "outside the range of float32"),
        (HALF, np.array([70_000, 1]), InputValueError, "outside the range of float16"),
        (VECTOR, [1, None], InputTypeError, "got a list that holds a NoneType"),
        (VECTOR, [["a", "b"]], InputTypeError, "got a list that holds a str"),
        (VECTOR, {1.5, 2.5}, InputTypeError, "got a set"),
        (VECTOR, (i for i in range(2)), InputTypeError, "got a generator"),
        (VECTOR, len, InputTypeError, "got a builtin_function_or_method"),
        (TEXT, 3, InputTypeError, "got an int"),
        (TEXT, np.array(["x", "y"]), InputTypeError, "got an array of dtype"),
        (VECTOR, {"x": [1, 2], "y": "no number"}, InputValueError, "dict that has 1 unknown key$"),
        (VECTOR, {}, InputValueError, "that lacks 'x'"),
        (VECTOR, {"height": 1, "width": 2.5}, InputValueError, "does not name its numbers: give a"),
        (VECTOR, 5.0, InputValueError, r"got shape \(\)$"),
        (TWO, {"a": [1]}, InputValueError, "got a dict that lacks 'b'$"),
        ([InputSpec("x", "float32", ())], [1.0, 2.0], InputValueError, "this is a batch"),
    ],
)
def test_a_row_that_does_not_fit_is_described(specs, given, error, words):
    with pytest.raises(error, match=words):
        row_caster(specs)(given)


def test_numbers_in_a_dict_are_told_apart_by_their_names():
    two, one = row_caster(TWO), row_caster(VECTOR)
    first, second = two({"a": 1, "b": 2.5}), two({"b": 2.5, "a": 1})
    assert [first[name].tolist() for name in "ab"] == [second[name].tolist() for name in "ab"]
    for row in ({"a": 1, "b": 2.5}, {"b": 2.5, "a": 1}):
        with pytest.raises(InputValueError):  # the model has one input, and no names for these
            one(row)


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("not now")


def test_what_cannot_be_read_is_an_input_error():
    with pytest.raises(InputValueError, match="got a ragged or unreadable Broken"):
        row_caster(VECTOR)(Broken())


@pytest.mark.parametrize(
    ("specs", "given", "n"),
    [
        ([], {"a": [1, 2, 3], "b": list("xyz")}, 3),
        ([], MappingProxyType({"a": [1, 2, 3]}), 3),
        ([], [], 0),
        ([], range(4), 4),
        ([], Table(np.ones((3, 2))), 3),
        (VECTOR, [], 0),
        (VECTOR, {"x": []}, 0),
        (VECTOR, np.empty((0, 2)), 0),
        (VECTOR, {"x": [[1, 2]]}, 1),
        (ONE, [1, 2, 3], 3),
        (LONG, [[1], [1, 2]], 2),
        (LONG, [np.ones(3), np.ones(2)], 2),
        (TEXT, np.array(["x", "y"]), 2),
        (TEXT, np.array([["x"], ["y"]]), 2),
        (TEXT, {"t": ["x", "y"]}, 2),
        (TEXT, np.empty(0, dtype=object), 0),
        (TWO, {"a": [1, 2], "b": [[3], [4]]}, 2),
        (TWO, {"a": [[1], [2]], "b": [[3], [4]]}, 2),
        (TWO, [{"a": 1, "b": [3]}, {"b": 4, "a": np.ones(1)}], 2),
        (VECTOR, [{"x": [1, 2]}, [3, 4]], 2),
    ],
)
def test_a_batch_that_fits_has_its_length(specs, given, n):
    rows, found = rows_caster(specs)(given)
    assert found == n
    if specs == VECTOR:
        assert rows.shape == (n, 2)
    if specs == TEXT:
        assert rows == ["x", "y"][:n]
    if isinstance(rows, dict):
        assert type(rows) is dict
        assert {len(column) for column in rows.values()} == {n}


@pytest.mark.parametrize(
    ("specs", "given", "error", "words"),
    [
        ([], {"a": [1, 2], "b": [1]}, InputValueError, "columns of one length"),
        ([], "text", InputTypeError, "got a str"),
        ([], 5, InputTypeError, "got an int"),
        ([], np.array(3.0), InputTypeError, r"got an array of dtype float64 and shape \(\)"),
        ([], {"a": 1}, InputTypeError, "a list or an array in each column, got an int"),
        ([], {"a": "xyz"}, InputTypeError, "in each column, got a str"),
        ([], {"a": {0: 1}}, InputTypeError, "in each column, got a dict"),
        ([], {}, InputValueError, "columns of one length, got no columns"),
        ([], ["a", None], InputTypeError, "row 1: input: expected a value, got None"),
        (VECTOR, MASKED[None], InputValueError, "got masked values"),
        (VECTOR, [[1, 2], MASKED], InputValueError, "row 1: .* got masked values"),
        (TWO, {"a": [[1], [2]], "b": MASKED[:, None]}, InputValueError, "'b'.* got masked values"),
        ([], [{"a": 1}, {}], InputValueError, "row 1: input: .* got an empty dict"),
        ([], np.array(["a", None]), InputTypeError, "row 1: input: expected a value, got None"),
        ([], (x for x in "ab"), InputTypeError, "got a generator"),
        (TEXT, {"y": ["a"]}, InputValueError, "that lacks 't'"),
        (TEXT, np.array("hello"), InputTypeError, "a list of str"),
        (TEXT, {"a", "b"}, InputTypeError, "a list of str.*, got a set"),
        (TEXT, np.empty((0, 5)), InputTypeError, "a list of str"),
        (TEXT, np.array([["a", "b"]]), InputTypeError, "a list of str"),
        (TEXT, ["a", None], InputTypeError, "row 1: input 't': text expected, got None"),
        (VECTOR, "", InputTypeError, "got a str"),
        (VECTOR, b"", InputTypeError, "got a bytes"),
        (VECTOR, {}, InputValueError, "that lacks 'x'"),
        (VECTOR, np.empty((0, 5)), InputValueError, r"got shape \(0, 5\)"),
        (VECTOR, np.empty(0), InputValueError, r"got shape \(0,\)"),
        (VECTOR, np.empty(0, dtype=object), InputTypeError, "got an object array$"),
        (VECTOR, np.array(3.0), InputValueError, r"got shape \(\)"),
        (VECTOR, [[1, 2], [3]], InputValueError, r"row 1: input 'x': .*, got shape \(1,\)"),
        (VECTOR, [[1, 2], None], InputTypeError, "row 1: input 'x': .*, got None"),
        (VECTOR, [[1, 2], ["x", 1]], InputTypeError, "row 1: .* got a list that holds a str"),
        (VECTOR, [[1, 2], [1e300, 1]], InputValueError, "row 1: .* outside the range"),
        (COUNTS, [[1, 2], [1, 256]], InputValueError, "row 1: .* outside the range"),
        (LONG, [1.0, 2.0], InputValueError, "this is one row"),
        (LONG, [[1, 2], 5], InputValueError, r"row 1: input 'x': .*, got shape \(\)"),
        (LONG, [[1, 2], None], InputTypeError, "row 1: input 'x': .*, got None"),
        (TEXT, ["ä", "\ud800"], InputValueError, "row 1: input 't': .* lone surrogate"),
        (TEXT, "text", InputTypeError, "a list of str"),
        (TEXT, 5, InputTypeError, "a list of str"),
        (TWO, {"a": [[1], [2]], "b": [[3]]}, InputValueError, "columns of one length"),
        (TWO, [[1], [2]], InputTypeError, "got a list"),
        (TWO, [{"a": 1, "b": 2}, {"a": 1}], InputValueError, "row 1: .* that lacks 'b'"),
        (TWO, [{"a": 1, "b": 2}, 5], InputTypeError, "got a list"),
        (VECTOR, [{"y": [1, 2]}], InputValueError, "row 0: .* that lacks 'x'"),
        (VECTOR, np.ones(2), InputValueError, "this is one row"),
    ],
)
def test_a_batch_that_does_not_fit_is_described(specs, given, error, words):
    with pytest.raises(error, match=words):
        rows_caster(specs)(given)


def test_what_comes_in_a_dtype_must_have_the_declared_one_where_nothing_is_cast():
    row, rows = row_caster(VECTOR, strict=True), rows_caster(VECTOR, strict=True)
    wide, right = np.ones(2), np.ones(2, dtype=np.float32)
    for given in (wide, Series([1.0, 2.0])):
        with pytest.raises(InputTypeError, match="the policy says cast: none"):
            row(given)
    for given in ([wide, wide], Table(np.ones((3, 2)))):
        with pytest.raises(InputTypeError, match="the policy says cast: none"):
            rows(given)
    assert row([1, 2]).dtype == rows([[1, 2]])[0].dtype == np.float32  # they come in none
    assert rows([right, right])[0].shape == (2, 2)


def test_numbers_that_must_be_finite_are_named_by_their_row():
    rows = rows_caster(VECTOR, finite=True)
    assert rows([[1, 2]])[1] == 1
    for batch in ([[1, 2], [1, np.nan]], np.array([[1, 2], [np.inf, 1]], dtype=np.float32)):
        with pytest.raises(InputValueError, match=r"row 1: .* NaN or infinite"):
            rows(batch)
