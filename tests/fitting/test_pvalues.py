import numpy as np
import pytest
from scipy.stats import binom

from cascade.fitting.pvalues import binomial_p_values, rows_needed


@pytest.mark.parametrize("n", [1, 2, 50, 2000, 100_000])
@pytest.mark.parametrize("max_loss", [0.001, 0.05, 0.5])
def test_equals_the_binomial_distribution(n, max_loss):
    losses = np.unique(np.r_[0 : min(n, 200) + 1, n])
    expected = binom.cdf(losses, n, max_loss)
    np.testing.assert_allclose(binomial_p_values(losses, n, max_loss), expected, rtol=1e-9)


def test_no_rows_prove_nothing():
    assert binomial_p_values([0], 0, 0.05).tolist() == [1.0]


def test_all_lost_has_p_value_one():
    assert binomial_p_values([3], 3, 0.05).tolist() == [1.0]


@pytest.mark.parametrize(
    ("max_loss", "alpha", "rows"),
    [(0.05, 0.1, 45), (0.05, 0.05, 59), (0.01, 0.1, 230), (0.01, 0.05, 299), (0.001, 0.1, 2302)],
)
def test_least_rows_without_a_loss(max_loss, alpha, rows):
    assert rows_needed(max_loss, alpha) == rows
    assert binomial_p_values(0, rows, max_loss) <= alpha < binomial_p_values(0, rows - 1, max_loss)


def test_rows_needed_at_a_rate_suffice():
    rows = rows_needed(0.02, 0.1, rate=0.015)
    assert binomial_p_values(np.ceil(0.015 * rows), rows, 0.02) <= 0.1


def test_no_number_of_rows_proves_what_is_false():
    assert rows_needed(0.02, 0.1, rate=0.02) is None
    assert rows_needed(0.02, 0.1, rate=0.02 - 1e-9) is None
