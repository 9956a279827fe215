"""Load: how long a tier takes, learned while it serves."""

from __future__ import annotations

from collections import deque

__all__ = ["ServiceTime"]

_WINDOW = 128
_PATIENCE = 64  # looks without a run after which an expectation shrinks by an eighth
_REFRESH = 64  # a quantile of the window costs about 8 µs, so it is taken once per so many runs
_EARLY = (4, 16, 32, 64)  # and sooner while little is known


class ServiceTime:
    """The time of one tier's answer: a quantile of a sliding window, affine in the batch size.

    It starts from the bundle's measured profile, or from 0 ('it will fit') where there is none.

    >>> service = ServiceTime(start=1_000)
    >>> service.eta()
    1000
    >>> for _ in range(32):
    ...     service.observe(5_000)
    >>> service.eta()
    5000
    """

    __slots__ = ("_due", "_eta", "_looks", "_per_row", "_quantile", "_runs", "_window")

    def __init__(self, start: int = 0, per_row: int = 0, quantile: float = 0.95) -> None:
        self._eta = start
        self._per_row = per_row
        self._quantile = quantile
        self._window: deque[int] = deque(maxlen=_WINDOW)
        self._runs = 0
        self._due = _EARLY[0]  # runs after which the quantile is taken again
        self._looks = 0  # at the expectation, since the last run

    def observe(self, elapsed: int) -> None:
        """Take in one run of one row (ns)."""
        self._window.append(elapsed)
        self._looks = 0
        runs = self._runs = self._runs + 1
        if runs >= self._due:
            self._refresh()

    def _refresh(self) -> None:
        self._due = next((early for early in _EARLY if early > self._runs), self._runs + _REFRESH)
        ranked = sorted(self._window.copy())  # a copy in one C call: others may be observing
        self._eta = ranked[int(self._quantile * (len(ranked) - 1))]

    def observe_rows(self, elapsed: int, rows: int) -> None:
        """Take in one run of a batch: the slope follows slowly."""
        slope = max(0, elapsed - self._eta) // max(1, rows)
        self._per_row = (3 * self._per_row + slope) // 4 if self._per_row else slope

    def eta(self, rows: int = 1) -> int:
        """Return the expected time (ns) of a run of so many rows.

        An expectation that keeps the tier from running could never be corrected, so it fades while
        it is looked at and nothing runs.
        """
        self._looks += 1
        if self._looks > _PATIENCE:
            self._looks = 0
            self._eta -= self._eta >> 3
        return self._eta if rows == 1 else self._eta + self._per_row * (rows - 1)
