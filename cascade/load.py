"""Load: how long a tier takes, learned while it serves."""

from __future__ import annotations

__all__ = ["ServiceTime"]

_WINDOW = 128
_PATIENCE = 64  # looks without a run after which an expectation shrinks by an eighth
_REFRESH = 64  # a quantile of the window costs about 8 µs, so it is taken once per so many runs
_EARLY = frozenset({4, 16, 32})  # and sooner while little is known


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

    __slots__ = ("_count", "_eta", "_per_row", "_quantile", "_unheard", "_window")

    def __init__(self, start: int = 0, per_row: int = 0, quantile: float = 0.95) -> None:
        self._eta = start
        self._per_row = per_row
        self._quantile = quantile
        self._window: list[int] = []
        self._count = 0
        self._unheard = 0  # looks at the expectation since the last run

    def observe(self, elapsed: int) -> None:
        """Take in one run of one row (ns)."""
        self._unheard = 0
        count = self._count = self._count + 1
        window = self._window
        if len(window) < _WINDOW:
            window.append(elapsed)
        else:
            window[count % _WINDOW] = elapsed
        if not count % _REFRESH or count in _EARLY:
            ranked = sorted(window)
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
        self._unheard += 1
        if self._unheard > _PATIENCE:
            self._unheard = 0
            self._eta -= self._eta >> 3
        return self._eta if rows == 1 else self._eta + self._per_row * (rows - 1)
