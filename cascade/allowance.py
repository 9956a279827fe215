"""Allowances, pure: token buckets for escalations, per tenant and overall.

Each request earns a share of an escalation, an escalation costs one; what was not used is kept up
to a burst. So a flood of inputs made to look hard costs a bounded amount. The lower half of the
overall bucket is a reserve for tenants that have used little of their own: one tenant's flood takes
nothing from the others. Without clock and lock: whoever owns it calls :meth:`Allowance.earn` under
one.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cascade.policy import Policy

__all__ = ["Allowance", "Purse", "allowance_of"]

_TENANTS = 10_000  # that are remembered; the longest unseen is forgotten first
_RESERVE = 0.5  # of the overall bucket
_START = 0.25  # of the burst: what a tenant that nobody knows begins with


@attrs.define(eq=False)
class Purse:
    """One tenant's bucket."""

    allowance: Allowance
    tokens: float

    def take(self, wanted: int = 1) -> int:
        """Pay for as many escalations as there are tokens for, at most so many; return how many.

        >>> purse = Allowance(None, 0.5, burst=8).earn("acme")
        >>> purse.take(), purse.take(), purse.take()
        (1, 1, 0)
        """
        with self.allowance.lock:
            return self._take(wanted)

    def _take(self, wanted: int) -> int:
        whole, paid = self.allowance, wanted
        thrifty = whole.per_tenant is None or self.tokens >= _RESERVE * whole.burst
        if whole.per_tenant is not None:
            paid = min(paid, int(self.tokens))
            self.tokens -= paid  # what the overall bucket refuses too: nobody saves by asking
        if whole.overall is not None:
            kept = 0.0 if thrifty else _RESERVE * whole.limit
            paid = max(0, min(paid, int(whole.tokens - kept)))
            whole.tokens -= paid
        return paid


@attrs.define(eq=False)
class Allowance:
    """Escalations per request, ``overall`` and ``per_tenant``; None: without limit.

    ``burst`` is how many a tenant may have saved up; all together ten times that. The memory of
    tenants is bounded.

    >>> allowance = Allowance(overall=0.6, per_tenant=0.5, burst=4)
    >>> sum(allowance.earn("flood").take() for _ in range(1_000))
    501
    """

    overall: float | None
    per_tenant: float | None
    burst: float = 20.0
    lock: AbstractContextManager[Any] = attrs.field(factory=nullcontext)  # where threads share it
    limit: float = attrs.field(init=False)  # of the overall bucket
    tokens: float = attrs.field(init=False)
    _purses: OrderedDict[str | None, Purse] = attrs.field(init=False, factory=OrderedDict)

    def __attrs_post_init__(self) -> None:
        """Begin with a full overall bucket."""
        self.limit = self.tokens = 10.0 * self.burst

    def earn(self, tenant: str | None, requests: int = 1) -> Purse:
        """Count requests of a tenant; return its purse."""
        with self.lock:
            return self._earn(tenant, requests)

    def _earn(self, tenant: str | None, requests: int) -> Purse:
        purse = self._purses.get(tenant)
        if purse is None:
            purse = self._purses[tenant] = Purse(self, _START * self.burst)
            if len(self._purses) > _TENANTS:
                self._purses.popitem(last=False)
        else:
            self._purses.move_to_end(tenant)
        purse.tokens = _filled(purse.tokens, self.per_tenant, requests, self.burst)
        self.tokens = _filled(self.tokens, self.overall, requests, self.limit)
        return purse

    def __len__(self) -> int:
        """Return how many tenants are remembered."""
        return len(self._purses)


def _filled(tokens: float, share: float | None, requests: int, limit: float) -> float:
    """Add what so many requests earn; a batch may use all that it earns itself."""
    earned = (share or 0.0) * requests
    return min(max(limit, earned), tokens + earned)


def allowance_of(
    policy: Policy, lock: AbstractContextManager[Any] | None = None
) -> Allowance | None:
    """Return a policy's allowance, None where escalations are not limited.

    Where threads share it they bring a ``lock``.
    """
    settings = policy.escalation.allowance
    if settings is None:
        return None
    limits = settings.overall, settings.per_tenant, settings.burst
    return Allowance(*limits, lock or nullcontext())
