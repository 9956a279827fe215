"""Load: how long a tier takes, learned while it serves."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from cascade.batching import Curve, fit_curve

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ServiceTime"]

_WINDOW = 128
_BATCHES = 50  # runs that the curve is fitted to
_LATEST = 2  # of them, that still count once the curve has faded: the next run refits it
_REFIT = 8  # runs of batches after which it is fitted again, and sooner while there are few
_PATIENCE = 64  # looks without a run after which an expectation shrinks by an eighth
_REFRESH = 64  # a quantile of the window costs about 8 µs, so it is taken once per so many runs
_EARLY = (4, 16, 32, 64)  # and sooner while little is known


class ServiceTime:
    """The time of one tier's answer: a quantile of a sliding window, affine in the batch size.

    It starts from the bundle's measured profile, or from 0 ('it will fit') where there is none.
    ``on_change`` hears of every new expectation for one row, in ns.

    >>> service = ServiceTime(start=1_000)
    >>> service.eta()
    1000
    >>> for _ in range(32):
    ...     service.observe(5_000)
    >>> service.eta()
    5000
    """

    __slots__ = (
        "_batches", "_busy", "_due", "_eta", "_fresh", "_lock", "_looked_at", "_looks", "_quantile",
        "_rows", "_runs", "_unfitted", "_window", "around", "curve", "note", "on_change",
    )  # fmt: skip

    def __init__(self, start: int = 0, per_row: int = 0, quantile: float = 0.95) -> None:
        self._eta = start
        self._quantile = quantile
        self._window: deque[int] = deque(maxlen=_WINDOW)
        self._batches: deque[tuple[int, int]] = deque(maxlen=_BATCHES)
        self._unfitted = 0
        self._runs = 0
        self._rows = 0  # answered in batches
        self._due = _EARLY[0]  # runs until the quantile is taken again
        self._looks = 0  # at the expectation, since the last run
        self._looked_at = 0  # runs that had not been taken in when it was looked at last
        self._busy = 0  # ns in runs
        self._fresh: deque[int] = deque()  # runs of one row that were not taken in yet
        self.note = self._fresh.append  # as ``observe``, in one C call: the next look takes it in
        self._lock = threading.Lock()  # one takes them in at a time
        self.curve = Curve(float(max(0, start - per_row)), float(per_row))
        self.around = 0.0  # ns of a worker's time per run that are not the model's
        self.on_change: Callable[[int], None] | None = None

    @property
    def answered(self) -> int:
        """How many rows have been answered."""
        return self.runs + self._rows

    @property
    def busy(self) -> int:
        """Nanoseconds in runs, of all that were seen."""
        self._take_in()
        return self._busy

    def outlasted(self, elapsed: int, rows: int = 1) -> None:
        """Take in a run that was stopped: it answered nothing, and takes longer than that.

        By a quarter, as far as is known: else the next request with as much time would try again.
        """
        self.observe_rows(elapsed + (elapsed >> 2), rows)
        self._rows -= rows

    @property
    def runs(self) -> int:
        """How many runs of one row it has seen."""
        return self._runs + len(self._fresh)

    def observe(self, elapsed: int) -> None:
        """Take in one run of one row (ns)."""
        self.note(elapsed)
        if len(self._fresh) >= self._due:
            self._refresh()

    def _take_in(self) -> None:
        """Move the fresh runs to the window, unless another thread is at it."""
        fresh = self._fresh
        if not fresh or self._lock.locked():
            return
        with self._lock:  # not acquire and try: a signal's exception may come in between
            taken = [fresh.popleft() for _ in range(len(fresh))]
            self._runs += len(taken)
            self._busy += sum(taken)
            self._window.extend(taken)

    def _refresh(self) -> None:
        self._take_in()
        ranked = sorted(self._window.copy())  # a copy in one C call: others may be at it
        if not ranked:  # another thread has the first runs in hand
            return
        runs = self._runs
        self._due = next((early for early in _EARLY if early > runs), runs + _REFRESH) - runs
        self._expect(ranked[int(self._quantile * (len(ranked) - 1))])

    def _expect(self, eta: int) -> None:
        self._eta = eta
        if self.on_change is not None:
            self.on_change(eta)

    def observe_rows(self, elapsed: int, rows: int) -> None:
        """Take in one run of a batch; the curve is fitted again after every few."""
        if rows < 1:
            return
        self._looks = 0
        self._batches.append((rows, elapsed))
        self._unfitted += 1
        if self._unfitted >= min(_REFIT, 1 + len(self._batches) // 4):
            self._refit()
        if rows == 1:
            self.observe(elapsed)
        else:
            self._rows += rows
            self._busy += elapsed

    def _refit(self) -> None:
        self._unfitted = 0
        seen = tuple(self._batches.copy())
        self.curve = fit_curve(seen, self.curve, self._quantile)
        if any(rows > 1 for rows, _ in seen):  # else the window of single runs says more
            self._expect(self.curve.safe(1))

    def quantiles(self) -> tuple[float, float] | None:
        """Return p50 and p95 of the latest runs of one row, in seconds; None: not known."""
        self._take_in()
        ranked = sorted(self._window.copy())
        if not ranked:
            return None
        last = len(ranked) - 1
        return ranked[last // 2] / 1e9, ranked[int(0.95 * last)] / 1e9

    def row_seconds(self, rows: int) -> float:
        """Return what a row costs a worker when so many run together, in seconds."""
        self._take_in()
        if self._batches or not self._window:
            return self.curve.time(rows) / rows / 1e9
        seen = self._window.copy()
        return sum(seen) / len(seen) / 1e9

    def _fade(self) -> None:
        """Expect an eighth less; the next run says whether that is so, with the latest of old."""
        self._looks = 0
        self._eta -= self._eta >> 3
        self.curve = self.curve.faded()
        self.around *= 7 / 8
        self._batches = deque(tuple(self._batches.copy())[-_LATEST:], maxlen=_BATCHES)

    def eta(self, rows: int = 1, *, idle: bool = True) -> int:
        """Return the expected time (ns) of a run of so many rows.

        An expectation that keeps the tier from running could never be corrected, so it fades while
        it is looked at and nothing runs; curve and ``around`` too, since queues drop by them.
        While the tier is not ``idle`` the runs under way will correct it.
        """
        fresh = len(self._fresh)
        if fresh != self._looked_at:
            self._looked_at, self._looks = fresh, 1
            if fresh >= self._due:
                self._refresh()
        else:
            self._looks += idle
            if self._looks > _PATIENCE:
                self._fade()
        if rows == 1:
            return self._eta
        return self._eta + round(self.curve.per_row * (rows - 1))
