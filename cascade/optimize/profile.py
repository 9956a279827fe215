"""Measure a live tier: seconds by batch size, as an affine law and a margin above it."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.bundle import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

__all__ = ["law", "measure", "times"]

_SECONDS = 0.4  # of measuring per tier
_REPEATS = (5, 200)  # runs per batch size: at least, at most


def measure(
    run: Callable[[npt.NDArray[Any]], Any],
    X: npt.NDArray[Any],
    sizes: Sequence[int] = (1, 2, 4, 8),
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Run ``run`` on batches of the rows of X and fit ``overhead + per_row · n``, in seconds.

    The law goes through the medians per batch size, weighted towards small batches; ``residual`` is
    the 95th percentile of what single runs took above it. Takes about half a second, or five runs
    per size of a slow model. ``X`` is (n, …), recycled where a batch is larger.
    """
    batches = {size: np.resize(X, (size, *X.shape[1:])) for size in sizes}
    for batch in batches.values():
        run(batch)  # the first run of a shape allocates
    taken = {
        size: times(functools.partial(run, batch), _SECONDS / len(sizes), clock)
        for size, batch in batches.items()
    }
    return law(taken)


def law(taken: Mapping[int, npt.NDArray[np.float64]]) -> Profile:
    """Fit ``overhead + per_row · n`` to seconds by batch size, and the residual of single runs.

    >>> found = law({1: np.array([3.0, 3.0]), 2: np.array([4.0, 4.0])})
    >>> round(found.overhead, 9), round(found.per_row, 9), round(found.residual, 9)
    (2.0, 1.0, 0.0)
    """
    overhead, per_row = _affine({size: float(np.median(times)) for size, times in taken.items()})
    above = [times - (overhead + per_row * size) for size, times in taken.items()]
    residual = max(0.0, float(np.quantile(np.concatenate(above), 0.95)))
    return Profile(overhead=overhead, per_row=per_row, residual=residual)


def times(
    run: Callable[[], object],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    calls: tuple[int, int] = _REPEATS,
) -> npt.NDArray[np.float64]:
    """Return what single runs take, (calls,): for so many seconds, but at least 5 and at most 200.

    ``calls`` says otherwise.
    """
    least, most = calls
    taken: list[float] = []
    until = clock() + seconds
    while len(taken) < least or (len(taken) < most and clock() < until):
        began = clock()
        run()
        taken.append(clock() - began)
    return np.array(taken)


def _affine(medians: dict[int, float]) -> tuple[float, float]:
    """Fit a line, neither part of it negative; weight 1/n, so that single rows count most."""
    sizes = np.array(list(medians), dtype=np.float64)
    seconds = np.array(list(medians.values()))
    if len(sizes) == 1:
        return 0.0, float(seconds[0] / sizes[0])
    slope, start = np.polyfit(sizes, seconds, 1, w=1.0 / sizes)
    if start < 0.0:
        return 0.0, float(np.median(seconds / sizes))
    return (float(start), float(slope)) if slope > 0.0 else (float(seconds.mean()), 0.0)
