"""From outputs to confidence: by hand, and the row readers against the batch readers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.confidence import OutputFault, row_reader, rows_reader, tolerance_for

KINDS = ("probabilities", "logits", "sigmoid")
SCORES = ("max_probability", "margin")


def softmax(logits):
    weights = [math.exp(z - max(logits)) for z in logits]
    return [w / math.fsum(weights) for w in weights]


# -- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "score", "row", "expected"),
    [
        ("probabilities", "max_probability", [0.2, 0.5, 0.3], (1, 0.5)),
        ("probabilities", "margin", [0.2, 0.5, 0.3], (1, 0.2)),
        ("probabilities", "max_probability", [1.0], (0, 1.0)),
        ("probabilities", "margin", [1.0], (0, 1.0)),
        ("probabilities", "max_probability", [0.5, 0.5], (0, 0.5)),
        ("probabilities", "max_probability", [0.0, 1.0005], (1, 1.0)),
        ("logits", "max_probability", [0.0, math.log(3)], (1, 0.75)),
        ("logits", "margin", [0.0, math.log(3)], (1, 0.5)),
        ("logits", "max_probability", [-1000.0, 1000.0], (1, 1.0)),
        ("logits", "max_probability", [0.0, -math.inf], (0, 1.0)),
        ("sigmoid", "max_probability", [0.25], (0, 0.75)),
        ("sigmoid", "margin", [0.75], (1, 0.5)),
    ],
)
def test_values_and_confidences(kind, score, row, expected):
    value, confidence = row_reader(kind, score)(row)
    assert (value, confidence) == (expected[0], pytest.approx(expected[1]))
    values, confidences = rows_reader(kind, score)(np.array([row]))
    assert (values[0], confidences[0]) == (expected[0], pytest.approx(expected[1]))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_divides_logits_and_log_probabilities_alike(temperature):
    logits = [0.5, 2.0, -1.0]
    expected = max(softmax([z / temperature for z in logits]))
    read = row_reader("logits", temperature=temperature)
    assert read(logits) == (1, pytest.approx(expected))
    read = row_reader("probabilities", temperature=temperature)
    assert read(softmax(logits)) == (1, pytest.approx(expected))


def test_log_probabilities_are_clipped_at_their_floor():
    _, confidence = row_reader("probabilities", temperature=4.0)([1.0, 0.0])
    assert confidence == pytest.approx(1 / (1 + (1e-12) ** 0.25))
    _, confidences = rows_reader("probabilities", temperature=4.0)(np.array([[1.0, 0.0]]))
    assert confidences[0] == pytest.approx(confidence)


def test_labels_keep_their_own_types():
    for classes in ((1, "one"), (False, 1), ("a", "b"), (1.5, 2)):
        for row in ([0.75, 0.25], [0.25, 0.75]):
            value, _ = row_reader("probabilities", classes=classes)(row)
            values, _ = rows_reader("probabilities", classes=classes)(np.array([row]))
            assert [(type(v), v) for v in (value, *values.tolist())] == [
                (type(classes[row.index(0.75)]), classes[row.index(0.75)])
            ] * 2


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-3), ("float32", 1e-3), ("float16", 1e-2), ("int8", 1e-2)],
)
def test_small_dtypes_may_sum_less_exactly(dtype, tolerance):
    assert tolerance_for(dtype) == tolerance
    read = row_reader("probabilities", tolerance=tolerance)
    off = tolerance * 0.9
    assert read([0.5 + off, 0.5])[0] == 0
    with pytest.raises(OutputFault, match="sum to"):
        read([0.5 + 2 * tolerance, 0.5])


@pytest.mark.parametrize(
    ("kind", "row", "why"),
    [
        ("probabilities", [], "no probabilities"),
        ("probabilities", [math.nan, 1.0], "NaN"),
        ("probabilities", [1.0, math.nan], "NaN"),
        ("probabilities", [0.6, 0.6], "sum to 1.2.*are they logits"),
        ("probabilities", [0.4, 0.4], "sum to 0.8"),
        ("probabilities", [1.5, -0.5], "negative"),
        ("probabilities", [math.inf, -math.inf], "NaN|negative"),
        ("logits", [math.nan, 1.0], "NaN"),
        ("logits", [1.0, math.nan], "NaN"),
        ("logits", [1.0, math.inf], "infinite"),
        ("logits", [-math.inf, -math.inf], "infinite"),
        ("logits", [], "NaN"),
        ("sigmoid", [math.nan], "NaN"),
        ("sigmoid", [1.5], "negative"),
        ("sigmoid", [-0.5], "negative"),
        ("sigmoid", [0.5, 0.5], "one sigmoid output"),
    ],
)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_is_no_output_is_a_fault(kind, row, why, score, temperature):
    with pytest.raises(OutputFault, match=why):
        row_reader(kind, score, temperature)(row)
    if not row:
        return
    good = {"probabilities": [0.5, 0.5], "logits": [0.0, 1.0], "sigmoid": [0.25]}[kind]
    read = rows_reader(kind, score, temperature)
    if len(row) != len(good):
        with pytest.raises(OutputFault, match=why):
            read(np.array([row, row]))
        return
    with np.errstate(invalid="ignore"):
        _, confidences = read(np.array([good, row, good]))
    assert np.isnan(confidences).tolist() == [False, True, False]


def test_a_batch_reader_leaves_its_input_alone():
    for kind in ("probabilities", "logits"):
        for score in SCORES:
            matrix = np.array([[0.25, 0.75], [0.0, 1.0]])
            matrix.flags.writeable = False
            rows_reader(kind, score, 0.5)(matrix)
            assert matrix.tolist() == [[0.25, 0.75], [0.0, 1.0]]


# -- rows and batches -----------------------------------------------------------------------------

temperatures = st.sampled_from([0.1, 0.5, 1.0, 1.7, 10.0])
odd = st.sampled_from([math.nan, math.inf, -math.inf, -0.5, 1.5, 0.0, 1e-300, 40.0])


@st.composite
def matrices(draw):
    """Draw rows of one kind, some of them broken, as they would come in some dtype."""
    kind = draw(st.sampled_from(KINDS))
    columns = 1 if kind == "sigmoid" else draw(st.sampled_from([1, 2, 3, 10, 49, 60]))
    logit = st.floats(-30, 30, width=16)
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        seeds = draw(st.lists(logit, min_size=1, max_size=min(columns, 10)))
        row = (seeds * columns)[:columns]
        if kind == "probabilities":
            row = softmax(row)
        elif kind == "sigmoid":
            row = [1 / (1 + math.exp(-z)) for z in row]
        if draw(st.integers(0, 3)) == 0:
            row[draw(st.integers(0, columns - 1))] = draw(odd)
        rows.append(row)
    dtype = draw(st.sampled_from(["float64", "float32", "float16"]))
    return kind, np.array(rows).astype(dtype)


@given(matrices(), st.sampled_from(SCORES), temperatures, st.booleans())
def test_row_by_row_and_as_a_batch_are_the_same(drawn, score, temperature, labelled):
    kind, matrix = drawn
    count = 2 if kind == "sigmoid" else matrix.shape[1]
    classes = tuple(f"class {i}" for i in range(count)) if labelled else None
    options = (kind, score, temperature, classes, tolerance_for(matrix.dtype))
    with np.errstate(invalid="ignore"):
        values, confidences = rows_reader(*options)(matrix)
    one = row_reader(*options)
    for i, row in enumerate(matrix.tolist()):
        try:
            value, confidence = one(row)
        except OutputFault:
            assert math.isnan(confidences[i]) or _at_the_edge(row, options)
            continue
        if math.isnan(confidences[i]):
            assert _at_the_edge(row, options)
            continue
        assert values[i] == value
        assert confidence == pytest.approx(confidences[i], abs=2e-6)
        assert 0.0 <= confidence <= 1.0
        assert 0.0 <= confidences[i] <= 1.0 + 1e-12


def _at_the_edge(row, options):
    """Whether a sum is so near its tolerance that the order of addition decides."""
    kind, *_, tolerance = options
    return kind == "probabilities" and abs(abs(math.fsum(row) - 1) - tolerance) < 1e-6


@given(matrices(), st.sampled_from(SCORES), temperatures, temperatures)
def test_the_hotter_the_less_sure(drawn, score, one, other):
    kind, matrix = drawn
    cold, hot = sorted((one, other))
    with np.errstate(invalid="ignore"):
        surer = rows_reader(kind, score, cold)(matrix)[1]
        less = rows_reader(kind, score, hot)(matrix)[1]
    sound = np.isfinite(surer)
    assert sound.tolist() == np.isfinite(less).tolist()
    assert (surer[sound] >= less[sound] - 2e-6).all()
