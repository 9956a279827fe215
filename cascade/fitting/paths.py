"""Candidate paths: operating points in order, from 'always escalate' to 'never'.

Two tiers: every distinct threshold, midway between neighbouring confidences. More: the cheapest
cells of a quantile grid per level of loss, learned on rows that the test will not see (after
Pareto testing, Laufer-Goldshtein et al., arXiv 2210.07913).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.fitting.pvalues import binomial_p_values
from cascade.types import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = [
    "MERGE", "call_shares", "deciding_tiers", "learned_path", "midpoints", "oracle_cost",
    "two_tier_path",
]  # fmt: skip

MERGE = 1e-5
"""Confidences closer than this are one: a model's last bits differ between batch sizes."""

_CELLS = 20_000  # of the grid over all tiers
_FINEST = 64  # thresholds per tier
_LEVELS = 48  # of loss up to the target of a learned path,
_BEYOND = 20  # and after it


def midpoints(confidences: npt.ArrayLike) -> Floats:
    """Return the thresholds worth trying, from high to low: 2.0 (never accept), …, 0.0 (always).

    Each lies midway between neighbouring confidences, so that no row stands on it; neighbours
    closer than 1e-5 are not parted, so that ties and near-ties move together.

    >>> midpoints([0.9, 0.5, 0.9, 0.7]).round(3).tolist()
    [2.0, 0.8, 0.6, 0.0]
    """
    wide = np.asarray(confidences, dtype=np.float64)
    known = np.unique(wide[~np.isnan(wide)])[::-1]
    apart = known[:-1] - known[1:] >= MERGE
    between = (known[:-1] + known[1:])[apart] / 2.0
    return np.concatenate([[NEVER], between, [0.0]])


def two_tier_path(confidences: npt.ArrayLike) -> Floats:
    """Return (points, 1): the midpoints of the lower tier's confidences (n,) or (n, 1).

    The same rows may serve the test: the 0/1 losses cannot fall as the threshold does.
    """
    return midpoints(np.asarray(confidences, dtype=np.float64).ravel())[:, None]


def deciding_tiers(
    confidences: Floats, thresholds: Sequence[float] | Floats
) -> npt.NDArray[np.intp]:
    """Return (n,): the first tier whose confidence reaches its threshold, else the top one.

    ``confidences`` is (n, K-1). NaN reaches nothing.

    >>> deciding_tiers(np.array([[0.9, 0.1], [0.2, 0.8], [np.nan, 0.1]]), [0.7, 0.7]).tolist()
    [0, 1, 2]
    """
    passed = confidences >= np.asarray(thresholds)
    top = confidences.shape[1]
    return np.asarray(np.where(passed.any(axis=1), passed.argmax(axis=1), top), dtype=np.intp)


def call_shares(deciding: npt.NDArray[Any], thresholds: Sequence[float] | Floats, k: int) -> Floats:
    """Return (K,): the share of rows that call each tier.

    A tier whose threshold no confidence can reach is skipped: its answer could not matter.
    """
    n = max(len(deciding), 1)
    counts = np.bincount(deciding, minlength=k)
    reached = counts[::-1].cumsum()[::-1] / n
    reached[:-1][np.asarray(thresholds) > 1.0] = 0.0
    return np.asarray(reached, dtype=np.float64)


def learned_path(
    confidences: Floats, losses: npt.NDArray[np.bool_], costs: Sequence[float], max_loss: float,
    alpha: float = 0.1,
) -> Floats:  # fmt: skip
    """Return (points, K-1), learned on rows that must not be those of the test.

    ``confidences`` and ``losses`` are (n, K-1), ``costs`` (K,) is the cost of one call per tier.
    The target is the cheapest cell of the grid whose loss a test on twice these rows would pass.
    The path leads there from 'always escalate', by the cheapest cell per level of loss, and on to
    'never'. Thresholds only fall on the way, and what the target skips is skipped until there:
    a path that changed its ways would lose other rows at each turn, and all of them count.
    """
    n, below = confidences.shape
    grids = [_grid(confidences[:, tier], _grid_size(below)) for tier in range(below)]
    lost, cost = _cells(confidences, losses, costs, grids)
    level = _passing(n, max_loss, alpha)
    target = _cheapest(lost, cost, level, [(0, size - 1) for size in lost.shape])
    assert target is not None  # noqa: S101  'always escalate' loses nothing
    down, up = _chain_down(lost, cost, target), _chain_up(lost, cost, target)
    indices = _filled(np.vstack([np.zeros((1, below), dtype=np.intp), down, up]))
    indices[1:] = np.maximum(indices[1:], np.minimum(target, 1))  # what the target uses is used
    path = np.column_stack([grids[tier][indices[:, tier]] for tier in range(below)])
    return path[np.r_[True, (np.diff(path, axis=0) != 0.0).any(axis=1)]]


def _filled(corners: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Go from corner to corner in steps of one cell: a test may end anywhere between two."""
    legs = [corners[:1]]
    for start, end in pairwise(corners):
        steps = np.linspace(0.0, 1.0, int(np.abs(end - start).max()) + 1)[1:, None]
        legs.append(np.rint(start + steps * (end - start)).astype(np.intp))
    return np.vstack(legs)


def _passing(n: int, max_loss: float, alpha: float) -> float:
    """The count of losses among n rows at whose rate a test on 2n rows would pass."""
    counts = np.arange(int(2 * n * max_loss) + 1)
    return float((binomial_p_values(counts, 2 * n, max_loss) <= alpha).sum() - 1) / 2.0


def _cheapest(
    lost: Floats, cost: Floats, level: float, box: list[tuple[int, int]]
) -> tuple[int, ...] | None:
    """The cheapest cell in a box of the grid that loses at most ``level`` rows, if there is one."""
    window = tuple(slice(low, high + 1) for low, high in box)
    price = np.where(lost[window] <= max(level, 0.0), cost[window], np.inf)
    best = np.unravel_index(int(price.argmin()), price.shape)
    if not np.isfinite(price[best]):
        return None
    return tuple(int(at) + low for at, (low, _) in zip(best, box, strict=True))


def _chain_down(lost: Floats, cost: Floats, target: tuple[int, ...]) -> npt.NDArray[np.intp]:
    """From the target to ever smaller losses, by cells that use the same tiers; given backwards."""
    chain = [target]
    levels = np.unique(np.rint(np.linspace(0.0, lost[target], _LEVELS, endpoint=False)))
    for level in levels[::-1]:
        box = [(min(1, at), at) for at in chain[-1]]
        cell = _cheapest(lost, cost, float(level), box)
        if cell is None:
            break
        chain.append(cell)
    return np.array(chain[::-1])


def _chain_up(lost: Floats, cost: Floats, target: tuple[int, ...]) -> npt.NDArray[np.intp]:
    """From the target on to greater losses, and at last to 'never escalate'."""
    chain = [target]
    last = tuple(size - 1 for size in lost.shape)
    for level in np.geomspace(lost[target] + 1.0, lost[last] + 1.0, _BEYOND):
        box = list(zip(chain[-1], last, strict=True))
        chain.append(_cheapest(lost, cost, float(level), box) or chain[-1])
    return np.array([*chain[1:], last])


def _grid_size(below: int) -> int:
    return min(_FINEST, max(4, int(_CELLS ** (1.0 / below))))


def _grid(confidences: Floats, size: int) -> Floats:
    candidates = midpoints(confidences)
    if len(candidates) <= size:
        return candidates
    ascending = np.sort(confidences[~np.isnan(confidences)])
    accepted = len(ascending) - np.searchsorted(ascending, candidates)
    wanted = np.linspace(0, accepted[-1], size)
    return candidates[np.unique(np.searchsorted(accepted, wanted))]


def _cells(
    confidences: Floats, losses: npt.NDArray[np.bool_], costs: Sequence[float], grids: list[Floats]
) -> tuple[Floats, Floats]:
    """Count the losses and the cost of every cell of the grid: O(n K), and sums over the cells."""
    below = len(grids)
    shape = [len(grid) for grid in grids]
    bins = [_first_reached(confidences[:, tier], grids[tier]) for tier in range(below)]
    lost, cost = np.zeros(shape), np.zeros(shape)
    rows = np.zeros(0)
    for tier in range(below):
        rows = _histogram(bins[: tier + 1], shape, None)
        lossy = _histogram(bins[: tier + 1], shape, losses[:, tier])
        for axis in range(tier):
            rows, lossy = _not_accepted(rows, axis), _not_accepted(lossy, axis)
        lost += _spread(_accepted(lossy, tier), below)
        reaching = np.repeat(rows.sum(axis=tier, keepdims=True), shape[tier], axis=tier)
        reaching[..., 0] = 0.0  # index 0 is 'never accept': the tier is skipped
        cost += costs[tier] * _spread(reaching, below)
    return lost, cost + costs[below] * _not_accepted(rows, below - 1)


def _first_reached(confidences: Floats, grid: Floats) -> npt.NDArray[np.intp]:
    """The first index of the falling grid whose threshold each row reaches; its length for NaN."""
    reached = np.searchsorted(grid[::-1], confidences, side="right")
    return np.where(np.isnan(confidences), len(grid), len(grid) - reached)


def _histogram(
    bins: list[npt.NDArray[np.intp]], shape: list[int], weights: npt.NDArray[Any] | None
) -> Floats:
    sizes = [size + 1 for size in shape[: len(bins)]]
    flat = np.ravel_multi_index(bins, sizes)
    table = np.bincount(flat, weights=weights, minlength=int(np.prod(sizes)))
    return np.asarray(table.reshape(sizes), dtype=np.float64)


def _accepted(table: Floats, axis: int) -> Floats:
    """Sum the rows that a tier accepts at each index of its grid: those that reach it by then."""
    return np.asarray(np.take(table.cumsum(axis=axis), range(table.shape[axis] - 1), axis=axis))


def _not_accepted(table: Floats, axis: int) -> Floats:
    return np.asarray(table.sum(axis=axis, keepdims=True) - _accepted(table, axis))


def _spread(table: Floats, axes: int) -> Floats:
    return table.reshape(table.shape + (1,) * (axes - table.ndim))


def oracle_cost(right: npt.NDArray[np.bool_], costs: Floats) -> float:
    """Return the cost of the top tier's accuracy for one who knows which tier is right, (n, K).

    The first tier is always paid, and one that helps; a row that the top tier gets wrong is left to
    the first one.

    >>> oracle_cost(np.array([[True, True], [False, True]]), np.array([1.0, 10.0]))
    6.0
    """
    lost = right[:, -1] & ~right[:, 0]
    helping = np.where(right, costs, np.inf)[lost].min(axis=1)
    return float(costs[0] + helping.sum() / len(right))
