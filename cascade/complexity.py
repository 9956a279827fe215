"""Complexity: how hard an input looks before any tier runs; linear, because it must cost a µs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["TEXT_FEATURES", "Estimate", "estimator", "named_sum", "rows_estimator", "sigmoid"]

Estimate: TypeAlias = "Callable[[Any], float]"
"""A prepared row → its complexity in [0, 1]."""

TEXT_FEATURES: Mapping[str, Callable[[str], float]] = {
    "length": len,
    "words": lambda text: len(text.split()),
    "digits": lambda text: sum(map(str.isdigit, text)),
    "lines": lambda text: text.count("\n") + 1,
    "punctuation": lambda text: sum(not (c.isalnum() or c.isspace()) for c in text),
    "uppercase": lambda text: sum(map(str.isupper, text)),
}
"""What can be read off a text, by the names that a policy's weights use."""


_LEAST = -700.0  # exp overflows beyond
_MARGIN = 1e-6  # of a logit, relative: far more than rounding could make up


def sigmoid(z: float) -> float:
    """Return 1 / (1 + exp(-z)), without overflow.

    >>> sigmoid(0.0), sigmoid(-1e6)
    (0.5, 0.0)
    """
    return 1.0 / (1.0 + math.exp(-z)) if z > _LEAST else 0.0


def easy_below(intercept: float, cut: float) -> float:
    """Return a weighted sum below which an input is surely easier than ``cut``, in (0, ∞).

    It spares the sigmoid; what is not below may be easier all the same.

    >>> -2.001 < easy_below(2.0, 0.5) < -2.0
    True
    """
    if cut >= 1.0:  # a sigmoid rounds to 1 from 37 on
        return math.inf if cut > 1.0 else 30.0 - intercept
    logit = math.log(cut / (1.0 - cut))
    return logit - intercept - _MARGIN * (1.0 + abs(logit) + abs(intercept))


def estimator(intercept: float, weights: Sequence[float] | Mapping[str, float]) -> Estimate:
    """Compile sigmoid(intercept + w·x) for one row: an array, a text or a dict of scalars.

    >>> estimator(0.0, [1.0, -1.0])(np.array([2.0, 2.0], dtype=np.float32))
    0.5
    >>> round(estimator(-2.0, {"length": 0.5})("abcd"), 3)
    0.5
    """
    if isinstance(weights, Mapping):
        return _named(intercept, dict(weights))
    wide = np.asarray(weights, dtype=np.float64)
    single = wide.astype(np.float32)
    float32, exp, fast = single.dtype, math.exp, single.dot

    def estimate(row: Any) -> float:
        if row.dtype is float32 and row.ndim == 1:  # one dtype: several times faster
            z = intercept + float(fast(row))
        else:
            vector = single if row.dtype is float32 else wide
            z = intercept + float(vector.dot(row.ravel()))
        return 1.0 / (1.0 + exp(-z)) if z > _LEAST else 0.0

    return estimate


def named_sum(weights: Mapping[str, float], row: Any) -> float:
    """Return the weighted sum of a text's statistics, or of the numbers in a dict.

    >>> named_sum({"words": 2.0}, "two words")
    4.0
    """
    if isinstance(row, str):
        return sum(weight * TEXT_FEATURES[name](row) for name, weight in weights.items())
    return sum(weight * float(row[name]) for name, weight in weights.items())


def _named(intercept: float, weights: dict[str, float]) -> Estimate:
    return lambda row: sigmoid(intercept + named_sum(weights, row))


def rows_estimator(
    intercept: float, weights: Sequence[float] | Mapping[str, float], cut: float = 0.0
) -> Callable[[Any, int], npt.NDArray[np.float64] | None]:
    """Compile the same for a batch of n rows: complexities of shape (n,).

    None says that all rows are easier than ``cut``, which is the only question then.

    >>> rows_estimator(0.0, [1.0, -1.0])(np.zeros((2, 2)), 2).tolist()
    [0.5, 0.5]
    >>> rows_estimator(0.0, [1.0, -1.0], cut=0.75)(np.zeros((2, 2)), 2)
    """
    if isinstance(weights, Mapping):
        one = _named(intercept, dict(weights))

        def from_names(rows: Any, n: int) -> npt.NDArray[np.float64]:
            if isinstance(rows, Mapping):
                rows = [{name: rows[name][i] for name in weights} for i in range(n)]
            return np.fromiter(map(one, rows), dtype=np.float64, count=n)

        return from_names
    exact = np.asarray(weights, dtype=np.float64)
    single, limit = exact.astype(np.float32), easy_below(intercept, cut) if cut > 0.0 else -math.inf

    def from_rows(rows: Any, n: int) -> npt.NDArray[np.float64] | None:
        flat = rows.reshape(n, -1)
        vector = single if flat.dtype == np.float32 else exact
        # A matrix product would use all cores, and take 10 ms where one has other work to do.
        sums = np.vecdot(flat, vector)
        if sums.max() < limit:
            return None
        z = intercept + sums.astype(np.float64)
        return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(z, _LEAST))))

    return from_rows
