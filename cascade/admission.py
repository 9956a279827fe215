"""Admission, pure: the classes of requests, and when one that was refused should come back.

That a request is refused is the decision's (``Decision.start`` ends with SHED); its bounds are the
tiers' queues. Here is only what those who are turned away need to know.
"""

from __future__ import annotations

from enum import StrEnum

from cascade.policy.walk import nearest

__all__ = ["Priority", "retry_after"]

_NANO = 1_000_000_000
_LEAST = 0.001  # s: nobody should come back sooner


class Priority(StrEnum):
    """The class of a request: in every queue the higher one goes first, and is let in last out.

    >>> Priority.of("low").rank, Priority.of("high").rank
    (2, 0)
    """

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Its place in the order, 0 first."""
        return _RANKS[self]

    @classmethod
    def of(cls, given: str) -> Priority:
        """Return the class of this name.

        Raises:
            ValueError: there is none.
        """
        try:
            return cls(given)
        except ValueError:
            hint = nearest(str(given), list(cls))
            raise ValueError(f"priority: no class {given!r}; {hint}") from None


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


def retry_after(wait: int, eta: int, budget: int) -> float:
    """Return in how many seconds a request that was refused might be answered.

    ``wait`` (ns) is what its tier has queued, ``eta`` (ns) when it would answer, negative where it
    refuses: then the queue has to be half empty first. Else the queue has to shrink until the
    answer comes within the ``budget`` (ns).

    >>> retry_after(wait=2_000_000_000, eta=-2, budget=50_000_000)
    1.0
    >>> retry_after(wait=80_000_000, eta=100_000_000, budget=50_000_000)
    0.05
    """
    needed = wait / 2 if eta < 0 else min(eta - budget, wait)
    return max(_LEAST, needed / _NANO)
