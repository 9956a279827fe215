"""Batching, pure: what a run of n rows takes, which requests go together, and when.

A batch goes when a worker is idle. It waits only when the learned curve pays for waiting and every
request in it has the time; its size is capped where the curve stops falling. Requests go in the
order of their deadlines, and those that can no longer make it are dropped before they run.

The curve is affine in the number of rows, fitted by least squares over the latest runs, with a
quantile of what the fit leaves over (as BentoML's scheduler does); taking the largest batch whose
time fits the first deadline is Nexus' rule (Shen et al., SOSP 2019).
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NORMAL", "ArrivalGap", "Batch", "Curve", "DeadlineQueue", "Queued", "expected_wait",
    "fit_curve", "hold", "knee", "portion", "turn_size", "wait_ahead",
]  # fmt: skip

_MARGIN = 5.0  # residuals to spare where a queue stands: with 2, one in 60 was late (docs/load.md)
_SLICES, _SHORTEST = 8, 5_000_000  # a part takes an eighth of the time that is left, or 5 ms
_SMOOTH = 8  # arrivals that the average of their gaps looks back on
_GAIN = 0.85  # a batch twice as large is worth it when it costs a row less than this share


@attrs.frozen
class Curve:
    """What a run of n rows takes, in ns: ``overhead + per_row · n``, and ``residual`` to be safe.

    >>> Curve(100.0, 10.0, 5.0).time(2), Curve(100.0, 10.0, 5.0).safe(2)
    (120, 125)
    """

    overhead: float = 0.0
    per_row: float = 0.0
    residual: float = 0.0

    def time(self, rows: int) -> int:
        """Return what a run of so many rows is expected to take."""
        return round(self.overhead + self.per_row * rows)

    def safe(self, rows: int) -> int:
        """Return what it takes at the quantile that the curve was fitted to."""
        return round(self.overhead + self.per_row * rows + self.residual)

    def faded(self) -> Curve:
        """Return it an eighth lower: what is expected where nothing has run for a while."""
        return Curve(self.overhead * 7 / 8, self.per_row * 7 / 8, self.residual * 7 / 8)


def fit_curve(
    runs: Sequence[tuple[int, int]], prior: Curve | None = None, quantile: float = 0.95
) -> Curve:
    """Fit (rows, ns) of the latest runs by least squares; neither part is negative.

    Where all runs were of one size they cannot tell the two parts from each other: the slope is
    then the prior's, as far as the mean time allows.

    >>> fit_curve([(1, 110), (3, 130)])
    Curve(overhead=100.0, per_row=10.0, residual=0.0)
    >>> fit_curve([])
    Curve(overhead=0.0, per_row=0.0, residual=0.0)
    """
    if not runs:
        return prior or Curve()
    n = len(runs)
    mean_rows, mean_time = sum(r for r, _ in runs) / n, sum(t for _, t in runs) / n
    spread = sum((rows - mean_rows) ** 2 for rows, _ in runs)
    if spread > 0:
        slope = sum((rows - mean_rows) * (time - mean_time) for rows, time in runs) / spread
    else:
        slope = 0.0 if prior is None else prior.per_row
    slope = min(max(slope, 0.0), mean_time / mean_rows)
    overhead = mean_time - slope * mean_rows
    left = sorted(time - overhead - slope * rows for rows, time in runs)
    return Curve(overhead, slope, max(0.0, left[int(quantile * (n - 1))]))


def knee(curve: Curve, limit: int) -> int:
    """Return the batch size at which doubling stops paying, at most ``limit``.

    A curve that is not known yet does not limit anything.

    >>> knee(Curve(100.0, 10.0), 64), knee(Curve(0.0, 1000.0), 64), knee(Curve(), 64)
    (32, 1, 64)
    """
    if curve.per_row <= 0.0:
        return limit
    size = 1
    while size < limit:
        twice = min(2 * size, limit)
        if curve.overhead / twice + curve.per_row > _GAIN * (curve.overhead / size + curve.per_row):
            break
        size = twice
    return size


def turn_size(curve: Curve, limit: int, fair: int) -> int:
    """Return how many rows an event loop runs at once: to the knee, or as many as take ``fair`` ns.

    Each batch costs the loop a turn as well, which the curve does not know.

    >>> curve = Curve(10_000.0, 2_000.0)
    >>> knee(curve, 64), turn_size(curve, 64, fair=110_000), turn_size(curve, 64, fair=10_000)
    (16, 50, 16)
    """
    if curve.per_row <= 0.0:
        return limit
    return int(max(knee(curve, limit), min(limit, (fair - curve.overhead) / curve.per_row)))


def portion(curve: Curve, rows: int, left: int, last: int) -> int:
    """Return how many of these rows to run next, where ``left`` ns are left for all of them.

    So few that little is lost when the deadline ends a run, and so many that its overhead is small.
    Of a curve that is not known, up to twice as many as were run ``last``.

    >>> portion(Curve(0.0, 4e6), 1000, left=500_000_000, last=16)
    15
    >>> portion(Curve(50e6, 1e5), 10_000, left=500_000_000, last=16)
    2048
    >>> portion(Curve(1e4, 100.0), 10_000, left=500_000_000, last=16)
    10000
    """
    if curve.per_row <= 0.0:
        return min(rows, 2 * last)
    slice_ = max(left // _SLICES, _SHORTEST)
    fair = max((slice_ - curve.overhead) / curve.per_row, knee(curve, rows))
    return int(max(1, min(rows, fair, (left - curve.overhead) / curve.per_row)))


class ArrivalGap:
    """The time (ns) from one arrival to the next: a moving average, infinite before the second.

    >>> seen = ArrivalGap()
    >>> for now in 100, 300, 500:
    ...     seen.count(now)
    >>> seen.gap
    200.0
    """

    def __init__(self) -> None:
        self.gap = math.inf
        self._last = -1

    def count(self, now: int) -> None:
        """Count one that comes now."""
        if self._last >= 0:
            gap = float(now - self._last)
            known = math.isfinite(self.gap)
            self.gap = self.gap + (gap - self.gap) / _SMOOTH if known else gap
        self._last = now


def hold(queued: int, cap: int, curve: Curve, gap: float, slack: int) -> int:
    """Return how long (ns) an idle worker should wait for one more row; mostly 0.

    ``gap`` is the expected time to the next arrival, ``slack`` what the tightest queued deadline
    leaves. Waiting pays when all who wait lose less by it than the run that is saved: its overhead.

    >>> hold(2, 8, Curve(1000.0, 10.0), gap=100.0, slack=10_000)
    100
    >>> hold(2, 8, Curve(1000.0, 10.0), gap=5000.0, slack=10_000)
    0
    """
    if queued >= cap or not math.isfinite(gap):
        return 0
    if gap * queued * 4 > curve.overhead or slack - gap < curve.safe(queued + 1):
        return 0
    return round(gap)


def wait_ahead(queued: int, cap: int, workers: int, curve: Curve, rest: int) -> int:
    """Return the expected time (ns) until one who joins the queue now begins to run.

    ``rest`` is what is left of the runs that block every worker. Those ahead run in batches of
    ``cap``, ``workers`` at a time; the last one is one's own.

    >>> wait_ahead(2, 1, 1, Curve(0.0, 100.0), rest=40)
    240
    """
    return rest + queued // (cap * max(1, workers)) * curve.time(min(cap, queued + 1))


def expected_wait(own: int, queued: int, cap: int, workers: int, curve: Curve, rest: int) -> int:
    """Return the expected time (ns) to an answer; ``own`` is a run by itself.

    The other arguments are those of :func:`wait_ahead`.

    >>> expected_wait(100, 0, 1, 1, Curve(0.0, 100.0), rest=40)
    140
    >>> expected_wait(100, 2, 1, 1, Curve(0.0, 100.0), rest=40)
    340
    """
    ahead = wait_ahead(queued, cap, workers, curve, rest)
    # what each run may take longer, one's own included, adds up as independent errors do
    turns = 1 + queued // (cap * max(1, workers))
    unsure = round(_MARGIN * curve.residual * math.sqrt(turns))
    return ahead + unsure + max(own, curve.safe(min(cap, queued + 1)))


NORMAL = 1
"""The rank of a request that names no priority; 0 goes before it, 2 after."""


class Queued(Protocol):
    """What the queue needs to know of a request: its deadline (ns), and the rank of its class."""

    until: int
    rank: int


T = TypeVar("T", bound=Queued)


@attrs.frozen
class Batch(Generic[T]):
    """What goes next, what is dropped instead, and why it goes now: ``full`` or ``idle``."""

    taken: list[T]
    dropped: list[T]
    why: str = "idle"


class DeadlineQueue(Generic[T]):
    """Requests by class, then in the order of their deadlines.

    Leaving it costs nothing until one's turn comes. Not thread-safe: its lane holds the lock.

    >>> @attrs.define(eq=False)
    ... class Request:
    ...     until: int
    ...     rank: int = 1
    >>> queue = DeadlineQueue()
    >>> late, early = Request(900), Request(500)
    >>> queue.push(late), queue.push(early), len(queue)
    (None, None, 2)
    >>> queue.take(0, 1, Curve(100.0)).taken == [early]
    True
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, T]] = []
        self._turn = itertools.count()
        self._live: dict[int, int] = {}  # ids of those who wait → their turn: the latest of each
        self._ranks = [0, 0, 0]  # how many of each class wait

    def push(self, request: T) -> None:
        """Enter a request."""
        rank, turn = request.rank, next(self._turn)
        self._live[id(request)] = turn
        self._ranks[rank] += 1
        heapq.heappush(self._heap, (rank, request.until, turn, request))

    def _waits(self, item: tuple[int, int, int, T]) -> bool:
        """Whether a place is somebody's: not left, nor left for another."""
        return self._live.get(id(item[-1])) == item[2]

    def ahead(self, rank: int) -> int:
        """Return how many would go before, or with, one of this class that comes now."""
        return len(self._live) - self.behind(rank)

    def behind(self, rank: int) -> int:
        """Return how many of lower classes wait."""
        return sum(self._ranks[rank + 1 :])

    def evict(self, rank: int) -> T | None:
        """Take out the last of a lower class than this one; None where there is none."""
        if not self.behind(rank):
            return None
        last = max(filter(self._waits, self._heap))[-1]
        self.remove(last)
        return last

    def remove(self, request: T) -> bool:
        """Take a request out wherever it stands; False when it was not in."""
        if id(request) not in self._live:
            return False
        del self._live[id(request)]
        self._ranks[request.rank] -= 1
        if len(self._heap) > 2 * len(self._live) + 16:
            self._heap = list(filter(self._waits, self._heap))
            heapq.heapify(self._heap)
        return True

    def first(self) -> T | None:
        """Return the request with the earliest deadline."""
        while self._heap and not self._waits(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][-1] if self._heap else None

    def take(self, now: int, cap: int, curve: Curve) -> Batch[T]:
        """Take the next batch: as large as fits the first deadline, at most ``cap``."""
        taken: list[T] = []
        dropped: list[T] = []
        room = cap
        while len(taken) < room and (head := self.first()) is not None:
            heapq.heappop(self._heap)
            del self._live[id(head)]
            self._ranks[head.rank] -= 1
            slack = head.until - now
            if slack < max(1, curve.safe(1)):
                dropped.append(head)
                continue
            if not taken:
                room = self._room(slack, cap, curve)
            taken.append(head)
        return Batch(taken, dropped, "full" if len(taken) == cap > 1 else "idle")

    @staticmethod
    def _room(slack: int, cap: int, curve: Curve) -> int:
        if curve.per_row <= 0.0:
            return cap
        return int(max(1, min(cap, (slack - curve.overhead) / curve.per_row)))

    def clear(self) -> list[Any]:
        """Take everything out."""
        left = [item[-1] for item in sorted(filter(self._waits, self._heap))]
        self._heap.clear()
        self._live.clear()
        self._ranks = [0, 0, 0]
        return left

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._live)
