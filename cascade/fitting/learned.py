"""Fit a learned score: how probable it is that nothing is lost by taking this tier's answer.

A logistic regression on the confidence's log-odds, the label, and what the input shows. Small, so
that a few hundred rows do, and cross-fitted wherever it is judged on rows that it was fitted on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from cascade.calibration import Learned

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Column = npt.NDArray[Any]

__all__ = ["cross_fitted_score", "fit_learned"]

_EDGE = 1e-6
_LABELS, _ROWS_OF_A_LABEL = 40, 20  # the commonest labels, if they are common enough
_FOLDS = 5


def fit_learned(
    values: Column, confidences: Column, losses: Column, features: Mapping[str, Column]
) -> Learned:
    """Fit the score on n rows; ``losses`` (n,) count where they are above 0."""
    lost = losses > 0
    if lost.all() or not lost.any():
        return Learned(0.0, 1.0)  # nothing to tell apart: the confidence as it is
    kept = np.clip(confidences, _EDGE, 1.0 - _EDGE)
    names, counts = np.unique(values.astype(str), return_counts=True)
    often = np.argsort(-counts, kind="stable")[:_LABELS]
    common = names[often[counts[often] >= _ROWS_OF_A_LABEL]].tolist()
    text = values.astype(str)
    columns = [np.log(kept / (1.0 - kept)), *(text == name for name in common), *features.values()]
    table = np.column_stack(columns).astype(np.float64)
    middle, spread = table.mean(axis=0), table.std(axis=0)
    spread[spread == 0.0] = 1.0
    model = LogisticRegression(max_iter=1_000)
    model.fit((table - middle) / spread, ~lost)
    weights = model.coef_[0] / spread
    shift = float(model.intercept_[0] - weights @ middle)
    odds, *rest = [float(f"{weight:.8g}") for weight in weights.tolist()]
    return Learned(
        float(f"{shift:.8g}"),
        odds,
        dict(zip(common, rest, strict=False)),
        dict(zip(features, rest[len(common) :], strict=True)),
    )


def cross_fitted_score(
    values: Column, confidences: Column, losses: Column, features: Mapping[str, Column]
) -> Column:
    """Return (n,) scores, each by a fit that did not see its row."""
    found = np.empty(len(losses))
    fold = np.arange(len(losses)) % _FOLDS
    for k in range(_FOLDS):
        rest, mine = fold != k, fold == k
        seen = {name: column[rest] for name, column in features.items()}
        score = fit_learned(values[rest], confidences[rest], losses[rest], seen)
        shown = {name: column[mine] for name, column in features.items()}
        found[mine] = score.rows(values[mine], confidences[mine], shown)
    return found
