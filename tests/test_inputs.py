"""Inputs: what is taken, how it is cast, and what is said of what is not."""

import numpy as np
import pytest

from cascade import InputTypeError, InputValueError
from cascade.inputs import row_caster, rows_caster
from cascade.protocols import InputSpec

VECTOR = [InputSpec("x", "float32", (2,))]
COUNTS = [InputSpec("n", "uint8", (2,))]
TEXT = [InputSpec("t", "text", ())]
LONG = [InputSpec("x", "float32", (None,))]
TWO = [InputSpec("a", "float32", (1,)), InputSpec("b", "float32", (1,))]


@pytest.mark.parametrize(
    ("specs", "given", "expected"),
    [
        (VECTOR, {"x": [1, 2]}, [1.0, 2.0]),
        (VECTOR, {"height": 1, "width": 2.5}, [1.0, 2.5]),
        (VECTOR, np.array([1, 2], dtype=">f8"), [1.0, 2.0]),
        (COUNTS, [1, 255], [1, 255]),
        (COUNTS, np.array([0, 3], dtype=np.uint8), [0, 3]),
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
        (COUNTS, [1, 256], InputValueError, "outside the range of uint8"),
        (COUNTS, [-1, 2], InputValueError, "outside the range of uint8"),
        (COUNTS, [1.5, 2.0], InputTypeError, "got dtype float64"),
        (TEXT, 3, InputTypeError, "got a int"),
        (TEXT, np.array(["x", "y"]), InputTypeError, "got an array of dtype"),
        (VECTOR, {"x": [1, 2], "y": "no number"}, InputValueError, "with 1 other keys"),
        (VECTOR, {}, InputValueError, "without the keys 'x'"),
        (VECTOR, 5.0, InputValueError, r"got shape \(\)$"),
        (TWO, {"a": [1]}, InputValueError, "without the keys 'b' and with 0 other keys"),
        ([InputSpec("x", "float32", ())], [1.0, 2.0], InputValueError, "this is a batch"),
    ],
)
def test_a_row_that_does_not_fit_is_described(specs, given, error, words):
    with pytest.raises(error, match=words):
        row_caster(specs)(given)


@pytest.mark.parametrize(
    ("specs", "given", "n"),
    [
        ([], {"a": [1, 2, 3], "b": "xyz"}, 3),
        ([], [], 0),
        (VECTOR, [], 0),
        (LONG, [[1], [1, 2]], 2),
        (LONG, [np.ones(3), np.ones(2)], 2),
        (TEXT, np.array(["x", "y"]), 2),
        (TWO, {"a": [[1], [2]], "b": [[3], [4]]}, 2),
    ],
)
def test_a_batch_that_fits_has_its_length(specs, given, n):
    rows, found = rows_caster(specs)(given)
    assert found == n
    if specs == VECTOR:
        assert rows.shape == (0, 2)


@pytest.mark.parametrize(
    ("specs", "given", "error", "words"),
    [
        ([], {"a": [1, 2], "b": [1]}, InputValueError, "columns of one length"),
        ([], "text", InputTypeError, "got a str"),
        ([], 5, InputTypeError, "got a int"),
        (TEXT, "text", InputTypeError, "a list of str"),
        (TEXT, 5, InputTypeError, "a list of str"),
        (TWO, {"a": [[1], [2]], "b": [[3]]}, InputValueError, "columns of one length"),
        (TWO, [[1], [2]], InputTypeError, "got a list"),
        (VECTOR, np.ones(2), InputValueError, "this is one row"),
    ],
)
def test_a_batch_that_does_not_fit_is_described(specs, given, error, words):
    with pytest.raises(error, match=words):
        rows_caster(specs)(given)
