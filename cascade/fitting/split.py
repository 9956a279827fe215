"""Seeded splits: rows to learn from, rows to test on, and never the same for both."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["FOLDS", "LEARN_SHARE", "hold_out", "learn_and_test", "out_of_fold", "seed_of"]

LEARN_SHARE = 1.0 / 3.0
"""The share of held-out rows that temperature and path are learned from; the rest is the test."""
_SEEDS = 2**32  # as many as NumPy and scikit-learn take


def seed_of(seed: Any) -> int:
    """Return a seed that can be written down: the one given, or where there is none, a fresh one.

    Raises:
        ValueError: it is no seed.
    """
    if seed is None:
        return int(np.random.default_rng().integers(_SEEDS))
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < _SEEDS:
        raise ValueError(f"seed: expected a whole number between 0 and {_SEEDS - 1}, got {seed!r}")
    return int(seed)


def hold_out(
    codes: npt.NDArray[Any], share: float, rng: np.random.RandomState, least: int = 1
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Split n rows at random into training rows and held-out rows, a share ``share`` of them.

    Not stratified: what is certified is the loss on a row drawn like these, and only a plain random
    sample is that. A class that would have less than ``least`` training rows gets what is missing
    from the held-out rows, which a mask (of the held-out rows) tells: they stand in both, as rows
    that can only be counted as lost. With a share of 1 there are no training rows. ``codes`` (n,)
    are the classes as integers.
    """
    n = len(codes)
    if share == 1.0:
        return np.arange(0), np.arange(n), np.zeros(n, dtype=np.bool_)
    order = rng.permutation(n)
    held = np.zeros(n, dtype=np.bool_)
    held[order[: round(share * n)]] = True
    moved = np.zeros(n, dtype=np.bool_)
    for code in np.unique(codes):
        own = order[codes[order] == code]
        missing = max(0, least - int((~held[own]).sum()))
        moved[own[held[own]][:missing]] = True
    return np.flatnonzero(~held | moved), np.flatnonzero(held), moved[held]


def learn_and_test(
    n: int, rng: np.random.RandomState
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split n held-out rows at random: a third to learn from, the rest to test.

    >>> learn, test = learn_and_test(9, np.random.RandomState(0))
    >>> len(learn), len(test)
    (3, 6)
    """
    order = rng.permutation(n)
    cut = int(n * LEARN_SHARE)
    return np.sort(order[:cut]), np.sort(order[cut:])


FOLDS = 5
"""Parts that rows are cross-fitted in."""


def out_of_fold(n: int, judge: Callable[[Any, Any], npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Return (n,) numbers, each by a fit that did not see its row.

    ``judge(rest, mine)`` fits on the rows ``rest`` and judges the rows ``mine``, both (n,) bool.

    >>> out_of_fold(10, lambda rest, mine: np.full(mine.sum(), rest.sum())).tolist()[:3]
    [8.0, 8.0, 8.0]
    """
    found, fold = np.empty(n), np.arange(n) % FOLDS
    for k in range(min(FOLDS, n)):
        mine = fold == k
        found[mine] = judge(~mine, mine)
    return found
