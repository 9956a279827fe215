"""Prometheus text of the router's own counters, made on scrape; no dependency."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from cascade.ledger import PARTS
from cascade.types import Disposition, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cascade.ledger import Totals
    from cascade.telemetry.statistics import Standing

__all__ = ["prometheus"]

Counted: TypeAlias = "tuple[str, tuple[str, ...], Totals]"
"""A policy's name, its tiers' names, and what was counted under them."""

_BACKSLASH = chr(92)


def prometheus(
    now: Standing, counted: Sequence[Counted], mode: Mode, reload_failures: int = 0
) -> str:
    """Return the metrics; labels are bounded: policy, tiers, dispositions, reasons and parts.

    ``counted`` is of all policies that have been in force, those of long ago without their names:
    a counter never falls, nor does what one policy has counted become another's.
    """
    policy, totals = now.policy, [each for *_, each in counted]
    info = _labels(name=policy.name, digest=policy.digest, revision=policy.revision or "")
    lines = [
        *_requests(counted),
        *_calls(counted),
        *_cache(totals),
        *_latency(totals),
        *_family("cascade_point_index", "gauge", "Operating point in force."),
        f"cascade_point_index {now.point}",
        *_family("cascade_mode", "gauge", "1 for the mode in force."),
        *(f'cascade_mode{{mode="{m}"}} {int(m is mode)}' for m in Mode),
        *_family("cascade_policy_info", "gauge", "The policy in force."),
        f"cascade_policy_info{info} 1",
    ]
    lines += _family("cascade_reload_failures_total", "counter", "Policies that could not be.")
    lines.append(f"cascade_reload_failures_total {reload_failures}")
    if policy.certificate is not None:
        lines += _family(
            "cascade_certificate_max_loss", "gauge", "The certified bound on the loss."
        )
        lines.append(f"cascade_certificate_max_loss {policy.certificate.max_loss:g}")
    return "\n".join([*lines, ""])


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(**labels: object) -> str:
    inside = ",".join(f'{name}="{_escape(str(value))}"' for name, value in labels.items())
    return f"{{{inside}}}"


def _escape(text: str) -> str:
    escaped = text.replace(_BACKSLASH, _BACKSLASH * 2).replace('"', _BACKSLASH + '"')
    return escaped.replace("\n", _BACKSLASH + "n")


def _requests(counted: Sequence[Counted]) -> Iterable[str]:
    counts: Counter[str] = Counter()
    uncovered: Counter[str] = Counter()
    ends = ((name, *item) for name, _, totals in counted for item in totals.ends.items())
    for policy, end, count in ends:
        tier, disposition, reason = end.tier or "", str(end.disposition), str(end.reason)
        counts[_labels(policy=policy, tier=tier, disposition=disposition, reason=reason)] += count
        answered = end.tier is not None and end.disposition is not Disposition.ABSTAINED
        if answered and not end.covered:
            uncovered[_labels(reason=reason)] += count
    yield from _family("cascade_requests_total", "counter", "Requests by how they ended.")
    yield from (f"cascade_requests_total{labels} {n}" for labels, n in sorted(counts.items()))
    yield from _family("cascade_uncovered_total", "counter", "Answers outside the promise.")
    yield from (f"cascade_uncovered_total{labels} {n}" for labels, n in sorted(uncovered.items()))


def _calls(counted: Sequence[Counted]) -> Iterable[str]:
    counts: Counter[str] = Counter()
    for _, names, totals in counted:
        for (tier, result), count in sorted(totals.calls.items()):
            counts[_labels(tier=names[tier], result=result)] += count
    yield from _family("cascade_tier_calls_total", "counter", "Tier calls by their result.")
    yield from (f"cascade_tier_calls_total{labels} {n}" for labels, n in counts.items())


def _cache(counted: Sequence[Totals]) -> Iterable[str]:
    ends = (item for totals in counted for item in totals.ends.items())
    hits = sum(n for end, n in ends if end.disposition is Disposition.CACHED)
    yield from _family("cascade_cache_total", "counter", "Cache lookups by their result.")
    yield f'cascade_cache_total{{result="hit"}} {hits}'
    yield f'cascade_cache_total{{result="miss"}} {sum(totals.misses for totals in counted)}'


def _latency(counted: Sequence[Totals]) -> Iterable[str]:
    name = "cascade_latency_seconds"
    yield from _family(name, "histogram", "Where the time of single requests went.")
    for part in PARTS if counted else ():
        buckets = zip(*(totals.cumulative[part] for totals in counted), strict=True)
        for bucket in buckets:  # of the same bound
            count = sum(each for _, each in bucket)
            yield f'{name}_bucket{{part="{part}",le="{bucket[0][0]:.6g}"}} {count}'
        times = [totals.parts[part] for totals in counted]
        count = sum(each.count for each in times)
        yield f'{name}_bucket{{part="{part}",le="+Inf"}} {count}'
        yield f'{name}_sum{{part="{part}"}} {sum(each.sum for each in times):.9g}'
        yield f'{name}_count{{part="{part}"}} {count}'
