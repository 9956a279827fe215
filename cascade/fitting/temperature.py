"""Fit a tier's temperature: the one number that makes its confidence an honest probability.

Guo et al., 'On Calibration of Modern Neural Networks' (ICML 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from cascade.calibration import log_probabilities

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["fit_temperature"]

_COLDEST, _HOTTEST = 0.05, 20.0


def fit_temperature(outputs: npt.ArrayLike, truth: npt.ArrayLike, *, logits: bool = False) -> float:
    """Return the temperature that minimises the log-loss on rows the tier did not train on.

    ``outputs`` is (n, classes), probabilities or, with ``logits``, logits; ``truth`` (n,) holds the
    index of the right class. The log-loss is convex in 1/T, so one bounded search finds it. The
    targets are smoothed by 1/(n + 2), as Platt's are: without an error among the rows the best
    temperature would otherwise be 0, which tells no two rows apart. Rounded to four digits, so that
    the number in the policy is the number that was certified; 1.0 when there are no rows.

    >>> shy = np.array([[0.6, 0.4]] * 9 + [[0.4, 0.6]])
    >>> fit_temperature(shy, np.zeros(10, dtype=int)) < 1.0
    True
    """
    matrix = np.asarray(outputs, dtype=np.float64)
    scale = matrix if logits else log_probabilities(matrix)
    sound = np.isfinite(scale).all(axis=1)
    scale, right = scale[sound], np.asarray(truth)[sound]
    if len(scale) == 0 or scale.shape[1] < 2:
        return 1.0
    blur = 1.0 / (len(scale) + 2)
    wanted = (1.0 - blur) * np.take_along_axis(scale, right[:, None], axis=1)[:, 0].mean()
    wanted += blur * scale.mean()

    def log_loss(power: Any) -> float:
        return float(logsumexp(scale * power, axis=1).mean() - power * wanted)

    best = minimize_scalar(
        log_loss, bounds=(1.0 / _HOTTEST, 1.0 / _COLDEST), method="bounded", options={"xatol": 1e-6}
    )
    return float(f"{1.0 / best.x:.4g}")
