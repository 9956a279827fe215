"""A fitted tier: its estimator, the model it converts to, and the confidence of its answers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.calibration import log_probabilities, temper
from cascade.confidence import rows_reader
from cascade.errors import ExportError, MissingExtra
from cascade.fitting.temperature import fit_temperature
from cascade.optimize.export import OUTPUT, check_agreement, to_onnx
from cascade.optimize.scorers import EstimatorScorer, OnnxScorer, seconds_per_row
from cascade.policy import ConfidenceSettings, ExternalSpec, OnnxSpec, OutputSettings

if TYPE_CHECKING:
    import numpy.typing as npt

    from cascade.policy import TierSpec

__all__ = ["FittedTier", "plain_labels"]

_COMPARED = 100  # rows on which the converted model is compared with its origin


@attrs.define(eq=False)
class FittedTier:
    """One tier of a fitted cascade; ``error`` is why it was not converted, where it was not.

    Only such a tier has a ``version``.
    """

    name: str
    estimator: Any
    scorer: OnnxScorer | EstimatorScorer
    error: ExportError | MissingExtra | None = None
    version: str | None = None
    temperature: float = 1.0
    seconds: float = 0.0

    @classmethod
    def convert(
        cls, name: str, estimator: Any, classes: npt.NDArray[Any], X: npt.NDArray[Any]
    ) -> FittedTier:
        """Convert a fitted estimator, comparing on the rows X; where that fails, keep the error."""
        columns = _columns(name, estimator.classes_, classes)
        own = EstimatorScorer(estimator, columns)
        some = X[:_COMPARED]
        try:
            converted = OnnxScorer(to_onnx(estimator, X.shape[1], tier=name), columns)
            scored = _scored(converted, some, name)
            check_agreement(scored, own.probabilities(some), tier=name)
        except (ExportError, MissingExtra) as error:
            return cls(name, estimator, own, error, _version(own.probabilities(some)))
        return cls(name, estimator, converted)

    def learn(self, X: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
        """Fit the temperature, and measure, on rows that the tier did not train on."""
        if len(X):
            self.temperature = fit_temperature(self.scorer.probabilities(X), truth)
            self.seconds = seconds_per_row(self.scorer, X)

    def answers(
        self, X: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Return calibrated probabilities (n, classes), class indices (n,) and confidences (n,)."""
        raw = self.scorer.probabilities(X)
        values, confidences = self.read(raw)
        return temper(log_probabilities(raw), self.temperature), values, confidences

    def read(self, raw: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Return class indices and confidences of raw probabilities, as serving reads them.

        What serving refuses is NaN and the index -1, which is no class.
        """
        values, confidences = rows_reader("probabilities", "max_probability", self.temperature)(raw)
        values[np.isnan(confidences)] = -1
        return values, confidences

    def spec(self) -> TierSpec:
        """Say what a policy says of this tier."""
        confidence = ConfidenceSettings(score="max_probability", temperature=self.temperature)
        own_order = self.scorer.columns != sorted(self.scorer.columns)
        classes = plain_labels(self.estimator.classes_) if own_order else None
        if isinstance(self.scorer, OnnxScorer):
            return OnnxSpec(
                name=self.name,
                model=f"{self.name}.onnx",
                sha256=hashlib.sha256(self.scorer.model).hexdigest(),
                threads=1,
                outputs=OutputSettings(kind="probabilities", name=OUTPUT),
                confidence=confidence,
                classes=classes,
            )
        return ExternalSpec(
            name=self.name,
            version=self.version,
            outputs=OutputSettings(kind="probabilities"),
            confidence=confidence,
            classes=classes,
        )


def plain_labels(labels: npt.NDArray[Any]) -> tuple[Any, ...]:
    """Return labels as plain Python values, as a policy holds them."""
    return tuple(np.asarray(labels).tolist())


def _version(answers: npt.NDArray[Any]) -> str:
    """Name a tier by what it answers: not every estimator can be pickled, and so hashed."""
    return hashlib.blake2b(np.ascontiguousarray(answers).tobytes(), digest_size=8).hexdigest()


def _scored(scorer: OnnxScorer, X: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    try:
        return scorer.probabilities(X)
    except Exception as error:
        msg = f"tier {name!r} converts to a model that does not run: {error}"
        raise ExportError(msg, tier=name, step="session") from error


def _columns(name: str, own: npt.NDArray[Any], classes: npt.NDArray[Any]) -> list[int]:
    """Say where each class of the cascade stands among the tier's own."""
    places = {label: at for at, label in enumerate(np.asarray(own).tolist())}
    wanted = classes.tolist()
    if set(places) != set(wanted):
        msg = f"tier {name!r} knows the classes {sorted(places, key=str)}, the data {wanted}"
        never = ", ".join(repr(label) for label in wanted if label not in places)
        raise ValueError(f"{msg}; it can never answer {never}" if never else msg)
    return [places[label] for label in wanted]
