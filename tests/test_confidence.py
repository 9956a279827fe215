"""Confidence: a row and a batch are read by one rule."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.confidence import OutputFault, row_reader, rows_reader

kinds = st.sampled_from(["probabilities", "logits", "sigmoid"])
scores = st.sampled_from(["max_probability", "margin"])
temperatures = st.floats(0.2, 5.0)
numbers = st.one_of(st.floats(-50, 50, width=32), st.sampled_from([math.nan, math.inf, -math.inf]))


@st.composite
def matrices(draw, kind):
    columns = 1 if kind == "sigmoid" else draw(st.sampled_from([1, 2, 3, 10, 60]))
    rows = draw(st.integers(1, 5))
    if kind == "logits" or draw(st.booleans()):
        flat = draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
        return np.array(flat, dtype=np.float32).reshape(rows, columns)
    seed = draw(st.integers(0, 2**32 - 1))
    made = np.random.default_rng(seed).dirichlet(np.full(max(columns, 2), 0.2), rows)
    return made[:, :columns].astype(np.float32)


@given(st.data(), kinds, scores, temperatures)
def test_row_and_batch_agree(data, kind, score, temperature):
    matrix = data.draw(matrices(kind))
    values, confidences = rows_reader(kind, score, temperature)(matrix)
    one = row_reader(kind, score, temperature)
    for row, value, confidence in zip(matrix.tolist(), values, confidences, strict=True):
        if math.isnan(confidence):
            with pytest.raises(OutputFault):
                one(row)
            continue
        got, sure = one(row)
        assert sure == pytest.approx(float(confidence), abs=1e-5)
        assert 0.0 <= sure <= 1.0
        assert got == value


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=12), temperatures)
def test_temperature_keeps_the_label_and_one_is_the_identity(weights, temperature):
    row = (np.array(weights) / sum(weights)).tolist()
    label, sure = row_reader("probabilities")(row)
    assert sure == max(row)
    assert row_reader("probabilities", temperature=temperature)(row)[0] == label
    hot = row_reader("probabilities", temperature=10.0)(row)[1]
    assert 1 / len(row) - 1e-9 <= hot <= sure + 1e-9


def test_classes_keep_their_own_types():
    row = [0.1, 0.7, 0.2]
    for classes in (("a", "b", "c"), (1, "b", 2.5), (True, False, None)):
        assert row_reader("probabilities", classes=classes)(row)[0] == classes[1]
        values, _ = rows_reader("probabilities", classes=classes)(np.array([row, row[::-1]]))
        assert values.tolist() == [classes[1], classes[1]]


@pytest.mark.parametrize(
    ("row", "words"),
    [([], "no probabilities"), ([math.nan, 1.0], "NaN"), ([-0.5, 1.5], "negative"),
     ([0.5, 0.6], "sum to 1.1"), ([3.0, 4.0], "are they logits")],
)  # fmt: skip
def test_faults_say_what_is_wrong(row, words):
    with pytest.raises(OutputFault, match=words):
        row_reader("probabilities")(row)


@pytest.mark.parametrize("score", ["max_probability", "margin"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_what_is_below_zero_by_a_rounding_error_is_zero(score, temperature):
    """A converted forest of two classes says 1 - p in float32."""
    rounded, exact = [[-1.1920929e-07, 1.0000001], [0.75, 0.25]], [[0.0, 1.0], [0.75, 0.25]]
    found, wanted = (
        rows_reader("probabilities", score, temperature)(np.array(rows, dtype=np.float32))
        for rows in (rounded, exact)
    )
    assert found[0].tolist() == wanted[0].tolist() == [1, 0]
    assert found[1] == pytest.approx(wanted[1], abs=1e-6)
    assert found[1].max() <= 1.0
    one = row_reader("probabilities", score, temperature)
    for row, value, confidence in zip(rounded, *wanted, strict=True):
        assert one(row) == (value, pytest.approx(confidence, abs=1e-6))
        assert one(row)[1] <= 1.0
    one = row_reader("sigmoid", score, temperature)
    assert one([1.0000001]) == pytest.approx(one([1.0]), abs=1e-6)


def test_what_is_below_zero_by_more_is_a_fault():
    row = [-0.002, 1.0, 0.002]
    with pytest.raises(OutputFault, match="negative"):
        row_reader("probabilities")(row)
    _, confidences = rows_reader("probabilities")(np.array([row, [0.0, 0.5, 0.5]]))
    assert np.isnan(confidences).tolist() == [True, False]


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [3, 40])
def test_nearly_equal_probabilities_are_told_apart_at_any_temperature(temperature, classes):
    matrix = np.random.default_rng(0).dirichlet(np.full(classes, 500.0), 50).astype(np.float32)
    values, confidences = rows_reader("probabilities", "max_probability", temperature)(matrix)
    exact = matrix.astype(np.float64) ** (1.0 / temperature)
    assert values.tolist() == matrix.argmax(axis=1).tolist()
    assert confidences == pytest.approx(exact.max(axis=1) / exact.sum(axis=1), rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_thousand_classes_are_read_alike_by_row_and_batch(temperature):
    matrix = np.random.default_rng(0).dirichlet(np.full(1_000, 0.05), 5)
    values, confidences = rows_reader("probabilities", "max_probability", temperature)(matrix)
    one = row_reader("probabilities", "max_probability", temperature)
    pairs = [one(row) for row in matrix.tolist()]
    assert [value for value, _ in pairs] == values.tolist() == matrix.argmax(axis=1).tolist()
    assert [sure for _, sure in pairs] == pytest.approx(confidences.tolist(), abs=1e-9)


@pytest.mark.parametrize("temperature", [5e-324, 1e-100, 0.0005, 0.005, 0.01, 1e100, 1.7e308])
@pytest.mark.parametrize("score", ["max_probability", "margin"])
@pytest.mark.parametrize(
    ("kind", "classes"),
    [("sigmoid", 1), ("probabilities", 1), ("probabilities", 3), ("probabilities", 40),
     ("probabilities", 4_000), ("logits", 3), ("logits", 60)],
)  # fmt: skip
def test_no_temperature_is_too_cold_or_too_hot(kind, classes, score, temperature):
    rng = np.random.default_rng(0)
    matrix = rng.random((5, 1)) if kind == "sigmoid" else rng.dirichlet(np.full(classes, 5.0), 5)
    matrix[0] = 0.5 if kind == "sigmoid" else 1.0 / classes  # nothing to choose between
    matrix *= 0.9995 if kind == "probabilities" else 1.0
    for batch in (matrix, matrix.astype(np.float32)):
        values, confidences = rows_reader(kind, score, temperature)(batch)
        one = row_reader(kind, score, temperature)
        pairs = [one(row) for row in batch.tolist()]
        assert [value for value, _ in pairs] == values.tolist()
        assert [sure for _, sure in pairs] == pytest.approx(confidences.tolist(), abs=1e-3)
        assert all(0.0 <= sure <= 1.0 for _, sure in pairs)


def test_a_sigmoid_has_one_output():
    with pytest.raises(OutputFault, match="one sigmoid output per row, got 2"):
        row_reader("sigmoid")([0.2, 0.8])
    with pytest.raises(OutputFault, match="one sigmoid output per row, got 2"):
        rows_reader("sigmoid")(np.full((3, 2), 0.5))
