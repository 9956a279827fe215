"""Fit what a tier's confidence means, label by label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.isotonic import IsotonicRegression

from cascade.calibration import ByLabel, labels_of
from cascade.fitting.split import out_of_fold

if TYPE_CHECKING:
    import numpy.typing as npt

    Column = npt.NDArray[Any]

__all__ = ["cross_fitted", "fit_by_label"]

_KNOTS = 24
_PRIOR = 30.0  # rows' worth of belief that a label is like all the others
_RISE = 1e-2  # of a line over its knots: within a step, confidence still ranks


def fit_by_label(values: Column, confidences: Column, losses: Column) -> ByLabel:
    """Fit the line of each label: 1 minus the expected loss, at knots spread over the confidences.

    ``losses`` (n,) lie in [0, 1], or in [-1, 1] when some are negative; then the lines are
    (1 - loss) / 2, to stay in [0, 1]. Isotonic regression per
    label, drawn towards that of all labels together by 30 rows' worth, so that a rare label is not
    believed on a few rows. A plain confidence would mix labels that a tier knows with those that it
    does not.
    """
    knots = _knots(confidences)
    pooled = _isotonic(confidences, losses, np.ones(len(losses)), knots)
    belief = np.full(len(knots), _PRIOR / len(knots))
    lines, labels = {}, labels_of(values)
    for label in np.unique(labels).tolist():
        mine = labels == label
        lines[label] = _isotonic(
            np.r_[confidences[mine], knots],
            np.r_[losses[mine], pooled],
            np.r_[np.ones(int(mine.sum())), belief],
            knots,
        )
    least = min(0.0, float(np.sign(losses.min())))
    rise = _RISE * np.linspace(0.0, 1.0, len(knots))

    def line_of(loss: Column) -> Column:
        kept = np.clip((1.0 - loss) / (1.0 - least), 0.0, 1.0)
        return np.asarray(kept * (1.0 - _RISE) + rise)

    return ByLabel(knots, {name: line_of(line) for name, line in lines.items()}, line_of(pooled))


def _knots(confidences: Column) -> Column:
    knots = np.unique(np.quantile(confidences, np.linspace(0.0, 1.0, _KNOTS)))
    return knots if len(knots) > 1 else np.array([0.0, 1.0])


def _isotonic(confidences: Column, losses: Column, weights: Column, knots: Column) -> Column:
    model = IsotonicRegression(increasing=False, out_of_bounds="clip")
    model.fit(confidences, losses, sample_weight=weights)
    return np.asarray(model.predict(knots), dtype=np.float64)


def cross_fitted(values: Column, confidences: Column, losses: Column) -> Column:
    """Return (n,) calibrated confidences, each by a table that did not see its row."""

    def judge(rest: Column, mine: Column) -> Column:
        table = fit_by_label(values[rest], confidences[rest], losses[rest])
        return table.rows(values[mine], confidences[mine])

    return out_of_fold(len(losses), judge)
