"""Exact p-values for 'the loss is at most max_loss', from counted losses.

A row is lost or not, so the losses of n independent rows at one operating point are binomial. No
approximation: the Wald form and k-1 are both invalid at the sizes that matter here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import bdtr

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["LARGEST_SAMPLE", "binomial_p_values", "rows_needed"]

LARGEST_SAMPLE = 10**9
"""Sample sizes beyond this are reported as out of reach."""


def binomial_p_values(losses: npt.ArrayLike, n: int, max_loss: float) -> npt.NDArray[np.float64]:
    """Return P(Binomial(n, max_loss) ≤ losses): small when the loss is provably below max_loss.

    Super-uniform whenever the true loss is at least ``max_loss``, at every n. ``bdtr`` is the
    regularised incomplete beta function, without the second that ``scipy.stats`` takes to import.

    >>> binomial_p_values([0, 5], 230, 0.01).round(4).tolist()
    [0.0991, 0.9708]
    """
    counted = np.asarray(losses, dtype=np.float64)
    if n == 0:
        return np.ones_like(counted)
    # At k = n the tail is everything; bdtr says NaN there when rounding gets in its way.
    inside = np.minimum(counted, n - 1)
    p = np.asarray(bdtr(inside, n, max_loss), dtype=np.float64)
    return np.where(counted >= n, 1.0, p)


def rows_needed(max_loss: float, alpha: float, rate: float = 0.0) -> int | None:
    """Return the least number of rows that certifies ``max_loss``, if a share ``rate`` is lost.

    None when ``rate`` is not below ``max_loss``: then no number of rows will do. With no losses
    this is ln(alpha) / ln(1 - max_loss), rounded up.

    >>> [rows_needed(0.01, 0.1, rate=rate) for rate in (0.0, 0.005, 0.01)]
    [230, 1051, None]
    """
    if rate >= max_loss:
        return None
    low = math.ceil(math.log(alpha) / math.log1p(-max_loss))
    if rate == 0.0:
        return low
    high = low
    while not _certifies(high, max_loss, alpha, rate):
        low, high = high, 2 * high
        if high > LARGEST_SAMPLE:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if _certifies(middle, max_loss, alpha, rate):
            high = middle
        else:
            low = middle
    return high


def _certifies(n: int, max_loss: float, alpha: float, rate: float) -> bool:
    counted: Any = math.ceil(rate * n)
    return bool(binomial_p_values(counted, n, max_loss) <= alpha)
