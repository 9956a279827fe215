"""Asynchronous Python tiers: awaited in the event loop of an AsyncRouter."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from cascade.confidence import OutputFault
from cascade.tiers.python import FunctionTier, PythonTier, alone, each, size
from cascade.types import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cascade.policy.settings import TierSpec
    from cascade.protocols import Context

__all__ = ["AsyncTier"]


class AsyncTier(PythonTier):
    """A coroutine function, or an object whose ``predict`` is one, as the lanes run it."""

    def __init__(self, spec: TierSpec, target: Any, classes: Sequence[Any] | None) -> None:
        super().__init__(spec, target, classes)
        self.silent = False
        for shortcut in ("run", "read"):  # of synchronous pairs
            self.__dict__.pop(shortcut, None)

    async def predict_async(self, job: Any) -> Prediction:
        """Ask the tier for one row."""
        return await self.predict_rows_async(alone(job.row), job)

    async def predict_rows_async(self, rows: Any, context: Context) -> Prediction:
        """Ask the tier for a batch."""
        target: Any = self._target
        if isinstance(target, FunctionTier):
            extra = (context,) if target.context else ()
            if target.rows == "one":
                results: Any = [await target.function(row, *extra) for row in each(rows)]
            else:
                results = await target.function(rows, *extra)
            return target.prediction(results, size(rows))
        prediction = target.predict(rows, context)
        if inspect.isawaitable(prediction):
            prediction = await prediction
        if not isinstance(prediction, Prediction):
            msg = f"predict() must return a cascade.Prediction, got {type(prediction).__name__}"
            raise OutputFault(msg)
        return prediction
