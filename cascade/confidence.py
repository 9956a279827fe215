"""From a model's output to a value and a confidence: once for a row, once for a batch.

Two restatements of one rule. The row readers are plain Python over a short list, which beats NumPy
by several times at ten classes; the batch readers are NumPy from end to end. A property test holds
them together.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cascade.calibration import FLOOR, log_probabilities, temper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["OutputFault", "RowReader", "RowsReader", "row_reader", "rows_reader", "tolerance_for"]

RowReader: TypeAlias = "Callable[[list[float]], tuple[Any, float]]"
"""One row's outputs → (value, confidence); raises OutputFault."""

RowsReader: TypeAlias = "Callable[[npt.NDArray[Any]], tuple[npt.NDArray[Any], npt.NDArray[Any]]]"
"""A (n, classes) matrix → (values, confidences); a faulty row has the confidence NaN."""

_SMALLEST = 69.0  # what lies above exp(-69) = 1e-30 has a float32
_LONG_ROW = 48  # above this many classes a NumPy call beats a Python loop (measured: 3.3 µs flat)
_STEEP = 150.0  # a power at which 1 / 48 is still no zero
_COLDEST = 1e-30  # a temperature that tells all apart that can be told apart, in a float32 too
_LOOSE = 0.01  # by how much the logarithm of what probabilities sum to may be off


class OutputFault(ValueError):
    """A row of outputs that cannot be an answer; the message says why, without the numbers."""


def tolerance_for(dtype: npt.DTypeLike) -> float:
    """How far probabilities of this dtype may sum from 1: 1e-3, or 1e-2 below float32.

    >>> tolerance_for("float32"), tolerance_for("float16"), tolerance_for("int8")
    (0.001, 0.01, 0.01)
    """
    return 1e-3 if np.dtype(dtype).itemsize >= np.dtype(np.float32).itemsize else 1e-2


def row_reader(
    kind: str,
    score: str = "max_probability",
    temperature: float = 1.0,
    classes: Sequence[Any] | None = None,
    tolerance: float = 1e-3,
) -> RowReader:
    """Compile the reader of one row of ``probabilities``, ``logits`` or ``sigmoid`` outputs.

    ``score`` is ``max_probability`` or ``margin`` (top minus second), taken after the temperature.
    Without ``classes`` the value is the index of the class.

    >>> row_reader("probabilities", classes=("cat", "dog"))([0.25, 0.75])
    ('dog', 0.75)
    >>> row_reader("sigmoid", "margin")([0.75])
    (1, 0.5)
    """
    if kind == "sigmoid":
        return _sigmoid_row(row_reader("probabilities", score, temperature, classes, tolerance))
    finish = _top if score == "max_probability" else _margin
    temperature = max(temperature, _COLDEST)
    if kind == "logits":
        return _logit_row(finish, 1.0 / temperature, classes)
    if finish is _top:
        return _probability_row(1.0 / temperature, classes, tolerance)
    return _margin_row(1.0 / temperature, classes, tolerance)


def _sigmoid_row(inner: RowReader) -> RowReader:
    def read(row: list[float]) -> tuple[Any, float]:
        if len(row) != 1:
            msg = f"expected one sigmoid output per row, got {len(row)}"
            raise OutputFault(msg)
        return inner([1.0 - row[0], row[0]])

    return read


def _probability_row(power: float, classes: Sequence[Any] | None, tolerance: float) -> RowReader:
    low, high, plain = 1.0 - tolerance, 1.0 + tolerance, power == 1.0
    labels = None if classes is None else tuple(classes)
    powers, longest = repeat(power), _longest(power)

    raised = math.pow

    def read(row: list[float]) -> tuple[Any, float]:
        ranked = sorted(row)  # one C call for both ends
        # A converted forest says 1 − p in float32, which is below zero by a rounding error.
        if not (ranked and low <= sum(row) <= high and ranked[0] >= -tolerance):  # NaN fails it
            raise OutputFault(_why_not_probabilities(row, tolerance))
        top = ranked[-1]
        value = row.index(top) if labels is None else labels[row.index(top)]
        if plain:
            return value, (top if top <= 1.0 else 1.0)
        if ranked[0] < FLOOR:
            row = [p if p > FLOOR else FLOOR for p in row]
        if len(row) > longest:
            return value, float(temper(log_probabilities(row), 1.0 / power).max())
        return value, raised(top, power) / sum(map(raised, row, powers))

    return read


def _margin_row(power: float, classes: Sequence[Any] | None, tolerance: float) -> RowReader:
    labels = None if classes is None else tuple(classes)
    plain, longest = _probability_row(1.0, None, tolerance), _longest(power)

    def read(row: list[float]) -> tuple[Any, float]:
        index, _ = plain(row)
        if len(row) > longest:
            tempered = temper(log_probabilities(row), 1.0 / power).tolist()
        else:
            tempered = [(p if p > FLOOR else FLOOR) ** power for p in row]
        return (index if labels is None else labels[index]), _margin(tempered)

    return read


def _longest(power: float) -> int:
    """Return the longest row whose powers may be added up: none, if all of them could be zero."""
    return _LONG_ROW if power <= _STEEP else 0


def _logit_row(
    finish: Callable[[list[float]], float], power: float, classes: Sequence[Any] | None
) -> RowReader:
    labels = None if classes is None else tuple(classes)
    exp = math.exp

    def read(row: list[float]) -> tuple[Any, float]:
        top = max(row, default=math.nan)
        confidence = (
            finish([exp((z - top) * power) for z in row]) if abs(top) < math.inf else math.nan
        )
        if confidence != confidence:  # noqa: PLR0124  NaN, without a call
            msg = "logits hold NaN or are infinite"
            raise OutputFault(msg)
        index = row.index(top)
        return (index if labels is None else labels[index]), confidence

    return read


def _top(weights: list[float]) -> float:
    return max(weights) / sum(weights)


def _margin(weights: list[float]) -> float:
    if len(weights) < 2:
        return 1.0
    second, first = sorted(weights)[-2:]
    return (first - second) / sum(weights)


def _why_not_probabilities(row: list[float], tolerance: float) -> str:
    if not row:
        return "no probabilities in the row"
    if any(p != p for p in row):  # noqa: PLR0124  NaN
        return "probabilities hold NaN"
    if min(row) < -tolerance:
        return "a probability is negative"
    return f"probabilities sum to {sum(row):.6g}, expected 1 (are they logits?)"


def rows_reader(
    kind: str,
    score: str = "max_probability",
    temperature: float = 1.0,
    classes: Sequence[Any] | None = None,
    tolerance: float = 1e-3,
) -> RowsReader:
    """Compile the reader of a batch: (n, classes) in, values (n,) and confidences (n,) out.

    The same rule as :func:`row_reader`; a faulty row gets the confidence NaN instead of an
    exception, so that one bad row does not fail its batch.

    >>> values, confidences = rows_reader("probabilities")(np.array([[0.25, 0.75], [0.9, 0.9]]))
    >>> values.tolist(), confidences.tolist()
    ([1, 0], [0.75, nan])
    """
    labels = None if classes is None else label_array(classes)
    temperature = max(temperature, _COLDEST)
    score_rows = _top_rows if score == "max_probability" else _margin_rows

    def read(matrix: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        # One row per class: NumPy reduces along the long axis many times faster.
        columns = _columns(_two_columns(matrix) if kind == "sigmoid" else matrix)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # faults come as NaN
            top = columns.max(axis=0)
            faulty, columns = _sound_rows(columns, top, kind, tolerance)
            confidences = score_rows(columns, top, kind, temperature)
        index = _first_equal(columns, top)
        if faulty is not None:
            confidences[faulty], index[faulty] = np.nan, 0
        return (index if labels is None else labels[index]), confidences

    return read


def label_array(classes: Sequence[Any]) -> npt.NDArray[Any]:
    """Return the classes as an array that keeps each label's own Python type.

    >>> label_array(("a", 1)).tolist()
    ['a', 1]
    """
    if len({type(label) for label in classes}) == 1 and isinstance(classes[0], (bool, int, str)):
        return np.asarray(classes)
    labels = np.empty(len(classes), dtype=object)
    labels[:] = list(classes)
    return labels


def _two_columns(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    column = matrix.reshape(len(matrix), -1).astype(np.float64)
    if column.shape[1] != 1:
        msg = f"expected one sigmoid output per row, got {column.shape[1]}"
        raise OutputFault(msg)
    return np.hstack([1.0 - column, column])


def _columns(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    wide = matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float64)
    return np.ascontiguousarray(wide.T)


def _first_equal(columns: npt.NDArray[Any], top: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """The argmax: the first class that reaches the top; where none does, one beyond the last.

    By way of bytes: the largest rank among those that do, the first class ranking highest.
    """
    classes = len(columns)
    if classes > _LONG_ROW:
        return np.asarray(columns.argmax(axis=0))
    reached = (columns == top).view(np.int8)
    reached *= _ranks(classes)
    return np.asarray(np.subtract(classes, reached.max(axis=0), dtype=np.intp))


@cache
def _ranks(classes: int) -> npt.NDArray[np.int8]:
    return np.arange(classes, 0, -1, dtype=np.int8)[:, None]


def _top_rows(
    columns: npt.NDArray[Any], top: npt.NDArray[Any], kind: str, temperature: float
) -> npt.NDArray[np.float64]:
    """The top class's share after the temperature.

    In the outputs' own precision: float32 is good to 1e-6 here, and four times as fast.
    """
    if kind == "logits":
        shares = np.exp((columns - top) * (1.0 / temperature))
        return np.asarray(1.0 / shares.sum(axis=0, dtype=np.float64))
    if temperature == 1.0:
        return np.asarray(np.minimum(top, 1.0, dtype=np.float64))
    # Above T = 1 small probabilities count; below, what is under the floor adds nothing.
    shares = np.log(columns if temperature < 1.0 else np.maximum(columns, FLOOR))
    most = math.log(len(columns)) + _LOOSE  # the top share may be one of them all
    if most > _SMALLEST * temperature:
        shares -= shares.max(axis=0)
    shares *= 1.0 / temperature
    np.exp(shares, out=shares)
    return np.asarray(np.divide(shares.max(axis=0), shares.sum(axis=0), dtype=np.float64))


def _margin_rows(
    columns: npt.NDArray[Any], top: npt.NDArray[Any], kind: str, temperature: float
) -> npt.NDArray[np.float64]:
    if len(columns) < 2:
        return np.ones(len(top))
    matrix = columns.T
    tempered = temper(matrix if kind == "logits" else log_probabilities(matrix), temperature)
    pair = np.partition(tempered, -2, axis=1)[:, -2:]
    return np.asarray(pair[:, 1] - pair[:, 0])


def _sound_rows(
    columns: npt.NDArray[Any], top: npt.NDArray[Any], kind: str, tolerance: float
) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[Any]]:
    """Mark the rows that are no answers (None, which is looked for first: all are), and clip."""
    if kind == "logits":
        sound = np.isfinite(top)
        return (None if sound.all() else ~sound), columns
    low, high = 1.0 - tolerance, 1.0 + tolerance
    sums = columns.sum(axis=0)
    # so written, NaN is a fault; and what holds of the least and the largest holds of all
    if len(top) and low <= sums.min() and sums.max() <= high and columns.min() >= 0.0:
        return None, columns
    sound = (sums >= low) & (sums <= high) & (columns.min(axis=0) >= -tolerance)
    return (None if sound.all() else ~sound), np.maximum(columns, 0.0)
