"""Budgets: what is left until a request's deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from cascade.policy.units import parse_duration

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Budget", "nanoseconds"]

_NANO = 1_000_000_000
_LONGEST = 1e9  # seconds; clocks, timers and locks overflow beyond


@attrs.frozen
class Budget:
    """A deadline as a moment on the monotonic clock (``time.monotonic_ns``), passed along as it is.

    >>> budget = Budget.after(0.020, now=1_000_000)
    >>> budget.remaining(now=11_000_000)
    0.01
    """

    until: int

    @classmethod
    def after(cls, seconds: float | str, now: int) -> Self:
        """Make the budget that ends ``seconds`` (or a duration string) after ``now`` (ns).

        Raises:
            ValueError: the duration is zero, negative, NaN or not a duration.
        """
        return cls(now + nanoseconds(seconds))

    def remaining(self, now: int) -> float:
        """Return the seconds left at ``now`` (ns); negative once the deadline has passed."""
        return (self.until - now) / _NANO


def nanoseconds(deadline: float | str) -> int:
    """Return a relative deadline in ns; a ValueError says what is wrong with it.

    >>> nanoseconds("20ms"), nanoseconds(0.02), nanoseconds("reaction")
    (20000000, 20000000, 200000000)
    """
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float, str)):
        msg = f"deadline: expected seconds, a duration such as '20ms' or a Budget, got {deadline!r}"
        raise TypeError(msg)
    seconds = parse_duration(deadline) if isinstance(deadline, str) else deadline
    if not 0.0 < seconds <= _LONGEST:
        msg = f"deadline: must be positive and finite, at most {_LONGEST:g} s, got {deadline!r}"
        raise ValueError(msg)
    return max(1, round(seconds * _NANO))
