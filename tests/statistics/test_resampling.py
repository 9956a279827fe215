"""Draw samples from pools whose risk is known, certify, and count broken promises.

The bounds leave room for chance alone: a correct test breaks them once in some thousand seeds.
"""

import numpy as np
import pytest
from scipy.stats import binom

from cascade.fitting.certify import fixed_sequence_test
from cascade.fitting.paths import (
    call_shares,
    deciding_tiers,
    learned_path,
    midpoints,
    two_tier_path,
)

ALPHA = 0.1


def smooth(n=20_000, k=2):
    """Confidence is the chance of being right, with some noise."""
    rng = np.random.default_rng(0)
    hard = rng.random((n, 1))
    skill = 1 - hard * np.linspace(0.5, 0.05, k)
    right = rng.random((n, k)) < skill
    sure = np.clip(skill + rng.normal(0, 0.05, (n, k)), 0, 1)[:, :-1]
    return sure, right[:, -1:] & ~right[:, :-1]


def stepped(max_loss, n=20_000):
    """Four levels of confidence; the risk crosses max_loss at the third, by a single row."""
    sure = np.repeat([0.9, 0.8, 0.7, 0.6], n // 4)[:, None]
    lost = np.zeros((n, 1), dtype=bool)
    lost[n // 2 : n // 2 + int(n * max_loss) + 1] = True
    lost[-n // 8 :] = True
    return sure, lost


def risk(pool, thresholds):
    sure, lost = pool
    deciding = deciding_tiers(sure, thresholds)
    padded = np.column_stack([lost, np.zeros(len(lost), dtype=bool)])
    return padded[np.arange(len(lost)), deciding]


def exact(sure, lost, max_loss):
    tested = fixed_sequence_test(two_tier_path(sure), sure, lost, max_loss=max_loss, alpha=ALPHA)
    return tested.thresholds[tested.certified - 1]


def naive(sure, lost, max_loss):
    path = midpoints(sure)
    order = np.argsort(-sure[:, 0])
    share = np.r_[0, lost[order, 0].cumsum()] / len(sure)
    accepted = np.searchsorted(-sure[order, 0], -path, side="right")
    return path[[np.flatnonzero(share[accepted] <= max_loss)[-1]]]


def broken(pool, n, max_loss, rule, repeats, seed=1):
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(repeats):
        at = rng.integers(0, len(pool[0]), n)
        chosen = rule(pool[0][at], pool[1][at], max_loss)
        count += risk(pool, chosen).mean() > max_loss
    return count


@pytest.mark.parametrize(("n", "max_loss"), [(500, 0.05), (2000, 0.02)])
@pytest.mark.parametrize("kind", ["smooth", "stepped"])
def test_two_tiers_keep_their_promise(kind, n, max_loss):
    pool = smooth() if kind == "smooth" else stepped(max_loss)
    repeats = 400
    assert broken(pool, n, max_loss, exact, repeats) <= binom.isf(1e-3, repeats, ALPHA)


def test_the_naive_threshold_is_found_out():
    assert broken(smooth(), 500, 0.05, naive, 100) > 30


def test_the_test_uses_its_alpha():
    count = broken(stepped(0.05), 2000, 0.05, exact, 400)
    assert count >= 400 * 0.0979 - 4 * np.sqrt(400 * 0.0979)


def test_three_tiers_keep_their_promise_wherever_they_move():
    pool, repeats, count = smooth(k=3), 150, 0
    rng = np.random.default_rng(2)
    for _ in range(repeats):
        at = rng.integers(0, len(pool[0]), 900)
        sure, lost = pool[0][at], pool[1][at]
        path = learned_path(sure[:300], lost[:300], [1.0, 4.0, 25.0], 0.05, ALPHA)
        tested = fixed_sequence_test(path, sure[300:], lost[300:], max_loss=0.05, alpha=ALPHA)
        ever = np.any([risk(pool, point) for point in path[: tested.certified]], axis=0)
        count += ever.mean() > 0.05
        assert (path[0] == 2.0).all()
    assert count <= binom.isf(1e-3, repeats, ALPHA)


# -- what honesty costs ----------------------------------------------------------------------------


def best_cell(pool, costs, max_loss, size=48):
    """The cheapest thresholds whose risk on the pool keeps the bound, by looking at all of it."""
    grids = [np.quantile(column, np.linspace(0, 1, size)) for column in pool[0].T]
    best = np.inf
    for cell in np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1).reshape(-1, len(grids)):
        if risk(pool, cell).mean() <= max_loss:
            best = min(best, price(pool, cell, costs))
    return best


def price(pool, thresholds, costs):
    deciding = deciding_tiers(pool[0], thresholds)
    return call_shares(deciding, thresholds, len(costs)) @ np.asarray(costs)


def test_two_tiers_escalate_little_more_than_one_who_knows():
    pool, rng = smooth(), np.random.default_rng(3)
    oracle = best_cell(pool, [0.0, 1.0], 0.05, size=400)
    found = []
    for _ in range(40):
        at = rng.integers(0, len(pool[0]), 2_000)
        found.append(price(pool, exact(pool[0][at], pool[1][at], 0.05), [0.0, 1.0]))
    assert np.mean(found) <= oracle + 0.05


def test_three_tiers_cost_little_more_than_for_one_who_knows():
    pool, rng, costs = smooth(k=3), np.random.default_rng(4), [1.0, 4.0, 25.0]
    small = (pool[0][:4_000], pool[1][:4_000])
    oracle = best_cell(small, costs, 0.05, size=30)
    found = []
    for _ in range(15):
        at = rng.integers(0, len(pool[0]), 4_000)
        sure, lost = pool[0][at], pool[1][at]
        path = learned_path(sure[:1_333], lost[:1_333], costs, 0.05, ALPHA)
        tested = fixed_sequence_test(path, sure[1_333:], lost[1_333:], max_loss=0.05, alpha=ALPHA)
        found.append(price(pool, path[tested.certified - 1], costs))
    assert np.mean(found) <= 1.10 * oracle
