"""Budgets: what is left until a request's deadline."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

import attrs

from cascade.policy.units import parse_duration
from cascade.policy.walk import shown

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Budget", "nanoseconds"]

_NANO = 1_000_000_000
_LONGEST = 1e9  # seconds; clocks, timers and locks overflow beyond


def _moment(until: Any) -> int:
    if type(until) is int:
        return until
    if not _is_number(until):
        raise TypeError(f"until: expected a time.monotonic_ns(), got {shown(until)}")
    if not abs(until) < math.inf:  # so written for NaN
        raise ValueError(f"until: expected a time.monotonic_ns(), got {until!r}")
    return int(until)


@attrs.frozen
class Budget:
    """A deadline as a moment on the monotonic clock (``time.monotonic_ns``), passed along as it is.

    >>> budget = Budget.after(0.020, now=1_000_000)
    >>> budget.remaining(now=11_000_000)
    0.01
    """

    until: int = attrs.field(converter=_moment)

    @classmethod
    def after(cls, seconds: float | str, now: int) -> Self:
        """Make the budget that ends ``seconds`` (or a duration string) after ``now`` (ns).

        Raises:
            TypeError: it is neither a number nor a text.
            ValueError: the duration is zero, negative, NaN or not a duration.
        """
        return cls(now + nanoseconds(seconds, "seconds"))

    def remaining(self, now: int) -> float:
        """Return the seconds left at ``now`` (ns); negative once the deadline has passed."""
        return (self.until - now) / _NANO


def nanoseconds(deadline: float | str, what: str = "deadline") -> int:
    """Return a relative deadline in ns; an error calls it ``what``, and says what is wrong with it.

    Numbers of NumPy are numbers of seconds, too; a span of time has a unit of its own, and is none.

    Raises:
        TypeError: it is neither a number nor a text.
        ValueError: it is no duration, or not positive and finite.

    >>> nanoseconds("20ms"), nanoseconds(0.02), nanoseconds("reaction")
    (20000000, 20000000, 200000000)
    """
    if type(deadline) is float:
        seconds = deadline
    elif isinstance(deadline, str):
        try:
            seconds = parse_duration(deadline)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
    elif _is_number(deadline):
        seconds = deadline if isinstance(deadline, int) else float(deadline)
    else:
        hint = " (of a span of time: its seconds, as a float)" if _is_span(deadline) else ""
        expected = "expected seconds, a duration such as '20ms' or a Budget"
        raise TypeError(f"{what}: {expected}, got {shown(deadline)}{hint}")
    if not 0.0 < seconds <= _LONGEST:
        most = f"at most {_LONGEST:g} s"
        raise ValueError(f"{what}: must be positive and finite, {most}, got {shown(deadline)}")
    return max(1, round(seconds * _NANO))


def _is_number(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and not _is_span(value)  # NumPy counts its own among the numbers


def _is_span(value: Any) -> bool:
    return "timedelta" in type(value).__name__
