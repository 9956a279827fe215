"""Prometheus text of the router's own counters, made on scrape; no dependency."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cascade.types import Disposition, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cascade.ledger import Totals
    from cascade.telemetry.statistics import Standing

__all__ = ["prometheus"]

_BACKSLASH = chr(92)


def prometheus(now: Standing, mode: Mode, reload_failures: int = 0) -> str:
    """Return the metrics; labels are bounded: policy, tiers, dispositions, reasons and parts."""
    policy, totals = now.policy, now.engine.ledger.totals()
    info = _labels(name=policy.name, digest=policy.digest, revision=policy.revision or "")
    lines = [
        *_requests(totals, policy.name),
        *_calls(totals, now.tiers),
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


def _requests(totals: Totals, policy: str) -> Iterable[str]:
    counts: Counter[str] = Counter()
    uncovered: Counter[str] = Counter()
    for end, count in totals.ends.items():
        tier, disposition, reason = end.tier or "", str(end.disposition), str(end.reason)
        counts[_labels(policy=policy, tier=tier, disposition=disposition, reason=reason)] += count
        answered = end.tier is not None and end.disposition is not Disposition.ABSTAINED
        if answered and not end.covered:
            uncovered[_labels(reason=reason)] += count
    yield from _family("cascade_requests_total", "counter", "Requests by how they ended.")
    yield from (f"cascade_requests_total{labels} {n}" for labels, n in sorted(counts.items()))
    yield from _family("cascade_uncovered_total", "counter", "Answers outside the promise.")
    yield from (f"cascade_uncovered_total{labels} {n}" for labels, n in sorted(uncovered.items()))


def _calls(totals: Totals, names: tuple[str, ...]) -> Iterable[str]:
    yield from _family("cascade_tier_calls_total", "counter", "Tier calls by their result.")
    for (tier, result), count in sorted(totals.calls.items()):
        yield f"cascade_tier_calls_total{_labels(tier=names[tier], result=result)} {count}"


def _cache(totals: Totals) -> Iterable[str]:
    cached = Disposition.CACHED
    hits = sum(n for end, n in totals.ends.items() if end.disposition is cached)
    yield from _family("cascade_cache_total", "counter", "Cache lookups by their result.")
    yield f'cascade_cache_total{{result="hit"}} {hits}'
    yield f'cascade_cache_total{{result="miss"}} {totals.misses}'


def _latency(totals: Totals) -> Iterable[str]:
    name = "cascade_latency_seconds"
    yield from _family(name, "histogram", "Where the time of single requests went.")
    for part, buckets in totals.cumulative.items():
        quantiles = totals.parts[part]
        for bound, count in buckets:
            yield f'{name}_bucket{{part="{part}",le="{bound:.6g}"}} {count}'
        yield f'{name}_bucket{{part="{part}",le="+Inf"}} {quantiles.count}'
        yield f'{name}_sum{{part="{part}"}} {quantiles.sum:.9g}'
        yield f'{name}_count{{part="{part}"}} {quantiles.count}'
