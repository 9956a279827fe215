"""The numbers a tier gives while fitting: those of its exported model, one row at a time.

Batch and single runs of one model differ in the last bits, and scikit-learn differs from both. What
is certified is therefore what will be served: float32, batch 1, one thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cascade.tiers.sessions import make_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["EstimatorScorer", "OnnxScorer", "Scorer", "seconds_per_row"]


class Scorer(Protocol):
    """Gives (n, classes) probabilities, in the order of the cascade's classes."""

    def probabilities(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Score the rows of X, (n, features) float32."""


class OnnxScorer:
    """An exported model, run row by row; its session is made on first use and is never pickled."""

    def __init__(self, model: bytes, columns: Sequence[int]) -> None:
        self.model = model
        self.columns = list(columns)
        self._session: Any = None

    def probabilities(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Score the rows of X one by one, as a router would for single requests."""
        run, (names, feed_name) = self._run()
        rows = [run(names, {feed_name: X[at : at + 1]})[0] for at in range(len(X))]
        matrix = np.concatenate(rows) if rows else np.zeros((0, len(self.columns)), np.float32)
        return _ordered(matrix, self.columns)

    def batch(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run the model once on all rows; columns in the model's own order."""
        run, (names, feed_name) = self._run()
        return np.asarray(run(names, {feed_name: X})[0])

    def _run(self) -> tuple[Any, tuple[list[str], str]]:
        if self._session is None:
            self._session = make_session(self.model, quiet=True)  # a trial: who fits is told
        session = self._session
        return session.run, ([session.get_outputs()[0].name], session.get_inputs()[0].name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}


class EstimatorScorer:
    """A fitted classifier that was not converted: its own probabilities, cast to float32."""

    def __init__(self, estimator: Any, columns: Sequence[int]) -> None:
        self.estimator = estimator
        self.columns = list(columns)

    def probabilities(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Score all rows of X at once: scikit-learn has no faster way for one."""
        if len(X) == 0:
            return np.zeros((0, len(self.columns)), np.float32)
        return _ordered(self.batch(X), self.columns)

    def batch(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return ``predict_proba`` of all rows; columns in the estimator's own order."""
        return np.asarray(self.estimator.predict_proba(X), dtype=np.float32)


def seconds_per_row(
    scorer: OnnxScorer | EstimatorScorer, X: npt.NDArray[Any], rows: int = 50
) -> float:
    """Return the median seconds of a single-row call, over at most ``rows`` rows."""
    taken = []
    for at in range(min(len(X), rows + 1)):
        began = time.perf_counter()
        scorer.batch(X[at : at + 1])
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[1:] or taken or [0.0]))


def _ordered(matrix: npt.NDArray[Any], columns: list[int]) -> npt.NDArray[Any]:
    return matrix if columns == sorted(columns) else matrix[:, columns]
