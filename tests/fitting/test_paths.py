import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.fitting.paths import (
    _cells,
    _grid,
    call_shares,
    deciding_tiers,
    learned_path,
    midpoints,
)

COSTS = [1.0, 4.0, 25.0, 60.0]


def population(n, k, seed=0):
    """Tiers of rising skill whose confidence is their chance of being right, and a little noise."""
    rng = np.random.default_rng(seed)
    hard = rng.random((n, 1))
    skill = 1 - hard * np.linspace(0.5, 0.1, k)
    right = rng.random((n, k)) < skill
    sure = np.clip(skill + rng.normal(0, 0.03, (n, k)), 0, 1)[:, :-1]
    return sure, right[:, -1:] & ~right[:, :-1]


def test_thresholds_stand_midway_and_part_no_ties():
    assert midpoints([0.9, 0.5, 0.9, 0.7]).tolist() == pytest.approx([2.0, 0.8, 0.6, 0.0])


def test_near_ties_are_merged():
    assert midpoints([0.5, 0.5 + 9e-6, 0.6]).tolist() == pytest.approx([2.0, 0.5500045, 0.0])


def test_nan_is_no_confidence():
    assert midpoints([0.5, np.nan]).tolist() == [2.0, 0.0]


@given(st.lists(st.floats(0, 1), max_size=30))
def test_no_confidence_lies_within_reach_of_a_threshold(confidences):
    inner = midpoints(confidences)[1:-1]
    gaps = [abs(threshold - c) for threshold in inner for c in confidences]
    assert all(gap >= 0.4999e-5 for gap in gaps)


def test_equal_confidence_is_accepted_and_nan_is_not():
    confidences = np.array([[0.7, 0.0], [np.nan, 0.9], [0.6, 0.1]])
    assert deciding_tiers(confidences, [0.7, 0.9]).tolist() == [0, 1, 2]


def test_a_skipped_tier_is_not_called():
    assert call_shares(np.array([1, 2, 2, 2]), [2.0, 0.5], 3).tolist() == [0.0, 1.0, 0.75]


@pytest.mark.parametrize("k", [3, 4])
def test_cells_equal_routing_row_by_row(k):
    confidences, losses = population(200, k)
    confidences[:5, 0] = np.nan
    grids = [_grid(confidences[:, tier], 6) for tier in range(k - 1)]
    lost, cost = _cells(confidences, losses, COSTS[:k], grids)
    for cell in np.ndindex(lost.shape):
        thresholds = [grid[at] for grid, at in zip(grids, cell, strict=True)]
        deciding = deciding_tiers(confidences, thresholds)
        counted = sum(losses[deciding == tier, tier].sum() for tier in range(k - 1))
        assert lost[cell] == counted
        assert cost[cell] == pytest.approx(call_shares(deciding, thresholds, k) @ COSTS[:k] * 200)


@pytest.mark.parametrize("k", [3, 4])
def test_a_learned_path_falls_from_always_to_never(k):
    path = learned_path(*population(600, k), COSTS[:k], 0.05)
    assert (path[0] == 2.0).all()
    assert (path[-1] == 0.0).all()
    assert (np.diff(path, axis=0) <= 0.0).all()
    assert 10 < len(path) <= 2 * 64


def test_a_useless_tier_is_skipped():
    confidences, losses = population(2000, 3)
    guesses = np.random.default_rng(1).random((2000, 1))
    useless = np.column_stack([guesses, confidences[:, :1]])
    lossy = np.column_stack([guesses[:, 0] < 0.8, losses[:, 0]])
    path = learned_path(useless, lossy, [5.0, 6.0, 25.0], 0.05)
    assert (path[:20, 0] == 2.0).all()
    assert (path[1:20, 1] < 1.0).all()


def test_no_rows_to_learn_from():
    path = learned_path(np.zeros((0, 2)), np.zeros((0, 2), bool), COSTS[:3], 0.05)
    assert (path[0] == 2.0).all()


def test_a_threshold_that_can_be_reached_is_asked_and_one_that_cannot_is_not():
    deciding = np.array([0, 1, 2, 2])
    assert call_shares(deciding, [1.0, 1.0], 3).tolist() == [1.0, 0.75, 0.5]
    assert call_shares(np.array([1, 2]), [2.0, 0.5], 3).tolist() == [0.0, 1.0, 0.5]
    assert call_shares(np.array([2]), [1.0, 2.0], 3).tolist() == [1.0, 0.0, 1.0]
