"""Complexity: how hard an input looks before any tier runs; linear, because it must cost a µs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cascade.errors import InputTypeError, InputValueError
from cascade.types import a_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy.typing as npt

    from cascade.protocols import InputSpec

__all__ = [
    "TEXT_FEATURES", "Estimate", "estimator", "misfit", "named_sum", "rows_estimator", "sigmoid",
]  # fmt: skip

Estimate: TypeAlias = "Callable[[Any], float]"
"""A prepared row → its complexity in [0, 1]."""

TEXT_FEATURES: Mapping[str, Callable[[str], float]] = {
    "length": len,
    "words": lambda text: len(text.split()),
    "digits": lambda text: sum(map(str.isdigit, text)),
    "lines": lambda text: text.count("\n") + 1,
    "punctuation": lambda text: sum(not (c.isalnum() or c.isspace()) for c in text),
    "uppercase": lambda text: sum(map(str.isupper, text)),
}
"""What can be read off a text, by the names that a policy's weights use."""


_LEAST = -700.0  # exp overflows beyond
_CLOSE = 0.66  # as near as a slip is in a policy
_MARGIN = 1e-6  # of a logit, relative: far more than rounding could make up


def sigmoid(z: float) -> float:
    """Return 1 / (1 + exp(-z)), without overflow.

    >>> sigmoid(0.0), sigmoid(-1e6)
    (0.5, 0.0)
    """
    return 1.0 / (1.0 + math.exp(-z)) if z > _LEAST else 0.0


def easy_below(intercept: float, cut: float) -> float:
    """Return a weighted sum below which an input is surely easier than ``cut``, in (0, ∞).

    It spares the sigmoid; what is not below may be easier all the same.

    >>> -2.001 < easy_below(2.0, 0.5) < -2.0
    True
    """
    if cut >= 1.0:  # a sigmoid rounds to 1 from 37 on
        return math.inf if cut > 1.0 else 30.0 - intercept
    logit = math.log(cut / (1.0 - cut))
    return logit - intercept - _MARGIN * (1.0 + abs(logit) + abs(intercept))


def estimator(intercept: float, weights: Sequence[float] | Mapping[str, float]) -> Estimate:
    """Compile sigmoid(intercept + w·x) for one row: an array, a text or a dict of scalars.

    >>> estimator(0.0, [1.0, -1.0])(np.array([2.0, 2.0], dtype=np.float32))
    0.5
    >>> round(estimator(-2.0, {"length": 0.5})("abcd"), 3)
    0.5
    """
    if isinstance(weights, Mapping):
        return _named(intercept, dict(weights))
    wide = np.asarray(weights, dtype=np.float64)
    single = wide.astype(np.float32)
    float32, exp, fast = single.dtype, math.exp, single.dot

    def estimate(row: Any) -> float:
        try:
            if row.dtype is float32 and row.ndim == 1:  # one dtype: several times faster
                z = intercept + float(fast(row))
            else:
                vector = single if row.dtype is float32 else wide
                z = intercept + float(vector.dot(row.ravel()))
        except (AttributeError, TypeError, ValueError):  # no array of so many numbers
            z = intercept + float(wide.dot(_numbers(row, len(wide))))
        return 1.0 / (1.0 + exp(-z)) if z > _LEAST else 0.0

    return estimate


def _numbers(row: Any, n: int) -> npt.NDArray[np.float64]:
    """Return the n numbers of a row; an input error says why there are none."""
    wanted = f"complexity: expected a row of {n} numbers, one per weight, got"
    try:
        array = np.asarray(row)
    except Exception as error:  # a type of somebody else's may raise anything
        raise InputValueError(f"{wanted} a ragged or unreadable {type(row).__name__}") from error
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"{wanted} {a_kind(row)}")
    if array.size != n:
        raise InputValueError(f"{wanted} {array.size}")
    return array.ravel().astype(np.float64)


def named_sum(weights: Mapping[str, float], row: Any) -> float:
    """Return the weighted sum of a text's statistics, or of the numbers in a dict.

    >>> named_sum({"words": 2.0}, "two words")
    4.0
    """
    if isinstance(row, str):
        return sum(weight * TEXT_FEATURES[name](row) for name, weight in weights.items())
    return sum(weight * float(row[name]) for name, weight in weights.items())


def _named(intercept: float, weights: dict[str, float]) -> Estimate:
    def estimate(row: Any) -> float:
        try:
            return sigmoid(intercept + named_sum(weights, row))
        except Exception:  # noqa: BLE001  values of somebody else's may raise anything
            return sigmoid(intercept + named_sum(weights, _features(row, weights)))

    return estimate


def _features(row: Any, names: Collection[str]) -> dict[str, float]:
    """Return what the weights name of a row; an input error says what it does not have."""
    if isinstance(row, str):
        known: Mapping[str, Any] = TEXT_FEATURES
    elif isinstance(row, Mapping):
        known = row
    else:
        wanted = "a dict of them" if set(names) - set(TEXT_FEATURES) else "a text"
        listed = ", ".join(names)
        msg = f"complexity: weights name {listed}: expected {wanted}, got {a_kind(row)}"
        raise InputTypeError(msg)
    for name in names:
        if name not in known:
            what = "text" if known is TEXT_FEATURES else "dict"
            hint = _hint(name, TEXT_FEATURES) if known is TEXT_FEATURES else ""
            raise InputValueError(f"complexity: a {what} has no {name!r}{hint}")
    return {name: _number(name, row[name]) for name in names}


def _number(name: str, value: Any) -> float:
    """Return the one number that a feature is, also as an array of one."""
    wanted = f"complexity: {name!r}: expected a number, got"
    try:
        array = np.asarray(value)
    except Exception as error:  # as above
        raise InputValueError(f"{wanted} an unreadable {type(value).__name__}") from error
    if isinstance(value, int) and array.dtype.kind == "O":
        raise InputValueError(f"{wanted} one too large")
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"{wanted} {a_kind(value)}")
    if array.size != 1:
        raise InputValueError(f"{wanted} {array.size}")
    return float(array.item())


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, _CLOSE)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(known)}"


def misfit(
    weights: Sequence[float] | Mapping[str, float], specs: Sequence[InputSpec]
) -> str | None:
    """Say why weights cannot be applied to rows of these inputs; None: they can, or it depends.

    >>> from cascade.protocols import InputSpec
    >>> misfit([1.0, 2.0], [InputSpec("x", "float32", (3,))])
    "expected 3 numbers for 'x': float32 row of shape (3,), got 2"
    >>> misfit({"lenght": 1.0}, [InputSpec("t", "text", ())])
    "'lenght' is nothing that 't': text has; did you mean 'length'?"
    """
    if not specs:
        return None
    listing = "; ".join(map(str, specs))
    text = len(specs) == 1 and specs[0].dtype == "text"
    if not isinstance(weights, Mapping):
        if text or len(specs) > 1:
            what = "statistics of a text" if text else "inputs"
            return f"expected numbers by the names of {what} ({listing}), got a list"
        shape = [size for size in specs[0].shape if size is not None]
        size = math.prod(shape)
        if len(shape) == len(specs[0].shape) and size != len(weights):
            return f"expected {size} numbers for {listing}, got {len(weights)}"
        return None
    single = {spec.name for spec in specs if _is_number(spec)}
    known: Collection[str] = TEXT_FEATURES if text else single
    for name in weights:
        if name not in known:
            hint = _hint(name, known) if known else "; give a list, one number per element"
            return f"{name!r} is nothing that {listing} has{hint}"
    return None


def _is_number(spec: InputSpec) -> bool:
    return spec.dtype != "text" and all(size in {1, None} for size in spec.shape)


def rows_estimator(
    intercept: float, weights: Sequence[float] | Mapping[str, float], cut: float = 0.0
) -> Callable[[Any, int], npt.NDArray[np.float64] | None]:
    """Compile the same for a batch of n rows: complexities of shape (n,).

    None says that all rows are easier than ``cut``, which is the only question then.

    >>> rows_estimator(0.0, [1.0, -1.0])(np.zeros((2, 2)), 2).tolist()
    [0.5, 0.5]
    >>> rows_estimator(0.0, [1.0, -1.0], cut=0.75)(np.zeros((2, 2)), 2)
    """
    if isinstance(weights, Mapping):
        one = _named(intercept, dict(weights))

        def from_names(rows: Any, n: int) -> npt.NDArray[np.float64]:
            return _one_by_one(one, _by_name(rows, n, weights), n)

        return from_names
    exact = np.asarray(weights, dtype=np.float64)
    single, limit = exact.astype(np.float32), easy_below(intercept, cut) if cut > 0.0 else -math.inf
    alone = estimator(intercept, weights)

    def from_rows(rows: Any, n: int) -> npt.NDArray[np.float64] | None:
        try:
            flat = rows.reshape(n, -1)
            vector = single if flat.dtype == np.float32 else exact
            # A matrix product would use all cores, and take 10 ms where one has other work to do.
            sums = np.vecdot(flat, vector)
        except (AttributeError, TypeError, ValueError):  # a list, or no numbers
            return _one_by_one(alone, _by_name(rows, n, rows), n)
        if sums.max() < limit:
            return None
        z = intercept + sums.astype(np.float64)
        return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(z, _LEAST))))

    return from_rows


def _by_name(rows: Any, n: int, names: Collection[str]) -> Any:
    """Return the rows of a batch; of a dict of columns, or a table, each is a dict of its own."""
    if not hasattr(rows, "keys") or getattr(rows, "ndim", 2) == 1:  # a table's column has keys, too
        return rows
    known = set(rows.keys())
    columns = {name: list(rows[name]) for name in names if name in known}
    return [{name: column[i] for name, column in columns.items()} for i in range(n)]


def _one_by_one(one: Estimate, rows: Any, n: int) -> npt.NDArray[np.float64]:
    found = np.empty(n)
    for i, row in enumerate(rows):
        try:
            found[i] = one(row)
        except (InputTypeError, InputValueError) as error:
            raise type(error)(f"row {i}: {error}") from error.__cause__
    return found
