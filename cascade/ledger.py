"""The ledger of where the time went: always on, exact, and off the hot path.

A request appends one tuple to a deque, which is atomic; each hundred or so of them are folded into
histograms with NumPy. So there is no lock per request and no lost increment. A fold costs about a
microsecond per request: many of them at once would cost less, and hold up the one that is at it.
"""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from cascade.outcome import Trace
    from cascade.types import Finish, RawStep

__all__ = ["FOLD_AT", "PARTS", "Histograms", "Ledger", "Quantiles", "Totals"]

PARTS = ("input", "transfer", "compute", "output", "total")

FOLD_AT = 128
_PER_OCTAVE = 8  # bucket bounds grow by 2**(1/8): quantiles are good to about 5 %
_OCTAVES = 40  # from 1 ns to 18 minutes
_SIZE = _PER_OCTAVE * _OCTAVES
_ROWS = np.arange(len(PARTS))
_NANO = 1e-9


@attrs.frozen
class Quantiles:
    """What a histogram says, in seconds.

    >>> Quantiles(2, 0.5, 0.2, 0.3, 0.3).count
    2
    """

    count: int
    sum: float
    p50: float
    p95: float
    p99: float


class Histograms:
    """Log-linear counts of times in ns, 8 buckets per octave: one histogram a row.

    >>> histograms = Histograms(2)
    >>> histograms.add(np.array([0, 0, 1]), np.array([1_000, 1_000, 1_000_000]))
    >>> 0.9e-6 < histograms.quantiles(0).p50 < 1.1e-6
    True
    """

    __slots__ = ("_counts", "_sums")

    def __init__(self, rows: int) -> None:
        self._counts = np.zeros((rows, _SIZE), dtype=np.int64)
        self._sums = np.zeros(rows, dtype=np.int64)

    def add(self, rows: npt.NDArray[np.intp], times: npt.NDArray[np.int64]) -> None:
        """Count times (ns), each in the histogram of its row."""
        bucket = (np.log2(np.maximum(times, 1)) * _PER_OCTAVE).astype(np.intp)
        place = np.minimum(bucket, _SIZE - 1) + rows * _SIZE
        counts = np.bincount(place, minlength=self._counts.size)
        self._counts += counts.reshape(self._counts.shape)
        self._sums += np.bincount(rows, times, len(self._sums)).astype(np.int64)

    def absorb(self, other: Histograms) -> None:
        """Add what another of as many rows has counted."""
        self._counts += other._counts
        self._sums += other._sums

    def quantiles(self, row: int) -> Quantiles:
        """Return count, sum, and quantiles at the middle of their buckets."""
        reached = np.cumsum(self._counts[row])
        count = int(reached[-1])
        if count == 0:
            return Quantiles(0, 0.0, 0.0, 0.0, 0.0)
        at = np.searchsorted(reached, np.ceil(np.array([0.5, 0.95, 0.99]) * count))
        p50, p95, p99 = (2.0 ** ((at + 0.5) / _PER_OCTAVE) * _NANO).tolist()
        return Quantiles(count, int(self._sums[row]) * _NANO, p50, p95, p99)

    def cumulative(self, row: int) -> list[tuple[float, int]]:
        """Return (upper bound in seconds, count at or below) at every fourth octave bound."""
        reached = np.cumsum(self._counts[row])
        bounds = range(12, 36, 2)  # 4 µs to 17 s: all series of a router are to stay under 100
        return [(2.0**octave * _NANO, int(reached[octave * _PER_OCTAVE - 1])) for octave in bounds]


@attrs.frozen
class Totals:
    """A frozen copy of what the ledger has counted."""

    ends: dict[Finish, int]
    calls: dict[tuple[int, str], int]
    misses: int
    parts: dict[str, Quantiles]
    cumulative: dict[str, list[tuple[float, int]]]
    tier_compute: dict[int, Quantiles]


class Ledger:
    """Takes in the trace of every request; ``totals`` counts what has come in so far.

    >>> Ledger(tiers=2).totals().parts["total"].count
    0
    """

    def __init__(self, tiers: int) -> None:
        self.pending: deque[Trace] = deque()
        self.append = self.pending.append  # the hot path: one C call
        self._lock = threading.Lock()  # guards all that follows
        self._ends: Counter[Finish] = Counter()
        self._calls: Counter[tuple[int, str]] = Counter()
        self._tiers = tiers
        self._times = Histograms(len(PARTS) + tiers)  # of the parts, then of each tier's runs
        self.misses = 0  # looks into the cache that found nothing; under the router's lock

    def settle(self) -> None:
        """Fold what has come in, unless another thread is at it; every FOLD_AT requests."""
        if not self._lock.locked():
            with self._lock:  # not acquire and try: a signal's exception may come in between
                self._fold()

    def add_rows(self, ends: dict[Finish, int], calls: dict[tuple[int, str], int]) -> None:
        """Count the rows of a columnar call; their times stand in its own ledger."""
        with self._lock:
            self._ends.update(ends)
            self._calls.update(calls)

    def absorb(self, other: Ledger) -> None:
        """Take over what another has counted, of the same tiers."""
        with other._lock, self._lock:
            other._fold()
            self._ends.update(other._ends)
            self._calls.update(other._calls)
            self.misses += other.misses
            self._times.absorb(other._times)

    def requests(self) -> int:
        """Return how many requests have ended."""
        with self._lock:
            self._fold()
            return sum(self._ends.values())

    def totals(self) -> Totals:
        """Return everything counted so far."""
        with self._lock:
            self._fold()
            times = self._times
            runs = [times.quantiles(len(PARTS) + tier) for tier in range(self._tiers)]
            return Totals(
                dict(self._ends),
                dict(self._calls),
                self.misses,
                {part: times.quantiles(row) for row, part in enumerate(PARTS)},
                {part: times.cumulative(row) for row, part in enumerate(PARTS)},
                {tier: found for tier, found in enumerate(runs) if found.count},
            )

    def _fold(self) -> None:
        take, n = self.pending.popleft, len(self.pending)
        if not n:
            return
        ends, arrived, routed, ended, steps = zip(*[take() for _ in range(n)], strict=True)
        self._ends.update(ends)
        begun, led, done = _columns(arrived, routed, ended)
        parts = np.zeros((len(PARTS), n), dtype=np.int64)
        parts[0], parts[3], parts[4] = led - begun, done - led, done - begun
        rows, times = np.repeat(_ROWS, n), parts.ravel()  # a view, into which the steps go too
        flat = [*chain.from_iterable(steps)]
        if flat:
            tiers, ran = self._fold_steps(flat, steps, parts)
            rows, times = np.concatenate([rows, tiers + len(PARTS)]), np.concatenate([times, ran])
        self._times.add(rows, times)

    def _fold_steps(
        self, flat: Sequence[RawStep], steps: Sequence[Sequence[RawStep]],
        parts: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:  # fmt: skip
        """Count the calls, and move their times from 'output' to the parts where they belong.

        Returns the tiers that ran, and how long.
        """
        tiers, results, *_, asked, started, finished, back, before, _ = zip(*flat, strict=True)
        self._calls.update(zip(tiers, results, strict=True))
        ran, asked, begun, done, back, before = _columns(
            tiers, asked, started, finished, back, before
        )
        took = done - begun
        spent = np.zeros((3, len(flat) + 1), dtype=np.int64)  # input, transfer, compute
        spent[:, 1:] = before, back - asked - before - took, took
        bounds = np.array([0, *accumulate(map(len, steps))])
        reached = spent.cumsum(axis=1)[:, bounds]
        moved = reached[:, 1:] - reached[:, :-1]
        parts[:3] += moved
        parts[3] -= moved.sum(axis=0)
        return ran[took > 0], took[took > 0]


def _columns(*columns: Sequence[int]) -> npt.NDArray[np.int64]:
    """Stack columns of ints; by way of ``array``, which reads them four times as fast as NumPy."""
    flat = array("q", chain.from_iterable(columns))
    return np.frombuffer(flat, dtype=np.int64).reshape(len(columns), -1)
