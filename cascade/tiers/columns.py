"""From a Prediction to columns: values and confidences of a batch, checked."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.confidence import OutputFault, rows_reader, tolerance_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from cascade.policy.settings import TierSpec
    from cascade.protocols import Rows
    from cascade.types import Prediction

__all__ = ["Columns", "object_column", "plain"]


def plain(value: Any) -> Any:
    """Return a NumPy scalar as the Python value it stands for, anything else as it is.

    >>> plain(np.float32(0.5)), plain("x")
    (0.5, 'x')
    """
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if inspect.isgenerator(value):
        msg = "the value is a generator; cascade does not stream"
        raise OutputFault(msg)
    return value


def object_column(values: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column of whatever the values are, without NumPy guessing at their shape."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return values
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # a slice assignment would broadcast equal-length lists
        column[i] = value
    return column


class Columns:
    """Reads predictions as one tier's settings say."""

    def __init__(self, spec: TierSpec, classes: Sequence[Any] | None) -> None:
        self._score = spec.confidence.score
        self._temperature = spec.confidence.temperature
        self._classes = classes
        self.takes_confidences = self._score in {"auto", "supplied"}

    def read(self, prediction: Prediction, n: int) -> Rows:
        """Return values (n,) and confidences (n,), NaN where a row is faulty, None without any."""
        confidences: npt.NDArray[np.float64] | None = None
        values: Any = prediction.values
        source = self._source(prediction)
        if source in {"probabilities", "logits"}:
            matrix = np.asarray(getattr(prediction, source))
            if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
                msg = f"{source}: expected a ({n}, classes) matrix of numbers"
                raise OutputFault(msg)
            _check_rows(source, len(matrix), n)
            labels, confidences = self._matrix_reader(source, matrix)(matrix)
            values = labels if values is None else values
        elif source is not None:
            confidences = self._numbers(getattr(prediction, source), source, n)
        if values is None:
            msg = "no values, and no probabilities or logits to take them from"
            raise OutputFault(msg)
        _check_rows("values", len(values), n)
        return object_column(values), confidences

    def _source(self, prediction: Prediction) -> str | None:
        wanted = {"supplied": ("confidences",), "margin": ("margins", "probabilities", "logits")}
        either = ("confidences", "probabilities", "logits", "margins")
        for name in wanted.get(self._score, either if self._score == "auto" else either[1:3]):
            if getattr(prediction, name) is not None:
                return name
        return None

    def _matrix_reader(self, kind: str, matrix: npt.NDArray[Any]) -> Any:
        if self._classes is not None and len(self._classes) != matrix.shape[1]:
            msg = f"{kind}: {matrix.shape[1]} columns for {len(self._classes)} classes"
            raise OutputFault(msg)
        score = "margin" if self._score == "margin" else "max_probability"
        tolerance = tolerance_for(matrix.dtype) if matrix.dtype.kind == "f" else 1e-3
        return rows_reader(kind, score, self._temperature, self._classes, tolerance)

    @staticmethod
    def _numbers(column: Any, name: str, n: int) -> npt.NDArray[np.float64]:
        try:
            numbers = np.asarray(column, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):  # whose message may show what was asked
            msg = f"{name}: expected {n} numbers"
            raise OutputFault(msg) from None
        _check_rows(name, len(numbers), n)
        sound = (numbers >= 0.0) & (numbers <= 1.0)
        return np.where(sound, numbers, np.nan)

    def explain_fault(self, prediction: Prediction, confidence: float) -> None:
        """Raise for the one row whose confidence came out as NaN."""
        source = self._source(prediction) or "confidence"
        what = {
            "probabilities": "probabilities must be finite, not negative, and sum to one",
            "logits": "logits must be finite",
        }.get(source, "confidences must lie in [0, 1]")
        msg = f"{source}: {what}" if confidence != confidence else f"{source} outside [0, 1]"  # noqa: PLR0124
        raise OutputFault(msg)


def _check_rows(name: str, got: int, n: int) -> None:
    if got != n:
        msg = f"{name}: expected {n} rows, got {got}"
        raise OutputFault(msg)
