"""From a Prediction to columns: values and confidences of a batch, checked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.confidence import OutputFault, rows_reader, tolerance_for
from cascade.types import a_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from cascade.policy.settings import TierSpec
    from cascade.protocols import Rows
    from cascade.types import Prediction

__all__ = ["Columns", "faulty", "marked", "number", "object_column", "plain", "wrong_with"]

_NO_LISTS = (str, bytes, bytearray, Mapping, AbstractSet)
_SOUND = frozenset({str, int, bool, bytes, type(None)})  # whatever a value of these types is


def plain(value: Any) -> Any:
    """Return a NumPy scalar as the Python value it stands for, anything else as it is.

    Raises:
        OutputFault: it cannot be an answer.

    >>> plain(np.float32(0.5)), plain("x")
    (0.5, 'x')
    """
    if type(value) in _SOUND:
        return value
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    wrong = wrong_with(value)
    if wrong is not None:
        raise OutputFault(f"the value {wrong}")
    return value


def wrong_with(value: Any) -> str | None:
    """Say why something cannot be an answer; None: it can.

    >>> wrong_with(float("nan")), wrong_with(iter([]))
    ('is NaN', 'is a list_iterator; cascade does not stream')
    """
    kind = type(value)
    if kind in _SOUND:
        return None
    if isinstance(value, float):
        return None if value == value else "is NaN"  # noqa: PLR0124
    if isinstance(value, (np.ndarray, np.generic)):
        sound = value.dtype.kind not in "fc" or not np.isnan(value).any()
        return None if sound else "holds NaN" if value.ndim else "is NaN"
    if hasattr(kind, "__await__"):
        if inspect.iscoroutine(value):
            value.close()  # else Python says that nobody has awaited it
        return f"is a {kind.__name__}; a tier that is awaited is an async def, for AsyncRouter"
    if hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
        return f"is a {kind.__name__}; cascade does not stream"
    return None


def faulty(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Mark the values of a column that cannot be answers; None, by far the most: all can.

    >>> faulty(np.array([1.0, np.nan])).tolist()
    [False, True]
    """
    if values.dtype.kind in "fc":
        bad = np.isnan(values)
    elif values.dtype.kind != "O":
        return None
    else:
        listed = values.tolist()
        odd = set(map(type, listed)) - _SOUND
        if not odd:
            return None
        if odd == {float}:
            found = [value != value for value in listed]  # noqa: PLR0124  NaN
        else:
            found = [wrong_with(value) is not None for value in listed]
        if True not in found:
            return None
        bad = np.array(found)
    return bad if bad.any() else None


def marked(
    values: npt.NDArray[Any], confidences: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64] | None:
    """Return the confidences, NaN where a value cannot be an answer."""
    bad = None if confidences is None else faulty(values)
    return confidences if bad is None else np.where(bad, np.nan, confidences)  # type: ignore[arg-type]


def number(value: Any, what: str) -> float:
    """Return a number that a tier supplied; a text that looks like one is none.

    >>> number(np.float32(0.5), "confidence")
    0.5
    """
    if type(value) is float:
        return value
    if not isinstance(value, (str, bytes, bytearray)):
        try:
            return float(value)
        except Exception:  # noqa: BLE001, S110  a type of somebody else's may raise anything
            pass
    raise OutputFault(f"{what}: expected a number, got {type(value).__name__}")


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
            matrix = _matrix(getattr(prediction, source), source, n)
            labels, confidences = self._matrix_reader(source, matrix)(matrix)
            values = labels if values is None else values
        elif source is not None:
            confidences = self._numbers(getattr(prediction, source), source, n)
        if values is None:
            msg = "no values, and no probabilities or logits to take them from"
            raise OutputFault(msg)
        column = object_column(_listed(values, n))
        return column, marked(column, confidences)

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
        array = _array(column)
        if array is not None and array.dtype.kind == "O":  # some are none: those rows are faulty
            array = np.array([_or_nan(one, name) for one in array.reshape(-1)])
        if array is None or array.dtype.kind not in "biuf":
            raise OutputFault(f"{name}: expected {n} numbers")
        numbers = array.reshape(-1).astype(np.float64, copy=False)
        _check_rows(name, len(numbers), n)
        sound = (numbers >= 0.0) & (numbers <= 1.0)
        return np.where(sound, numbers, np.nan)

    def explain_fault(self, prediction: Prediction, confidence: float) -> None:
        """Raise for the one row whose confidence came out as NaN."""
        source = self._source(prediction) or "confidence"
        what = "expected a number in [0, 1]"
        if source in {"probabilities", "logits"}:
            what = _wrong_scores(_array(getattr(prediction, source)))
        msg = f"{source}: {what}" if confidence != confidence else f"{source} outside [0, 1]"  # noqa: PLR0124
        raise OutputFault(msg)


def _array(given: Any) -> npt.NDArray[Any] | None:
    """Return what was supplied as an array; None: it is ragged, or cannot be read."""
    try:
        return np.asarray(given)
    except Exception:  # noqa: BLE001  whose message may show what was asked
        return None


def _matrix(given: Any, name: str, n: int) -> npt.NDArray[Any]:
    matrix = _array(given)
    if matrix is None or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        msg = f"{name}: expected a ({n}, classes) matrix of numbers"
        raise OutputFault(msg)
    _check_rows(name, len(matrix), n)
    return matrix


def _wrong_scores(row: Any) -> str:
    """Say what is wrong with the probabilities or logits of a row that has no confidence."""
    if not np.isfinite(row).all():
        return "expected finite numbers"
    return "expected none below zero" if (row < 0.0).any() else "expected a sum of one"


def _or_nan(value: Any, what: str) -> float:
    try:
        return number(value, what)
    except OutputFault:
        return math.nan


def _listed(values: Any, n: int) -> Any:
    """Return n values one after the other: a list, an array, or what is indexed as those are."""
    if not isinstance(values, (list, tuple)):
        found = hasattr(values, "__getitem__") and getattr(values, "ndim", 1) > 0
        if not found or not hasattr(values, "__len__") or isinstance(values, _NO_LISTS):
            raise OutputFault(f"values: expected {n} of them, got {a_kind(values)}")
    _check_rows("values", len(values), n)
    return values


def _check_rows(name: str, got: int, n: int) -> None:
    if got != n:
        msg = f"{name}: expected {n} rows, got {got}"
        raise OutputFault(msg)
