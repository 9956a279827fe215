"""Exactness by full enumeration: no seed, no repetition, no tolerance for luck."""

import numpy as np
import pytest
from scipy.stats import binom

from cascade.fitting.pvalues import binomial_p_values

CELLS = [(n, loss) for n in (50, 500, 2000) for loss in (0.01, 0.02, 0.05)]


def excess(p_values, n, max_loss):
    """The most by which P(p ≤ u) exceeds u, over all u, when the loss is exactly max_loss."""
    chances = binom.pmf(np.arange(n + 1), n, max_loss)
    order = np.argsort(p_values)
    reached = np.cumsum(chances[order])
    last_of_ties = np.r_[np.diff(p_values[order]) > 0, True]
    return float((reached - p_values[order])[last_of_ties].max())


@pytest.mark.parametrize(("n", "max_loss"), CELLS)
def test_p_values_are_super_uniform(n, max_loss):
    p_values = binomial_p_values(np.arange(n + 1), n, max_loss)
    assert excess(p_values, n, max_loss) <= 1e-11  # the sum of 2,001 floats


@pytest.mark.parametrize(("n", "max_loss"), CELLS)
def test_counting_one_loss_less_is_found_out(n, max_loss):
    off_by_one = binom.cdf(np.arange(n + 1) - 1, n, max_loss)
    assert excess(off_by_one, n, max_loss) > 0.03


@pytest.mark.parametrize(("n", "max_loss"), CELLS)
def test_the_normal_approximation_is_found_out(n, max_loss):
    from scipy.stats import norm

    rate = np.arange(n + 1) / n
    spread = np.sqrt(np.maximum(rate * (1 - rate), 1e-12) / n)
    assert excess(norm.cdf((rate - max_loss) / spread), n, max_loss) > 0.02


@pytest.mark.parametrize(
    ("n", "max_loss", "level"), [(2000, 0.05, 0.0979), (2000, 0.01, 0.0652), (50, 0.01, 0.0)]
)
def test_level_at_ten_percent(n, max_loss, level):
    losses = np.arange(n + 1)
    certified = binomial_p_values(losses, n, max_loss) <= 0.1
    assert binom.pmf(losses, n, max_loss)[certified].sum() == pytest.approx(level, abs=5e-5)
