"""Timing on a noisy machine: contenders take turns, medians are compared, noise is no gain.

What is faster is judged by rounds. In each round every contender runs for a moment, in an order
that rotates, so that all meet the same moods of the machine; a round's time is the median of its
calls. One is *measurably faster* than another when it wins so many rounds that chance would not
(one-sided exact sign test, p ≤ 0.01) and the median of the rounds' ratios gains at least 5 %.
"""

from __future__ import annotations

import math
import time
from statistics import median
from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

__all__ = ["GAIN", "LEVEL", "ROUNDS", "Comparison", "compare", "interleave", "sign_test", "turn"]

GAIN = 0.05
"""The least gain worth a change, as a share of the time."""
LEVEL = 0.01
"""The p-value of the sign test from which a gain is not noise."""
ROUNDS = 15
"""Rounds of a comparison."""

_MOMENT = 0.004  # s of calls per contender and round
_CALLS = 100  # at most


@attrs.frozen
class Comparison:
    """What the rounds say of a contender against another.

    ``ratio`` is the median over the rounds of its time by the other's, ``wins`` the rounds it was
    faster in, ``p_value`` that of the sign test of 'it is not faster'.

    >>> compare([1.0] * 15, [2.0] * 15).faster, compare([2.0] * 15, [2.0] * 15).faster
    (True, False)
    """

    ratio: float
    wins: int
    rounds: int
    p_value: float

    @property
    def faster(self) -> bool:
        """Whether it is measurably faster: the gain is large enough, and not noise."""
        return self.ratio <= 1.0 - GAIN and self.p_value <= LEVEL

    def describe(self) -> str:
        """Say it in words.

        >>> compare([1.0] * 15, [2.0] * 15).describe()
        '0.50 × the time, faster in 15 of 15 rounds, p = 3.1e-05'
        """
        return (
            f"{self.ratio:.2f} × the time, faster in {self.wins} of {self.rounds} rounds, "
            f"p = {self.p_value:.2g}"
        )


def compare(own: Sequence[float], other: Sequence[float]) -> Comparison:
    """Compare two contenders round by round; ties count for neither.

    Raises:
        ValueError: they were not measured in the same rounds.
    """
    pairs = [(float(a), float(b)) for a, b in zip(own, other, strict=True)]
    wins, losses = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    ratio = median(a / b if b else math.inf for a, b in pairs)
    return Comparison(ratio, wins, len(pairs), sign_test(wins, wins + losses))


def sign_test(wins: int, n: int) -> float:
    """Return P(Binomial(n, ½) ≥ wins), exactly.

    >>> sign_test(9, 10), sign_test(0, 0)
    (0.0107421875, 1.0)
    """
    return float(sum(math.comb(n, k) for k in range(wins, n + 1)) / 2**n)


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the seconds of a call per contender and round, (rounds,) each.

    Each contender runs for about 4 ms a round, at least 1 and at most 100 calls; one untimed call
    comes before each turn, for a contender deployed alone finds its model in the caches.
    """
    order = list(runs)
    taken: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(rounds):
        for name in order:
            taken[name].append(turn(runs[name], clock))
        order.append(order.pop(0))
    return {name: np.array(times) for name, times in taken.items()}


def turn(
    run: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
    moment: float = _MOMENT,
    most: int = _CALLS,
) -> float:
    """Return the median seconds of a call, over ``moment`` seconds and at most ``most`` calls."""
    run()
    times: list[float] = []
    until = clock() + moment
    while not times or (len(times) < most and clock() < until):
        began = clock()
        run()
        times.append(clock() - began)
    return median(times)
