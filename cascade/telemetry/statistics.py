"""Statistics: a frozen snapshot of the ledger, with the bottleneck named."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from cascade.types import Disposition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cascade.control import Move
    from cascade.engine import Engine
    from cascade.ledger import Quantiles, Totals
    from cascade.plan import Plan
    from cascade.policy import Policy
    from cascade.types import Mode

__all__ = ["CacheStatistics", "Health", "Statistics", "TierStatistics", "statistics"]


@attrs.frozen
class Health:
    """Whether a router can serve, and by what.

    >>> Health(True, False, "enforce", "9c", ("small",)).ready
    True
    """

    ready: bool
    closed: bool
    mode: Mode | str
    policy: str
    tiers: tuple[str, ...]


@attrs.frozen
class TierStatistics:
    """What one tier did: calls by result, and its compute time in seconds."""

    calls: int
    results: Mapping[str, int]
    compute: Quantiles | None


@attrs.frozen
class CacheStatistics:
    """What the cache did; ``bytes`` is the tracked size."""

    hits: int
    misses: int
    entries: int
    bytes: int

    @property
    def hit_rate(self) -> float:
        """Hits as a share of the lookups; 0 without any."""
        looked = self.hits + self.misses
        return self.hits / looked if looked else 0.0


@attrs.frozen
class Statistics:
    """A frozen snapshot of everything counted since the router was built, until it was closed.

    After a swap to a policy of another name, or with other tiers, it is what is counted under that.
    ``dispositions`` counts requests by how they ended, ``latency`` has the quantiles per ledger
    part in seconds (single requests only), ``uncovered`` is ρ, the share of answers outside the
    certificate's promise, ``bottleneck`` the tier or part with the largest share of the time;
    ``point`` is the operating point that load has moved to, ``moves`` the latest of its moves;
    ``recorded`` are the rows that were written after the answers; ``dropped`` the requests of which
    no row or shadow came: the queue was full, the input cannot be copied, or something failed.
    """

    requests: int
    dispositions: Mapping[str, int]
    tiers: Mapping[str, TierStatistics]
    cache: CacheStatistics | None
    latency: Mapping[str, Quantiles]
    uncovered: float
    bottleneck: str | None
    point: int
    mode: Mode
    policy: str
    observer_errors: int
    recorded: int = 0
    dropped: int = 0
    moves: tuple[Move, ...] = ()


@attrs.frozen(eq=False)
class Standing:
    """Where a router counts, and under which policy: it outlives the plan, and needs none."""

    policy: Policy
    tiers: tuple[str, ...]
    engine: Engine
    point: int
    moves: tuple[Move, ...] = ()


def standing(plan: Plan) -> Standing:
    """Return that of a plan, as it is now."""
    moves = () if plan.steering is None else tuple(plan.steering.moves)
    return Standing(plan.policy, plan.site.tiers, plan.engine, plan.point_index, moves)


def statistics(now: Standing, mode: Mode, *, recorded: int = 0, dropped: int = 0) -> Statistics:
    """Take the snapshot."""
    engine, totals = now.engine, now.engine.ledger.totals()
    dispositions: Counter[str] = Counter()
    answers = uncovered = 0
    for end, count in totals.ends.items():
        dispositions[str(end.disposition)] += count
        if end.tier is not None and end.disposition is not Disposition.ABSTAINED:
            answers += count
            uncovered += 0 if end.covered else count
    return Statistics(
        requests=sum(dispositions.values()),
        dispositions=dict(dispositions),
        tiers=_tiers(totals, now.tiers),
        cache=_cache(engine, dispositions[str(Disposition.CACHED)], totals.misses),
        latency=totals.parts,
        uncovered=uncovered / answers if answers else 0.0,
        bottleneck=_bottleneck(totals, now.tiers),
        point=now.point,
        mode=mode,
        policy=now.policy.digest,
        observer_errors=engine.observer_errors,
        recorded=recorded,
        dropped=dropped,
        moves=now.moves,
    )


def _tiers(totals: Totals, names: tuple[str, ...]) -> dict[str, TierStatistics]:
    found = {}
    for i, name in enumerate(names):
        results = {result: n for (tier, result), n in totals.calls.items() if tier == i}
        calls = sum(n for result, n in results.items() if result not in {"refused", "shared"})
        found[name] = TierStatistics(calls, results, totals.tier_compute.get(i))
    return found


def _cache(engine: Engine, hits: int, misses: int) -> CacheStatistics | None:
    cache = engine.cache
    if cache is None:
        return None
    with engine.lock:
        return CacheStatistics(hits, misses, len(cache), cache.size)


def _bottleneck(totals: Totals, names: tuple[str, ...]) -> str | None:
    """Name the part with the largest share of the time; inside compute, the tier."""
    parts = {part: q.sum for part, q in totals.parts.items() if part != "total"}
    whole = sum(parts.values())
    if not whole:
        return None
    part = max(parts, key=parts.__getitem__)
    if part == "compute" and totals.tier_compute:
        slowest = max(totals.tier_compute, key=lambda tier: totals.tier_compute[tier].sum)
        share = totals.tier_compute[slowest].sum / whole
        return f"tier {names[slowest]!r}: {share:.0%} of the time is its compute"
    return f"{part}: {parts[part] / whole:.0%} of the time"
