"""Train the tiers of an estimator, and see that what they answer is what they serve."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from cascade.parameters import has_method

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from cascade.optimize.fitted import FittedTier

    Array = npt.NDArray[Any]

__all__ = [
    "fit_tier", "is_frozen", "known_classes", "of_numbers", "synthetic_rows",
    "warn_of_other_answers",
]  # fmt: skip

_COMPARED = 1_000  # rows on which the top tier is asked for its own answers
_SYNTHETIC = 8  # rows for golden answers and measurements

_OTHERS = ("could not convert string", "Sparse data", "using strings")  # in scikit-learn's words
_NUMBERS = (
    "a cascade's tiers take one dense array of numbers, by place: put what makes it of text, "
    "categories or named columns (a vectoriser, a ColumnTransformer) before the cascade, and give "
    "it to the router as prepare="
)


@contextlib.contextmanager
def of_numbers() -> Iterator[None]:
    """Say what tiers take, where text, a sparse matrix or names of columns stand in the way."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if any(words in str(error) for words in _OTHERS):
            error.add_note(_NUMBERS)
        raise


def is_frozen(tier: Any) -> bool:
    """Whether a tier is taken as it is."""
    return isinstance(tier, FrozenEstimator)


def known_classes(name: str, tier: FrozenEstimator) -> Array:
    """Return the classes that a frozen tier has learned.

    Raises:
        NotFittedError: it has learned none.
    """
    if not hasattr(tier.estimator, "classes_"):
        raise NotFittedError(f"tier {name!r}: the frozen estimator is not fitted")
    return np.asarray(tier.estimator.classes_)


def fit_tier(name: str, tier: Any, X: Array, y: Array, rows: Array) -> Any:
    """Fit a tier; one without probabilities inside a calibrated wrapper.

    Raises:
        ValueError: a class has too few rows for that.
    """
    if not has_method(tier, "predict_proba"):
        classes, counts = np.unique(y[rows], return_counts=True)
        if not is_frozen(tier) and counts.min() < 2:
            rare = classes.tolist()[counts.argmin()]
            raise ValueError(
                f"tier {name!r}: class {rare!r} has one training row; without predict_proba it is "
                "calibrated on rows that it did not train on, which takes two"
            )
        folds = int(min(5, counts.min(initial=5)))
        tier = CalibratedClassifierCV(tier, ensemble=False, cv=None if is_frozen(tier) else folds)
    elif is_frozen(tier):
        return tier
    return tier.fit(X[rows], y[rows])


def warn_of_other_answers(top: FittedTier, X: Array) -> None:
    """Warn where the top tier's own ``predict`` is not its most probable class, which is served."""
    some = X[:_COMPARED]
    answers = top.estimator.classes_[top.estimator.predict_proba(some).argmax(axis=1)]
    others = int((top.estimator.predict(some) != answers).sum()) if len(some) else 0
    if others:
        warnings.warn(
            f"tier {top.name!r}: predict() is not the most probable class on {others:,} of "
            f"{len(some):,} rows; the cascade serves the latter, and the promise is against that",
            stacklevel=3,
        )


def synthetic_rows(X: Array, rng: np.random.RandomState) -> Array:
    """Draw rows with the mean and spread of each column, for measuring and golden answers."""
    drawn = rng.normal(X.mean(axis=0), X.std(axis=0), size=(_SYNTHETIC, X.shape[1]))
    return np.clip(drawn, X.min(axis=0), X.max(axis=0)).astype(np.float32)
