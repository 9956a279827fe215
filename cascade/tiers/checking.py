"""What a router expects of a tier, as checks for its author's own tests."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.errors import CascadeError
from cascade.policy.settings import ExternalSpec
from cascade.tiers.python import FunctionTier, PythonTier, alone, each, is_async, size

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["wrongs"]

_CLOSE = 1e-5  # by which a confidence may differ between batch sizes


def wrongs(tier: Any, batch: Any) -> Iterator[str]:
    """Yield what is wrong with a tier, asked for a batch of its own rows."""
    if is_async(tier):
        yield "it is asynchronous; check the coroutine's synchronous twin"
        return
    if not callable(getattr(tier, "predict", None)):
        if not callable(tier):
            yield f"expected a callable or predict(batch, context), got a {type(tier).__name__}"
            return
        tier = FunctionTier(tier)
    bound = PythonTier(ExternalSpec(name="it"), tier, getattr(tier, "classes", None))
    n = size(batch)
    before = copy.deepcopy(batch)
    try:
        values, sure = bound.read_rows(bound.run_rows(batch, n, _context()), n)
    except CascadeError as error:
        yield f"{error}"
        return
    except Exception as error:  # noqa: BLE001  whatever it raises is what is wrong
        yield f"it raised {type(error).__name__}: {error}"
        return
    if not _same(batch, before):
        yield "it changed its input"
    if sure is not None and np.isnan(sure).any():
        yield "confidences: expected numbers in [0, 1]"
        return
    yield from _alone(bound, batch, values, sure)
    again, _ = bound.read_rows(bound.run_rows(batch, n, _context()), n)
    if not _same(list(again), list(values)):
        yield "asked twice, it answers differently: its answers must not be cached"


def _alone(bound: PythonTier, batch: Any, values: Any, sure: Any) -> Iterator[str]:
    for i, row in enumerate(each(batch)):
        one, confidence = bound.read_rows(bound.run_rows(alone(row), 1, _context()), 1)
        if not _same(list(one), [values[i]]):
            yield f"row {i}: another value alone than in the batch"
        if (confidence is None) != (sure is None):
            yield f"row {i}: a confidence alone or in the batch, but not both"
        elif confidence is not None and abs(confidence[0] - sure[i]) > _CLOSE:
            yield f"row {i}: confidence {confidence[0]:.6g} alone, {sure[i]:.6g} in the batch"


def _context() -> Any:
    return SimpleNamespace(
        tenant=None, metadata={}, remaining=lambda: 60.0, cancelled=lambda: False
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
