"""Budgets: what is a deadline, and what is said of what is none."""

import datetime as dt
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from cascade import Budget
from cascade.budget import nanoseconds


@pytest.mark.parametrize(
    "deadline",
    ["20ms", 0.02, np.float64(0.02), np.float32(0.02), np.float16(0.02), Fraction(1, 50)],
)
def test_a_number_of_seconds_may_be_numpys(deadline):
    assert abs(nanoseconds(deadline) - 20_000_000) < 10_000  # float16 has three digits
    assert type(nanoseconds(deadline)) is int
    assert nanoseconds(np.int64(2)) == nanoseconds(np.uint8(2)) == 2_000_000_000


@pytest.mark.parametrize(
    ("deadline", "words"),
    [
        (np.timedelta64(20, "ms"), r"got np.timedelta64\(20,'ms'\) \(of a span of time: its sec"),
        (dt.timedelta(milliseconds=20), "of a span of time"),
        (np.bool_(True), "got np.True_$"),
        (True, "got True$"),
        (None, "got nothing$"),
        (Decimal("0.02"), r"got Decimal\('0.02'\)$"),
        (np.array(0.02), r"got array\(0.02\)$"),
        ([1], "got a list$"),
        (b"1s", "got b'1s'$"),
    ],
)
def test_what_is_no_number_and_no_text_is_none(deadline, words):
    with pytest.raises(TypeError, match=rf"^deadline: expected seconds, .*{words}"):
        nanoseconds(deadline)


@pytest.mark.parametrize(
    "deadline", [0, -1, np.float32("nan"), np.inf, 10**400, "0s", np.int64(-1), 1e300]
)
def test_a_deadline_is_positive_and_finite(deadline):
    with pytest.raises(ValueError, match=r"^budget: must be positive and finite.{,70}$"):
        nanoseconds(deadline, "budget")


def test_an_error_names_the_argument():
    with pytest.raises(ValueError, match=r"^seconds: expected a duration such as 20ms"):
        Budget.after("soon", now=0)
    with pytest.raises(ValueError, match=r"^deadline: expected a duration such as 20ms"):
        nanoseconds("soon")


def test_a_budget_ends_at_a_moment():
    assert [Budget(moment).until for moment in (5, np.int64(5), 5.0)] == [5, 5, 5]
    for moment in (None, "5", True, np.timedelta64(5, "ns")):
        with pytest.raises(TypeError, match=r"until: expected a time\.monotonic_ns\(\), got"):
            Budget(moment)
    for moment in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"until: expected a time\.monotonic_ns\(\), got"):
            Budget(moment)
