"""The estimator's parameters, held to what they must be before anything is fitted."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_regressor
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from cascade.fitting.losses import LOSSES
from cascade.policy.walk import close
from cascade.types import a_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_parameters", "has_method", "pairs"]

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_NEEDED = ("fit", "predict", "get_params", "set_params")


def pairs(tiers: Any) -> list[tuple[str, Any]]:
    """Return the (name, classifier) pairs of a ``tiers`` argument that may be anything."""
    if not isinstance(tiers, (list, tuple)):
        return []
    found = [tuple(pair) for pair in tiers if isinstance(pair, (list, tuple))]
    return [pair for pair in found if len(pair) == 2 and isinstance(pair[0], str)]


def check_parameters(params: Mapping[str, Any]) -> None:
    """Refuse parameters that nothing can be fitted with.

    Raises:
        TypeError, ValueError: a parameter is not what it should be; the message names it.
    """
    for key in ("max_loss", "alpha", "calibration_size"):
        value = params[key]
        if not _is_number(value):
            raise TypeError(f"{key} must be a number, got {a_kind(value)}")
        if not 0.0 < value < 1.0:
            raise ValueError(f"{key} must lie between 0 and 1, both excluded; got {value!r}")
    loss = params["loss"]
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}{_nearest(loss)}")
    _check_tiers(params["tiers"], set(params))
    if params["costs"] is not None:
        _check_costs(params["costs"], len(params["tiers"]))


def _check_tiers(tiers: Any, taken: set[str]) -> None:
    if isinstance(tiers, Mapping):
        raise TypeError("tiers must be a list of pairs, got a mapping; give list(tiers.items())")
    if not isinstance(tiers, (list, tuple)):
        what = f"got {a_kind(tiers)}"
        raise TypeError(f"tiers must be two or more (name, classifier) pairs in a list, {what}")
    for i, pair in enumerate(tiers):
        if not pairs([pair]):
            what = f"expected a (name, classifier) pair, got {a_kind(pair)}"
            raise TypeError(f"tiers[{i}]: {what}")
    names = [name for name, _ in tiers]
    if len(names) < 2 or len(set(names)) != len(names):
        msg = f"tiers must be two or more (name, classifier) pairs with unique names; got {names}"
        raise ValueError(msg)
    bad = sorted(name for name in names if name in taken or not _is_name(name))
    if bad:
        raise ValueError(
            f"tier name {bad[0]!r}: expected letters, digits, '_', '.', '-', no '__', and not the "
            "name of a parameter"
        )
    for name, tier in tiers:
        _check_classifier(name, tier)


def _check_classifier(name: str, tier: Any) -> None:
    what = f"tier {name!r}: expected a classifier"
    if isinstance(tier, type):
        raise TypeError(f"{what}, got the class {tier.__name__}; give {tier.__name__}()")
    lacking = _lacking(tier, _NEEDED)
    if lacking:
        raise TypeError(f"{what}, got {a_kind(tier)}, which has no {lacking[0]}()")
    if is_regressor(tier):
        raise TypeError(f"{what}, got {a_kind(tier)}, which is a regressor")
    if len(_lacking(tier, ("predict_proba", "decision_function"))) == 2:
        has = "has neither predict_proba() nor decision_function(): it says not how sure it is"
        raise TypeError(f"tier {name!r}: {a_kind(tier)} {has}")


def _lacking(tier: Any, methods: Iterable[str]) -> list[str]:
    return [method for method in methods if not has_method(tier, method)]


def has_method(tier: Any, method: str) -> bool:
    """Whether a classifier has a method, or will have it once it is fitted.

    Those of a stack are its final estimator's, and it does not say so before.

    >>> has_method(StackingClassifier([("a", LogisticRegression())]), "predict_proba")
    True
    """
    if callable(getattr(tier, method, None)):
        return True
    if isinstance(tier, Pipeline):
        return has_method(tier.steps[-1][1], method)
    if isinstance(tier, StackingClassifier):
        final = tier.final_estimator
        return has_method(LogisticRegression() if final is None else final, method)
    return False


def _check_costs(costs: Any, n: int) -> None:
    if isinstance(costs, (str, bytes, Mapping)) or not isinstance(costs, (Collection, np.ndarray)):
        raise TypeError(f"costs must hold one number per tier; got {a_kind(costs)}")
    listed = list(costs)
    if len(listed) != n:
        raise ValueError(f"costs must hold one number per tier; got {len(listed)} for {n} tiers")
    for i, cost in enumerate(listed):
        if not _is_number(cost):
            raise TypeError(f"costs[{i}] must be a number, got {a_kind(cost)}")
        if not 0.0 <= cost < math.inf:
            raise ValueError(f"costs[{i}] must be 0 or more, and finite; got {cost!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and "__" not in name


def _nearest(word: Any) -> str:
    meant = close(word, LOSSES)
    return f"; did you mean {meant!r}?" if meant else ""
