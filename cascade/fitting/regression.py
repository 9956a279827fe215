"""Logistic regression on columns as they come: standardised for the fit, scaled back after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

__all__ = ["fit_logistic"]


def fit_logistic(
    columns: Iterable[npt.NDArray[Any]], target: npt.NDArray[np.bool_], strength: float = 1.0
) -> tuple[float, list[float]]:
    """Return intercept and weights of sigmoid(intercept + weights · columns), to eight digits.

    ``strength`` is the inverse of the penalty, which acts on standardised columns.

    >>> x = np.linspace(-1.0, 1.0, 20)
    >>> intercept, (weight,) = fit_logistic([x], x > 0)
    >>> abs(intercept) < 0.01, weight > 1.0
    (True, True)
    """
    table = np.column_stack(list(columns)).astype(np.float64)
    middle, spread = table.mean(axis=0), table.std(axis=0)
    spread[spread == 0.0] = 1.0
    model = LogisticRegression(C=strength, max_iter=1_000)
    model.fit((table - middle) / spread, target)
    weights = model.coef_[0] / spread
    intercept = float(model.intercept_[0] - weights @ middle)
    return float(f"{intercept:.8g}"), [float(f"{weight:.8g}") for weight in weights.tolist()]
