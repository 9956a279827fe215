"""Test aids: outcomes made by hand."""

from __future__ import annotations

from typing import Any

from cascade.outcome import Outcome, next_serial
from cascade.types import Disposition, Finish, Mode, Reason, Site

__all__ = ["outcome"]


def outcome(
    value: Any,
    *,
    tier: str = "small",
    confidence: float | None = None,
    disposition: Disposition | str = Disposition.ACCEPTED,
    reason: Reason | str = Reason.CONFIDENT,
    covered: bool = True,
) -> Outcome[Any]:
    """Make an outcome as a router would, for a test of what consumes it.

    >>> outcome("cat", confidence=0.9).confidence
    0.9
    """
    finish = Finish(Disposition(disposition), Reason(reason), tier, covered)
    site = Site("0" * 32, Mode.ENFORCE, (tier,), 0)
    return Outcome(next_serial(), value, confidence, None, (finish, 0, 0, 0, ()), site)
