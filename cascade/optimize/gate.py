"""The accuracy gate: a changed model stands in for the original only if it provably loses little.

A row is lost where the original is right and the changed model is wrong; without truth, where their
answers differ. The losses of n rows are binomial, so the p-value of 'it loses more than max_loss'
is exact: P(Binomial(n, max_loss) ≤ losses).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from cascade.fitting.losses import LOSSES
from cascade.fitting.pvalues import binomial_p_values, rows_needed

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Gate", "accuracy_gate", "gate_rows_needed"]


@attrs.frozen
class Gate:
    """The test of one candidate; ``level`` is alpha shared among the candidates that stand it.

    >>> Gate(n=1000, losses=2, max_loss=0.01, level=0.05, p_value=0.0027).passes
    True
    """

    n: int
    losses: int
    max_loss: float
    level: float
    p_value: float

    @property
    def passes(self) -> bool:
        """Whether the loss is at most ``max_loss``, with confidence 1 − ``level``."""
        return self.p_value <= self.level


def accuracy_gate(
    original: npt.NDArray[Any], changed: npt.NDArray[Any], truth: npt.NDArray[Any] | None,
    max_loss: float, level: float,
) -> Gate:  # fmt: skip
    """Test the answers (n,) of a changed model against the original's, on rows that neither saw.

    >>> import numpy as np
    >>> same = np.zeros(500, dtype=int)
    >>> accuracy_gate(same, same, same, max_loss=0.01, level=0.05).p_value < 0.01
    True
    """
    loss = LOSSES["disagreement" if truth is None else "gross"]
    losses = int(loss([changed, original], truth).sum())
    p_value = float(binomial_p_values(losses, len(original), max_loss))
    return Gate(len(original), losses, max_loss, level, p_value)


def gate_rows_needed(max_loss: float, level: float) -> int:
    """Return how many rows a candidate that loses none needs to pass.

    >>> gate_rows_needed(0.01, 0.1)
    230
    """
    return rows_needed(max_loss, level) or 0
