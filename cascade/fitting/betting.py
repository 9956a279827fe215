"""p-values for the signed loss, by betting against it.

Waudby-Smith & Ramdas, 'Estimating means of bounded random variables by betting' (JRSS-B 2024): a
gambler who bets that the mean loss is below ``max_loss`` multiplies the stake by
``1 + λ(max_loss - loss)`` at every row. If the mean is not below, no bet can be expected to gain,
so the stake ever reaches 1/p with probability at most p (Ville), whatever n is. Several bets share
the stake, because the best λ is not known beforehand, and the gambler stops when it is highest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["betting_p_values"]

_BETS = 16
_SMALLEST, _BOLDEST = 0.005, 0.9  # of the largest bet that cannot ruin
_LOOKS = 256  # times at which the stake is looked at


def betting_p_values(losses: npt.ArrayLike, max_loss: float) -> npt.NDArray[np.float64]:
    """Return (P,) p-values of 'the mean is at least max_loss' for losses (n, P) in [-1, 1].

    The rows must be in random order: the stake is followed from the first to the last.

    >>> betting_p_values(np.zeros((1_000, 1)), 0.01).round(4).tolist()
    [0.0017]
    """
    table = np.asarray(losses)
    n = len(table)
    if n == 0:
        return np.ones(table.shape[1])
    starts = np.unique(np.linspace(0, n, _LOOKS, endpoint=False).astype(np.intp))
    bets = np.geomspace(_SMALLEST, _BOLDEST, _BETS) / (1.0 - max_loss)
    if table.dtype.kind in "bi":  # -1, 0 or 1: counts say it all
        won, lost = (np.add.reduceat(table == sign, starts, dtype=np.int64) for sign in (-1, 1))
        sizes = np.diff(np.r_[starts, n])[:, None]
        steps = [
            lost * np.log1p(bet * (max_loss - 1.0))
            + won * np.log1p(bet * (max_loss + 1.0))
            + (sizes - lost - won) * np.log1p(bet * max_loss)
            for bet in bets
        ]
    else:
        gain = max_loss - table.astype(np.float64)
        steps = [np.add.reduceat(np.log1p(bet * gain), starts) for bet in bets]
    stake = logsumexp(np.cumsum(steps, axis=1), axis=0) - np.log(_BETS)
    return np.asarray(np.minimum(1.0, np.exp(-stake.max(axis=0))))
