"""Temperature: one number that makes a tier's probabilities honest.

Guo et al., 'On Calibration of Modern Neural Networks' (ICML 2017). The temperature divides
log-probabilities (clipped at 1e-12) or declared logits, in fitting and in serving alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FLOOR", "log_probabilities", "temper"]

FLOOR = 1e-12
"""Probabilities are clipped here before their logarithm is taken."""


def log_probabilities(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return ``log(max(p, 1e-12))`` in float64, of the same shape.

    >>> log_probabilities([[1.0, 0.0]]).round(3).tolist()
    [[0.0, -27.631]]
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    return np.log(np.maximum(wide, FLOOR))


def temper(logits: npt.NDArray[Any], temperature: float) -> npt.NDArray[np.float64]:
    """Return softmax(logits / temperature) over the last axis, in float64, overwriting nothing.

    Rows that hold NaN or +inf come out as NaN: they are faults, and the caller counts them.

    >>> temper(np.array([[0.0, 0.0]]), 2.0).tolist()
    [[0.5, 0.5]]
    """
    with np.errstate(invalid="ignore"):
        scaled = logits.astype(np.float64)
        scaled -= scaled.max(axis=-1, keepdims=True)
        scaled /= temperature
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=-1, keepdims=True)
    return scaled
