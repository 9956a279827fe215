"""Calibration: from what a tier supplies to the probability that its answer may be taken.

Temperature is one number (Guo et al., 'On Calibration of Modern Neural Networks', ICML 2017): it
divides log-probabilities (clipped at 1e-12) or declared logits, in fitting and in serving alike.
``ByLabel`` looks at the label and the confidence together.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs
import numpy as np

from cascade.complexity import named_sum, sigmoid
from cascade.types import spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

__all__ = [
    "FLOOR", "ByLabel", "Calibration", "Learned", "calibration_of", "labels_of", "log_odds",
    "log_probabilities", "temper",
]  # fmt: skip

FLOOR = 1e-12
"""Probabilities are clipped here before their logarithm is taken."""

_EDGE = 1e-6  # confidences are kept so far from 0 and 1 before their odds are taken
_LEAST = -700.0  # exp overflows beyond


def _floats(numbers: Iterable[Any]) -> tuple[float, ...]:
    return tuple(map(float, numbers))


def _numbers(numbers: Mapping[Any, Any]) -> dict[str, float]:
    return {str(name): float(number) for name, number in numbers.items()}


def _lines(lines: Mapping[Any, Iterable[Any]]) -> dict[str, tuple[float, ...]]:
    return {str(label): _floats(line) for label, line in lines.items()}


def log_probabilities(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return ``log(max(p, 1e-12))`` in float64, of the same shape.

    >>> log_probabilities([[1.0, 0.0]]).round(3).tolist()
    [[0.0, -27.631]]
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    return np.log(np.maximum(wide, FLOOR))


def temper(logits: npt.NDArray[Any], temperature: float) -> npt.NDArray[np.float64]:
    """Return softmax(logits / temperature) over the last axis, in float64, overwriting nothing.

    Rows that hold NaN or +inf come out as NaN: they are faults, and the caller counts them.

    >>> temper(np.array([[0.0, 0.0]]), 2.0).tolist()
    [[0.5, 0.5]]
    """
    with np.errstate(invalid="ignore"):
        scaled = logits.astype(np.float64)
        scaled -= scaled.max(axis=-1, keepdims=True)
        scaled /= temperature
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=-1, keepdims=True)
    return scaled


def log_odds(confidences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return log(c / (1 - c)), of confidences kept 1e-6 from 0 and 1.

    >>> log_odds(np.array([0.5, 1.0])).round(1).tolist()
    [0.0, 13.8]
    """
    kept = np.clip(confidences, _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(kept / (1.0 - kept)))


def labels_of(values: Iterable[Any]) -> npt.NDArray[np.str_]:
    """Return the labels (n,) of n answers, as text, by which tables know them.

    >>> labels_of(["cat", True, [1, 2]]).tolist()
    ['cat', 'True', '[1, 2]']
    """
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind != "O":
        return values.astype(np.str_)
    return np.array(list(map(spelled, values)), dtype=np.str_)


@attrs.frozen(eq=False)
class ByLabel:
    """Confidence by predicted label: for each, a rising line through the same knots.

    ``knots`` (m,) rise in [0, 1]; ``labels`` maps a label, as text, to its confidences (m,) at
    them; ``other`` (m,) is for labels that fitting did not see. Where a tier is good at one label
    and poor at another, the same raw confidence means different things.

    >>> table = ByLabel([0.0, 1.0], {"cat": [0.5, 1.0]}, [0.0, 0.4])
    >>> table.one("cat", 0.5), table.one("eel", 0.5)
    (0.75, 0.2)
    >>> table.rows(np.array(["cat", "eel"]), np.array([0.5, 0.5])).tolist()
    [0.75, 0.2]
    """

    knots: tuple[float, ...] = attrs.field(converter=_floats)
    labels: Mapping[str, tuple[float, ...]] = attrs.field(converter=_lines)
    other: tuple[float, ...] = attrs.field(converter=_floats)
    blind: ClassVar[bool] = False  # it needs the tier's own confidence

    def __attrs_post_init__(self) -> None:
        """Refuse what is not a rising line in [0, 1].

        Raises:
            ValueError: which line it is.
        """
        for name, line in {"knots": self.knots, "other": self.other, **self.labels}.items():
            pairs = list(pairwise(line))
            if len(line) != len(self.knots) or len(line) < 2:
                raise ValueError(f"{name}: expected {max(2, len(self.knots))} numbers")
            if not all(0.0 <= x <= 1.0 for x in line) or not all(a < b for a, b in pairs):
                raise ValueError(f"{name}: expected rising numbers in [0, 1]")

    def one(self, value: Any, confidence: float | None, row: Any = None) -> float | None:  # noqa: ARG002  one signature
        """Return the calibrated confidence of one answer; None and NaN stay what they are."""
        if confidence is None or not 0.0 <= confidence <= 1.0:
            return confidence
        knots, line = self.knots, self.labels.get(spelled(value), self.other)
        if confidence <= knots[0]:
            return line[0]
        if confidence >= knots[-1]:
            return line[-1]
        at = bisect_right(knots, confidence)
        low, high = knots[at - 1], knots[at]
        share = (confidence - low) / (high - low)
        return line[at - 1] + share * (line[at] - line[at - 1])

    def rows(
        self,
        values: npt.NDArray[Any],
        confidences: npt.NDArray[np.float64],
        rows: Any = None,  # noqa: ARG002
    ) -> npt.NDArray[np.float64]:
        """Return the calibrated confidences (n,) of n answers."""
        names, which = np.unique(labels_of(values), return_inverse=True)
        lines = np.array([self.labels.get(name, self.other) for name in names.tolist()])
        knots = np.asarray(self.knots)
        inside = np.clip(np.nan_to_num(confidences), knots[0], knots[-1])
        at = np.clip(np.searchsorted(knots, inside, side="right"), 1, len(knots) - 1)
        share = (inside - knots[at - 1]) / (knots[at] - knots[at - 1])
        low, high = lines[which, at - 1], lines[which, at]
        return np.where(np.isnan(confidences), np.nan, low + share * (high - low))

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON types; ``ByLabel(**table.to_dict())`` reads it back."""
        return {
            "knots": list(self.knots),
            "labels": {label: list(line) for label, line in self.labels.items()},
            "other": list(self.other),
        }


@attrs.frozen(eq=False)
class Learned:
    """A learned score: sigmoid of the confidence's log-odds, the label, and what the input shows.

    ``labels`` maps a label, as text, to its offset; ``features`` maps names to weights, of a text's
    statistics (see :data:`cascade.complexity.TEXT_FEATURES`) or of the numbers in a dict.

    >>> score = Learned(0.0, 1.0, {"cat": 2.0}, {"length": -1.0})
    >>> score.one("dog", 0.5, ""), score.one("cat", 0.5, "ab")
    (0.5, 0.5)
    >>> score.rows(np.array(["dog", "cat"]), np.array([0.5, 0.5]), ["", "ab"]).tolist()
    [0.5, 0.5]
    """

    intercept: float = attrs.field(converter=float)
    odds: float = attrs.field(converter=float)
    labels: Mapping[str, float] = attrs.field(factory=dict, converter=_numbers)
    features: Mapping[str, float] = attrs.field(factory=dict, converter=_numbers)

    def __attrs_post_init__(self) -> None:
        """Refuse what is not a finite number.

        Raises:
            ValueError: one is not.
        """
        numbers = [self.intercept, self.odds, *self.labels.values(), *self.features.values()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("expected finite numbers")

    @property
    def blind(self) -> bool:
        """Whether it does without the tier's own confidence."""
        return self.odds == 0.0

    def one(self, value: Any, confidence: float | None, row: Any = None) -> float | None:
        """Return the score of one answer; None and what is no confidence stay what they are."""
        if confidence is None and self.blind:
            confidence = 0.5
        if confidence is None or not 0.0 <= confidence <= 1.0:
            return confidence
        kept = min(max(confidence, _EDGE), 1.0 - _EDGE)  # as log_odds, without NumPy
        total = self.intercept + self.odds * math.log(kept / (1.0 - kept))
        total += self.labels.get(spelled(value), 0.0)
        if self.features:
            total += named_sum(self.features, row)
        return sigmoid(total)

    def rows(
        self, values: npt.NDArray[Any], confidences: npt.NDArray[np.float64], rows: Any = None
    ) -> npt.NDArray[np.float64]:
        """Return the scores (n,) of n answers; ``rows`` is the batch, or its features by name."""
        total = self.intercept + self.odds * log_odds(confidences)
        names, which = np.unique(labels_of(values), return_inverse=True)
        total += np.array([self.labels.get(name, 0.0) for name in names.tolist()])[which]
        if hasattr(rows, "keys"):
            for name, weight in self.features.items():
                total += weight * np.asarray(rows[name], dtype=np.float64)
        elif self.features:
            total += np.array([named_sum(self.features, row) for row in rows])
        return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(total, _LEAST))))

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON types; ``Learned(**score.to_dict())`` reads it back."""
        return {
            "intercept": self.intercept,
            "odds": self.odds,
            "labels": dict(self.labels),
            "features": dict(self.features),
        }


Calibration: TypeAlias = ByLabel | Learned

_EXPECTED: dict[Any, str] = {
    float: "a number", _floats: "a list of numbers", _numbers: "numbers by name",
    _lines: "lists of numbers by label",
}  # fmt: skip


def calibration_of(tree: Mapping[str, Any]) -> Calibration:
    """Read what ``to_dict`` of either kind wrote.

    Raises:
        ValueError: it is neither; the message says why.

    >>> calibration_of({"intercept": 0, "odds": 1}).one("any", 0.25)
    0.25
    """
    if not hasattr(tree, "keys"):
        raise ValueError("expected an object")
    kind: Any = Learned if "odds" in tree else ByLabel
    fields: dict[str, Any] = attrs.fields_dict(kind)
    for key in tree:
        if key not in fields:
            raise ValueError(f"unknown key {str(key)[:40]!r}; expected {', '.join(fields)}")
    for name, field in fields.items():
        if field.default is attrs.NOTHING and name not in tree:
            raise ValueError(f"{name}: missing")
    read: dict[str, Any] = {}
    for name, value in tree.items():
        try:
            read[name] = fields[name].converter(value)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise ValueError(f"{name}: expected {_EXPECTED[fields[name].converter]}") from None
    made: Calibration = kind(**read)
    return made
