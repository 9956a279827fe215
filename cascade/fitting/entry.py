"""Fit the entry rule: which inputs look so hard that asking the first tier is a waste.

A logistic regression on what the input shows before any tier runs: the recording's ``x.*`` columns,
or the statistics of its texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from scipy.special import expit

from cascade.fitting.regression import fit_logistic
from cascade.fitting.split import FOLDS, out_of_fold
from cascade.policy import ComplexityRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from cascade.fitting.certify import TestedPath
    from cascade.fitting.recording import Recording

    Column = npt.NDArray[Any]

__all__ = ["Entry", "EntryRule", "fit_entry"]

_STRENGTH = 0.1  # of the regression, inverse of its penalty: few rows, correlated features


@attrs.frozen
class EntryRule:
    """sigmoid(intercept + weights · features): the complexity of an input, in [0, 1].

    >>> EntryRule(0.0, {"length": 1.0}).complexities({"length": np.zeros(2)}).tolist()
    [0.5, 0.5]
    """

    intercept: float
    weights: Mapping[str, float]

    def complexities(self, features: Mapping[str, Column]) -> npt.NDArray[np.float64]:
        """Return the complexity of n rows, (n,)."""
        total = sum(weight * features[name] for name, weight in self.weights.items())
        return np.asarray(expit(self.intercept + total), dtype=np.float64)


@attrs.frozen
class Entry:
    """An entry rule and its cut: inputs at least so complex skip the first tier.

    ``saves`` is the cost per request that it was expected to save.
    """

    rule: EntryRule
    cut: float
    saves: float = 0.0

    def skipped(self, recording: Recording) -> npt.NDArray[np.bool_]:
        """Return (n,): which rows skip the first tier."""
        return self.rule.complexities(recording.shown) >= self.cut

    def applied(self, recording: Recording, scores: Column) -> Column:
        """Return the scores with nothing where the first tier is not asked."""
        kept = np.array(scores, dtype=np.float64)
        kept[self.skipped(recording), 0] = np.nan
        return kept

    def without_calls(self, recording: Recording, tested: TestedPath) -> TestedPath:
        """Return a tested path that does not count calls of the first tier that are not made."""
        calls = tested.calls.copy()
        asked = tested.thresholds[:, 0] <= 1.0
        calls[asked, 0] -= self.skipped(recording).mean()
        return attrs.evolve(tested, calls=calls)

    def settings(self) -> ComplexityRule:
        """Return the policy's block."""
        rule = self.rule
        return ComplexityRule(
            intercept=rule.intercept, weights=dict(rule.weights), skip_above=(self.cut,)
        )


def fit_entry(
    features: Mapping[str, Column], wasted: Column
) -> tuple[EntryRule, npt.NDArray[np.float64]] | None:
    """Fit the probability that the first tier is asked in vain.

    ``wasted`` is (n,) bool. Returns the rule, and the complexities (n,) of these rows by rules that
    did not see them; None where all rows are alike.
    """
    fold = np.arange(len(wasted)) % FOLDS
    if any(len(np.unique(wasted[fold != k])) < 2 for k in range(FOLDS)):
        return None

    def judge(rest: Column, mine: Column) -> Column:
        rule = _fitted({name: column[rest] for name, column in features.items()}, wasted[rest])
        return rule.complexities({name: column[mine] for name, column in features.items()})

    return _fitted(features, wasted), out_of_fold(len(wasted), judge)


def _fitted(features: Mapping[str, Column], wasted: Column) -> EntryRule:
    intercept, weights = fit_logistic(features.values(), wasted, _STRENGTH)
    return EntryRule(intercept, dict(zip(features, weights, strict=True)))
