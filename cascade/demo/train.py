"""Train the demo's three tiers one by one, and certify them on rows that none has seen."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any

from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from cascade.errors import MissingExtra
from cascade.estimator import CascadeClassifier

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["ALPHA", "MAX_LOSS", "require", "train"]

MAX_LOSS, ALPHA = 0.01, 0.1


def require() -> None:
    """Look for the extra's packages now, rather than when the tiers are trained.

    Raises:
        MissingExtra: one of them is absent.
    """
    for package in ("mlxtend", "matplotlib", "onnx", "skl2onnx"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtra.for_extra("demo", package) from error


def train(rows: Array, labels: Array, seed: int, say: Callable[[str], None]) -> CascadeClassifier:
    """Fit the tiers on half of rows (n, 784), which come shuffled; certify on the other half.

    ``CascadeClassifier`` would fit them itself; fitted before, one can be told how each does.
    """
    half = len(rows) // 2
    frozen = []
    for name, tier in _tiers(seed):
        start = time.perf_counter()
        tier.fit(rows[:half], labels[:half])
        say(f"trained {name} on {half:,} rows in {time.perf_counter() - start:.1f} s")
        frozen.append((name, FrozenEstimator(tier)))
    say(f"calibrating and certifying on {len(rows) - half:,} other rows, row by row in ONNX")
    cascade = CascadeClassifier(frozen, max_loss=MAX_LOSS, alpha=ALPHA, random_state=seed)
    return cascade.fit(rows[half:], labels[half:])


def _tiers(seed: int) -> list[tuple[str, Any]]:
    """The ladder, cheapest first; kept small, for the demo has a minute."""
    forest = RandomForestClassifier(40, max_depth=14, n_jobs=2, random_state=seed)
    machine = CalibratedClassifierCV(SVC(C=5.0, gamma=0.02), ensemble=False, cv=3)
    logistic = LogisticRegression(C=0.1, max_iter=300)
    return [("logistic", logistic), ("forest", forest), ("svc", machine)]
