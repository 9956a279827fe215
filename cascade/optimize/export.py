"""From a fitted scikit-learn tier to an ONNX model: probabilities alone, float32 in and out."""

from __future__ import annotations

import copy
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from cascade.errors import ExportError, MissingExtra

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["INPUT", "OUTPUT", "check_agreement", "to_onnx", "unfrozen"]

INPUT, OUTPUT = "input", "probabilities"
"""The names of an exported model's input, float32 (rows, features), and output, (rows, classes)."""

_OPSET = {"": 18, "ai.onnx.ml": 3}
_CLOSE, _SHARE = 1e-2, 0.9


def to_onnx(estimator: Any, features: int, *, tier: str | None = None) -> bytes:
    """Convert a fitted classifier with ``predict_proba`` to an ONNX model.

    The label that scikit-learn's converter also writes is dropped, so that serving does not compute
    what the class order already says; frozen estimators inside are converted as what they hold.

    Raises:
        MissingExtra: the extra ``export`` is not installed.
        ExportError: a step has no converter; ``.step`` names it.
    """
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise MissingExtra.for_extra("export", "skl2onnx") from error
    plain = unfrozen(estimator)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the converter are not the user's
            model = convert_sklearn(
                plain,
                name=tier or type(plain).__name__,
                initial_types=[(INPUT, FloatTensorType([None, features]))],
                options={id(_last_step(plain)): {"zipmap": False}},
                target_opset=_OPSET,
            )
    except Exception as error:
        step = _failed_step(plain, error)
        msg = f"tier {tier!r} does not convert to ONNX: {step} ({_first_line(error)})"
        raise ExportError(msg, tier=tier, step=step) from error
    return _probabilities_only(model, tier)


def unfrozen(estimator: Any) -> Any:
    """Return a copy of what is inside: the converter cannot read all that may stand around it.

    Without ``FrozenEstimator`` and searches, and with a calibration of a pipeline as its last step.
    """
    if isinstance(estimator, FrozenEstimator):
        return unfrozen(estimator.estimator)
    if hasattr(estimator, "best_estimator_"):
        return unfrozen(estimator.best_estimator_)
    if isinstance(estimator, Pipeline):
        twin = copy.copy(estimator)
        twin.steps = [(name, unfrozen(step)) for name, step in estimator.steps]
        return twin
    if isinstance(estimator, CalibratedClassifierCV):
        twin = copy.copy(estimator)
        twin.calibrated_classifiers_ = [copy.copy(one) for one in estimator.calibrated_classifiers_]
        for one in twin.calibrated_classifiers_:
            one.estimator = unfrozen(one.estimator)
        return _calibrated_last(twin)
    if isinstance(estimator, VotingClassifier):
        twin = copy.copy(estimator)
        twin.estimators_ = [unfrozen(one) for one in estimator.estimators_]
        twin.flatten_transform = False  # of transform alone; the converter takes nothing else
        return twin
    return estimator


def _calibrated_last(estimator: Any) -> Any:
    """Move the calibration of a pipeline into it: around one the converter mistakes two classes."""
    first, *others = estimator.calibrated_classifiers_
    if others or not isinstance(first.estimator, Pipeline):
        return estimator
    *before, (_, last) = first.estimator.steps
    first.estimator = estimator.estimator = last
    return Pipeline([*before, ("calibrated", estimator)])


def check_agreement(
    converted: npt.NDArray[Any], original: npt.NDArray[Any], *, tier: str | None = None
) -> None:
    """Raise ExportError unless 9 rows in 10 agree to 1e-2 with what scikit-learn says.

    Both are (n, classes). Single rows may differ, where a tree's split falls between a float64 and
    its float32; a converter that is wrong is wrong on most of them.
    """
    if converted.shape != original.shape:
        msg = f"tier {tier!r}: the converted model returns {converted.shape}, not {original.shape}"
        raise ExportError(msg, tier=tier, step="comparison")
    apart = np.abs(converted - original).max(axis=1, initial=0.0)
    share = float((apart <= _CLOSE).mean()) if len(apart) else 1.0
    if share < _SHARE:
        msg = f"tier {tier!r}: the converted model agrees on {share:.0%} of {len(apart)} rows only"
        raise ExportError(msg, tier=tier, step="comparison")


def _last_step(estimator: Any) -> Any:
    return _last_step(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def _probabilities_only(model: Any, tier: str | None) -> bytes:
    outputs = {output.name: output for output in model.graph.output}
    if OUTPUT not in outputs:
        msg = f"tier {tier!r}: the converted model has the outputs {sorted(outputs)}, no {OUTPUT!r}"
        raise ExportError(msg, tier=tier, step="outputs")
    del model.graph.output[:]
    model.graph.output.append(outputs[OUTPUT])
    return bytes(model.SerializeToString(deterministic=True))


def _failed_step(estimator: Any, error: Exception) -> str:
    """Name the class that has no converter; without a hint in the message, the last step."""
    named = re.search(r"<class '[\w.]*?(\w+)'>", str(error))
    if named:
        return named.group(1)
    steps = estimator.steps if isinstance(estimator, Pipeline) else []
    kinds = [type(step).__name__ for _, step in steps]
    hinted = [kind for kind in kinds if kind in str(error)]
    return (hinted or [type(_last_step(estimator)).__name__])[0]


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:120]}"
