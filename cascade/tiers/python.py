"""Tiers in Python: any callable, or any object with ``predict(batch, context)``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cascade.confidence import OutputFault
from cascade.errors import PolicyError
from cascade.protocols import BoundTier
from cascade.tiers.columns import Columns, number, plain, wrong_with
from cascade.tiers.faults import Misreturned
from cascade.types import Prediction, a_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from cascade.policy.settings import TierSpec
    from cascade.protocols import Context, Rows, Tier

__all__ = ["FunctionTier", "PythonTier", "is_async", "tier"]

Returns = Literal["values", "pairs", "probabilities", "prediction"]
RowsOf = Literal["batch", "one"]

_ONE_PAIR = ("one", "pairs")
_RETURNS = ("values", "pairs", "probabilities", "prediction")


def tier(
    function: Callable[..., Any],
    *,
    returns: Returns = "values",
    rows: RowsOf = "batch",
    context: bool = False,
    classes: Sequence[Any] | None = None,
    version: str | None = None,
) -> FunctionTier:
    """Make a tier of a function.

    With ``rows="batch"`` it gets n rows (a list, an array with a leading batch axis, or a dict of
    those) and returns n results; with ``rows="one"`` it gets and returns one. ``returns`` says what
    a result is: a value, a (value, confidence) pair, class probabilities (the value is then the
    label from ``classes``), or a Prediction for the whole batch. Values alone do for the top tier:
    below it a router needs to know how sure a tier is. With ``context=True`` the function gets the
    request's context as second argument. ``version`` stands in key and certificate.

    Raises:
        PolicyError: ``returns`` or ``rows`` is not one of the above, or ``classes`` are none.

    >>> spam = tier(lambda text: ("spam", 0.99), returns="pairs", rows="one")
    >>> spam.predict(["win a prize"], None).confidences
    [0.99]
    """
    if returns not in _RETURNS:
        msg = f"tier(): returns: expected one of {', '.join(_RETURNS)}, got {returns!r}"
        raise PolicyError(msg)
    if rows not in {"batch", "one"}:
        msg = f"tier(): rows: expected 'batch' or 'one', got {rows!r}"
        raise PolicyError(msg)
    given: Any = function
    if not callable(given):
        msg = f"tier(): expected a callable, got {a_kind(function)}"
        raise PolicyError(msg)
    return FunctionTier(function, returns, rows, context, classes, version)


def labels(classes: Any, whose: str = "tier()") -> tuple[Any, ...]:
    """Return the classes of a tier; two or more, all different.

    Raises:
        PolicyError: they are none.

    >>> labels(np.array(["cat", "dog"]))
    ('cat', 'dog')
    """
    try:
        found = () if isinstance(classes, (str, bytes)) else tuple(map(plain, classes))
        if len(set(found)) == len(found) > 1:
            return found
    except (TypeError, OutputFault):
        pass
    msg = f"{whose}: classes: expected a list of two or more different labels"
    raise PolicyError(f"{msg}, got {a_kind(classes)}")


class FunctionTier:
    """A function with the manners of a tier; made by :func:`tier`."""

    def __init__(
        self,
        function: Callable[..., Any],
        returns: Returns = "values",
        rows: RowsOf = "batch",
        context: bool = False,  # noqa: FBT001, FBT002
        classes: Sequence[Any] | None = None,
        version: str | None = None,
    ) -> None:
        self.function = function
        self.returns = returns
        self.rows = rows
        self.context = context
        self.classes = None if classes is None else labels(classes)
        self.version = version

    def predict(self, batch: Any, context: Context | None) -> Prediction:
        """Answer a batch.

        Raises:
            TierOutputError: the function did not return what ``returns`` says.
        """
        extra = (context,) if self.context else ()
        if self.rows == "one":
            results: Any = [self.function(row, *extra) for row in each(batch)]
        else:
            results = self.function(batch, *extra)
        return self.prediction(results, size(batch))

    def prediction(self, results: Any, n: int) -> Prediction:
        """Turn what the function returned for n rows into a Prediction."""
        wrong = None if isinstance(results, (list, np.ndarray)) else wrong_with(results)
        if wrong is not None:
            raise Misreturned(f"expected {n} results, but what it returned {wrong}")
        if self.returns == "prediction":
            if not isinstance(results, Prediction):
                raise Misreturned(f"expected a Prediction, got {type(results).__name__}")
            return results
        if self.returns == "probabilities":
            return Prediction(probabilities=results)
        if isinstance(results, tuple) and self.rows == "batch":
            msg = "returned a tuple; say what it means with cascade.tier(f, returns='pairs')"
            raise Misreturned(msg)
        listed = results.tolist() if isinstance(results, np.ndarray) else results
        if not isinstance(listed, Sequence) or isinstance(listed, (str, bytes)):
            kind = type(results).__name__
            msg = f"expected {n} results, got a {kind}; for one at a time: rows='one'"
            raise Misreturned(msg)
        return self._pairs(listed) if self.returns == "pairs" else self._values(listed)

    def _values(self, results: Sequence[Any]) -> Prediction:
        if tuple in set(map(type, results)):
            msg = "returned tuples; say what they mean with cascade.tier(f, returns='pairs')"
            raise Misreturned(msg)
        return Prediction(results)

    def _pairs(self, results: Sequence[Any]) -> Prediction:
        try:
            pairs = [
                r if type(r) is tuple and len(r) == 2 and type(r[1]) is float else pair(r)
                for r in results
            ]
        except OutputFault:
            pairs = _pairs_of_some(results)
        return Prediction([v for v, _ in pairs], confidences=[c for _, c in pairs])


def _pairs_of_some(results: Sequence[Any]) -> list[tuple[Any, float]]:
    """Take a row without a pair for faulty, and the others for what they are.

    Raises:
        Misreturned: no row has one.
    """
    pairs, wrong = [], []
    for result in results:
        try:
            pairs.append(pair(result))
        except OutputFault as fault:
            pairs.append((None, math.nan))
            wrong.append(fault)
    if len(wrong) == len(results):
        raise Misreturned(str(wrong[0]))
    return pairs


def pair(result: Any) -> tuple[Any, float]:
    """Return what is said of one row, as value and confidence.

    Raises:
        OutputFault: it is no pair, or its second part no number.
    """
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        wrong = wrong_with(result)
        got = f"got {_shown(result)}" if wrong is None else f"but what it returned {wrong}"
        raise OutputFault(f"returns='pairs' expects (value, confidence) for each row, {got}")
    value, confidence = result
    return value, number(confidence, "confidence")


def _shown(result: Any) -> str:
    kind = type(result).__name__
    return f"a {kind} of {len(result)}" if isinstance(result, (tuple, list)) else f"a {kind}"


def is_async(candidate: Any) -> bool:
    """Whether a tier is asynchronous, and so for AsyncRouter alone."""
    function = candidate.function if isinstance(candidate, FunctionTier) else candidate
    parts = (function, getattr(function, "predict", None), getattr(function, "__call__", None))  # noqa: B004
    return any(map(inspect.iscoroutinefunction, parts))


def size(batch: Any) -> int:
    """Return the number of rows of a batch."""
    return len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)


def each(batch: Any) -> Sequence[Any]:
    """Return the rows of a batch, one by one."""
    if isinstance(batch, Mapping):
        return [{name: batch[name][i] for name in batch} for i in range(size(batch))]
    return list(batch)


def alone(row: Any) -> Any:
    """Return the batch that holds one row."""
    if isinstance(row, np.ndarray):
        return row[None]
    if isinstance(row, Mapping):
        return {name: alone_column(value) for name, value in row.items()}
    return [row]


def alone_column(value: Any) -> Any:
    """Return a column of one value: an array where the value is numeric, else a list."""
    if isinstance(value, np.ndarray):
        return value[None]
    if isinstance(value, (bool, int, float, np.number)):
        return np.array([value])
    return [value]


def _cost(costs: Any, i: int) -> float:
    try:
        cost = number(costs[i], "costs")
    except (LookupError, TypeError):
        cost = math.nan
    if not math.isfinite(cost):
        raise OutputFault("costs: expected a finite number for each row")
    return cost


class _Itself:
    """An object that equals itself alone; a method, that of the same object."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def _key(self) -> tuple[int, Any]:
        target = self._target
        if isinstance(target, MethodType):
            return id(target.__self__), target.__func__
        return id(target), None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


class PythonTier(BoundTier):
    """A Python tier as the lanes run it."""

    silent = False

    def __init__(self, spec: TierSpec, target: Tier, classes: Sequence[Any] | None) -> None:
        self.name = spec.name
        self.batches = not (isinstance(target, FunctionTier) and target.rows == "one")
        self._made_from = (spec, target, classes)
        self._target = target
        own = getattr(target, "classes", None)
        self.classes = classes if own is None else labels(own, f"tier {spec.name!r}")
        self._columns = Columns(spec, self.classes)
        self._version = getattr(spec, "version", None)
        pairs = isinstance(target, FunctionTier) and (target.rows, target.returns) == _ONE_PAIR
        if pairs and self._columns.takes_confidences:
            self.run, self.read = self._run_one, self._read_pair  # type: ignore[method-assign]
            self.silent = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as what it is made from."""
        return PythonTier, self._made_from

    def identify(self) -> Hashable:
        """Name the version, or where there is none the very function or object."""
        target = self._target
        version = self._version or getattr(target, "version", None)
        if version is not None:
            return str(version)
        if not isinstance(target, FunctionTier):
            return _Itself(target)
        return _Itself(target.function), target.returns, target.rows, target.context, target.classes

    def run(self, job: Any) -> Prediction:
        """Ask the tier for one row."""
        return self.run_rows(alone(job.row), 1, job)

    def read(self, raw: Prediction) -> tuple[Any, float | None]:
        """Return the one value and its confidence."""
        values, confidences = self._columns.read(raw, 1)
        value = plain(values[0])
        confidence = None if confidences is None else float(confidences[0])
        if confidence is not None and not 0.0 <= confidence <= 1.0:
            self._columns.explain_fault(raw, confidence)
        return value, confidence

    def remarks(self, raw: Prediction, i: int = 0) -> tuple[bool, float | None]:
        """Return whether the reported version is the policy's, and the cost of row ``i``."""
        known = raw.version is None or self._version is None or raw.version == self._version
        return known, None if raw.costs is None else _cost(raw.costs, i)

    def run_rows(self, rows: Any, n: int, context: Context) -> Prediction:  # noqa: ARG002
        """Ask the tier for n rows."""
        prediction: Any = self._target.predict(rows, context)
        if not isinstance(prediction, Prediction):
            msg = f"predict() must return a cascade.Prediction, got {type(prediction).__name__}"
            raise OutputFault(msg)
        return prediction

    def read_rows(self, raw: Prediction, n: int) -> Rows:
        """Return the columns of n rows."""
        values, confidences = self._columns.read(raw, n)
        own: Any = raw.values
        # what the tier returned may be part of its input, or be filled anew by its next run
        return (values.copy() if values is own else values), confidences

    # -- one row of (value, confidence): the common case, without a Prediction ---------------------

    def _run_one(self, job: Any) -> Any:
        target = self._target
        assert isinstance(target, FunctionTier)  # noqa: S101  chosen in __init__
        return target.function(job.row, job) if target.context else target.function(job.row)

    def _read_pair(self, raw: Any) -> tuple[Any, float]:
        sound = type(raw) is tuple and len(raw) == 2 and type(raw[1]) is float
        value, confidence = raw if sound else pair(raw)
        if not 0.0 <= confidence <= 1.0:
            msg = "confidence: expected a number in [0, 1], got one outside it"
            raise OutputFault(msg)
        return plain(value), confidence
