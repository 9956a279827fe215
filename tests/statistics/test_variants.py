"""Ten thousand samples of a population whose risk crosses the bound at a grid point.

With few levels of confidence the counts of a sample are multinomial, so that ten thousand samples
take a second. A correct rule breaks its promise at most 1,095 times at alpha 0.1 (but once in a
thousand such runs); the naive threshold and seven ways to get the test wrong are all found out.
"""

import numpy as np
import pytest
from scipy.special import bdtr, ndtr

from cascade.fitting.betting import betting_p_values
from cascade.fitting.pvalues import binomial_p_values

ALPHA, REPEATS, LEVELS, ALLOWED = 0.1, 10_000, 60, 1_095


def population(max_loss):
    """Shares of rows per level, surest first, and their loss; the risk crosses at level 30."""
    share = np.full(LEVELS, 1 / LEVELS)
    loss = np.linspace(0.2, 1.0, LEVELS) ** 2
    crossing = LEVELS // 2
    risk = (share * loss).cumsum()
    loss *= max_loss / risk[crossing] * (1 + 1e-9)  # by next to nothing: the hardest case
    return share, loss, (share * loss).cumsum()


def counts(n, max_loss, seed=0):
    """Losses among n rows at each point, (REPEATS, LEVELS): all levels at least as sure."""
    share, loss, risk = population(max_loss)
    drawn = np.random.default_rng(seed).multinomial(
        n, np.r_[share * loss, 1 - (share * loss).sum()], size=REPEATS
    )
    return drawn[:, :-1].cumsum(axis=1), risk


def last(p_values, alpha):
    """The last point before the first failure; -1: always escalate."""
    failed = p_values > alpha
    return np.where(failed.any(axis=1), failed.argmax(axis=1), p_values.shape[1]) - 1


def broken(chosen, risk, max_loss):
    return int((np.r_[risk, 0.0][chosen] > max_loss).sum())  # the last entry is for -1


def exact(lost, n, max_loss):
    return last(binomial_p_values(lost, n, max_loss), ALPHA)


def wald(lost, n, max_loss):
    rate = lost / n
    spread = np.sqrt(np.maximum(rate * (1 - rate), 1e-12) / n)
    return last(ndtr((rate - max_loss) / spread), ALPHA)


def shifted(by):
    def rule(lost, n, max_loss):
        chosen = exact(lost, n, max_loss)
        return np.minimum(chosen + by, LEVELS - 1)

    return rule


WRONG = {
    "naive": lambda lost, n, d: last((lost / n > d).astype(float), 0.5),
    "alpha of a half": lambda lost, n, d: last(binomial_p_values(lost, n, d), 0.5),
    "grid off by five": shifted(5),
    "off by one": shifted(1),
    "twice alpha": lambda lost, n, d: last(binomial_p_values(lost, n, d), 2 * ALPHA),
    "Wald": wald,
    "k - 1": lambda lost, n, d: last(np.where(lost > 0, bdtr(lost - 1.0, n, d), 0.0), ALPHA),
    "best of all points": lambda lost, n, d: (
        LEVELS - 1 - (binomial_p_values(lost, n, d)[:, ::-1] <= 1.5 * ALPHA).argmax(axis=1)
    ),
}
CASES = [(500, 0.02), (500, 0.05), (2_000, 0.02), (2_000, 0.05)]


@pytest.mark.parametrize(("n", "max_loss"), CASES)
def test_the_exact_test_keeps_its_promise(n, max_loss):
    lost, risk = counts(n, max_loss)
    assert broken(exact(lost, n, max_loss), risk, max_loss) <= ALLOWED


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_variants_are_found_out(wrong):
    worst = 0
    for n, max_loss in CASES:
        lost, risk = counts(n, max_loss)
        worst = max(worst, broken(WRONG[wrong](lost, n, max_loss), risk, max_loss))
    assert worst > ALLOWED


@pytest.mark.parametrize(("n", "max_loss"), [(500, 0.05), (2_000, 0.02)])
def test_the_betting_test_keeps_its_promise_on_signed_losses(n, max_loss):
    """Two points: one that keeps the bound with room, one whose mean loss is the bound."""
    rng, bad = np.random.default_rng(1), 0
    shares = [0.08 + max_loss, 0.08, 0.84 - max_loss]
    for _ in range(REPEATS // 500):
        hard = rng.choice(np.array([1, -1, 0], np.int8), p=shares, size=(n, 500))
        easy = hard * (rng.random((n, 500)) < 0.3)
        held = (betting_p_values(easy, max_loss) <= ALPHA) & (
            betting_p_values(hard, max_loss) <= ALPHA
        )
        bad += int(held.sum())
    assert bad <= ALLOWED
