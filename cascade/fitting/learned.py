"""Fit a learned score: how probable it is that nothing is lost by taking this tier's answer.

A logistic regression on the confidence's log-odds, the label, and what the input shows. Small, so
that a few hundred rows do, and cross-fitted wherever it is judged on rows that it was fitted on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.calibration import Learned, labels_of, log_odds
from cascade.fitting.regression import fit_logistic
from cascade.fitting.split import out_of_fold

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Column = npt.NDArray[Any]

__all__ = ["cross_fitted_score", "fit_learned"]

_LABELS, _ROWS_OF_A_LABEL = 40, 20  # the commonest labels, if they are common enough


def fit_learned(
    values: Column, confidences: Column, losses: Column, features: Mapping[str, Column]
) -> Learned:
    """Fit the score on n rows; ``losses`` (n,) count where they are above 0."""
    lost = losses > 0
    if lost.all() or not lost.any():
        # nothing to tell apart: the confidence as it is, or without one all alike
        return Learned(0.0, 1.0 if np.ptp(confidences) else 0.0)
    text = labels_of(values)
    names, counts = np.unique(text, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:_LABELS]
    common = names[often[counts[often] >= _ROWS_OF_A_LABEL]].tolist()
    columns = [log_odds(confidences), *(text == name for name in common), *features.values()]
    intercept, (odds, *rest) = fit_logistic(columns, ~lost)
    return Learned(
        intercept,
        odds,
        dict(zip(common, rest, strict=False)),
        dict(zip(features, rest[len(common) :], strict=True)),
    )


def cross_fitted_score(
    values: Column, confidences: Column, losses: Column, features: Mapping[str, Column]
) -> Column:
    """Return (n,) scores, each by a fit that did not see its row."""

    def judge(rest: Column, mine: Column) -> Column:
        seen = {name: column[rest] for name, column in features.items()}
        score = fit_learned(values[rest], confidences[rest], losses[rest], seen)
        shown = {name: column[mine] for name, column in features.items()}
        return score.rows(values[mine], confidences[mine], shown)

    return out_of_fold(len(losses), judge)
