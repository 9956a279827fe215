"""When two answers agree."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["same_as"]

_KNOWN = "casefold, strip, number:TOLERANCE, json"


def same_as(said: str | Callable[[Any, Any], bool] | None) -> Callable[[Any, Any], bool] | None:
    """Return the comparison that a word names; None is equality.

    >>> same_as("casefold")(" Yes", "yes "), same_as("number:0.01")("1.0", 1.005)
    (True, True)
    >>> same_as("json")('{"a": 1, "b": 2}', '{"b":2,"a":1}')
    True
    """
    if said is None or callable(said):
        return said
    word, _, detail = said.partition(":")
    if word == "strip":
        return lambda a, b: str(a).strip() == str(b).strip()
    if word == "casefold":
        return lambda a, b: str(a).strip().casefold() == str(b).strip().casefold()
    if word == "json":
        return lambda a, b: _parsed(a) == _parsed(b)
    if word == "number":
        try:
            tolerance = float(detail or 0.0)
        except ValueError:
            tolerance = math.nan
        if tolerance >= 0.0:
            return lambda a, b: _near(a, b, tolerance)
    raise ValueError(f"same: expected one of {_KNOWN}, got {said!r}")


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _near(a: Any, b: Any, tolerance: float) -> bool:
    try:
        return math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=tolerance)
    except (TypeError, ValueError):
        return bool(a == b)
