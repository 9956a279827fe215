"""The betting test: valid at every n, and the same however the losses are given."""

import numpy as np
import pytest

from cascade.fitting.betting import betting_p_values


def signed(n, lost, won, columns=1, seed=0):
    shares = [lost, won, 1.0 - lost - won]
    drawn = np.random.default_rng(seed).choice([1, -1, 0], p=shares, size=(n, columns))
    return drawn.astype(np.int8)


def test_counts_and_amounts_agree():
    losses = signed(700, 0.01, 0.02, columns=5)
    exact = betting_p_values(losses, 0.02)
    assert betting_p_values(losses.astype(float), 0.02) == pytest.approx(exact)


def test_less_loss_is_stronger_evidence():
    p_values = [betting_p_values(signed(2_000, lost, 0.01), 0.02)[0] for lost in (0.0, 0.01, 0.03)]
    assert p_values[0] < p_values[1] < p_values[2]
    assert p_values[0] < 0.01
    assert p_values[2] > 0.1


def test_what_the_small_tier_wins_counts():
    assert betting_p_values(signed(2_000, 0.03, 0.06), 0.01)[0] < 1e-3
    assert betting_p_values(signed(2_000, 0.03, 0.0), 0.01)[0] > 0.5


def test_without_rows_nothing_is_known():
    assert betting_p_values(np.zeros((0, 3)), 0.01).tolist() == [1.0, 1.0, 1.0]


def test_graded_answers_are_taken_as_they_are():
    graded = np.full((2_000, 1), -0.01)
    assert betting_p_values(graded, 0.01)[0] < betting_p_values(np.zeros((2_000, 1)), 0.01)[0]


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.0), (0.05, 0.03), (0.3, 0.28)])
@pytest.mark.parametrize("n", [50, 500, 2_000])
def test_at_the_bound_it_errs_no_more_often_than_it_says(lost, won, n):
    """At a true mean of 0.02, of 2,000 draws: at most alpha and 3 standard deviations."""
    p_values = betting_p_values(signed(n, lost, won, columns=2_000, seed=n), 0.02)
    for alpha in (0.02, 0.1, 0.3):
        allowed = 2_000 * alpha + 3 * np.sqrt(2_000 * alpha * (1 - alpha))
        assert (p_values <= alpha).sum() <= allowed
