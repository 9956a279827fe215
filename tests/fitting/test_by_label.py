"""Confidence by label: fitted rising, applied alike to a row and to rows."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.calibration import ByLabel
from cascade.fitting.by_label import cross_fitted, fit_by_label
from cascade.recorder import Answer


def population(n, seed=0):
    """A tier that knows 'a' whatever it says, and 'b' only when it is sure."""
    rng = np.random.default_rng(seed)
    labels, sure = rng.choice(["a", "b"], n), rng.random(n)
    lost = rng.random(n) < np.where(labels == "a", 0.01, 0.6 * (1 - sure))
    return labels, sure, lost.astype(float)


def test_it_tells_labels_apart():
    table = fit_by_label(*population(4_000))
    assert table.one("a", 0.2) > 0.95
    assert table.one("b", 0.2) < 0.7
    assert table.one("b", 0.99) > 0.9
    assert table.one("b", 0.2) < table.one("eel", 0.2) < table.one("a", 0.2)


def test_signed_losses_stay_in_the_unit_interval():
    labels, sure, lost = population(2_000)
    table = fit_by_label(labels, sure, lost - 2 * (labels == "a"))
    assert all(0 <= x <= 1 for line in table.labels.values() for x in line)


def test_confidence_still_ranks_where_the_data_are_flat():
    table = fit_by_label(np.array(["a"] * 50), np.linspace(0, 1, 50), np.zeros(50))
    assert table.one("a", 0.1) < table.one("a", 0.11)


def test_a_rare_label_is_not_believed_on_a_few_rows():
    labels, sure, lost = population(3_000)
    rare = fit_by_label(np.r_[labels, ["c"] * 3], np.r_[sure, [0.5] * 3], np.r_[lost, [1.0] * 3])
    assert abs(rare.one("c", 0.5) - rare.one("eel", 0.5)) < 0.15


def test_cross_fitting_flatters_less():
    labels, sure, _ = population(300)
    noise = (np.random.default_rng(1).random(300) < 0.5).astype(float)
    inside = fit_by_label(labels, sure, noise).rows(labels, sure)
    outside = cross_fitted(labels, sure, noise)
    assert np.corrcoef(inside, noise)[0, 1] < np.corrcoef(outside, noise)[0, 1]


TABLE = ByLabel([0.1, 0.4, 0.9], {"a": [0.2, 0.5, 0.6], "7": [0.0, 0.1, 1.0]}, [0.3, 0.4, 0.5])


@given(st.lists(st.tuples(st.sampled_from(["a", "7", "eel"]), st.floats(0, 1)), min_size=1))
def test_a_row_and_rows_say_the_same(pairs):
    values, confidences = (np.array(column) for column in zip(*pairs, strict=True))
    together = TABLE.rows(values, confidences)
    alone = [TABLE.one(value, confidence) for value, confidence in pairs]
    assert together.tolist() == pytest.approx(alone)


def test_faults_stay_faults_and_numbers_are_labels():
    assert TABLE.one("a", None) is None
    assert np.isnan(TABLE.one("a", np.nan))
    assert np.isnan(TABLE.rows(np.array(["a"]), np.array([np.nan]))).all()
    assert TABLE.one(7, 0.9) == TABLE.rows(np.array([7]), np.array([0.9]))[0] == 1.0


@pytest.mark.parametrize("answers", [[True, False], [None, 2, 1.5], [["a"], ["b", 1]], [{"a": 1}]])
def test_answers_of_any_kind_are_labels_by_what_is_recorded_of_them(answers):
    recorded = Answer("small", "auto", answers[-1], 0.5).cells()["small.value"]
    table = ByLabel([0.0, 1.0], {recorded: [0.8, 0.9]}, [0.0, 0.1])
    sure = np.zeros(len(answers))
    assert table.rows(answers, sure).tolist() == [table.one(answer, 0.0) for answer in answers]
    assert table.one(answers[-1], 0.0) == 0.8


def test_it_is_written_as_json_and_read_back():
    again = ByLabel(**json.loads(json.dumps(TABLE.to_dict())))
    assert again.to_dict() == TABLE.to_dict()


@pytest.mark.parametrize(
    ("knots", "labels", "other"),
    [([0.5], {}, [0.5]), ([0, 1], {"a": [0.5, 0.4]}, [0, 1]), ([0, 1], {"a": [0.5]}, [0, 1]),
     ([0, 2], {}, [0, 1]), ([0, 1], {}, [0.2, float("nan")])],
)  # fmt: skip
def test_what_is_no_rising_line_is_refused(knots, labels, other):
    with pytest.raises(ValueError, match="expected"):
        ByLabel(knots, labels, other)
