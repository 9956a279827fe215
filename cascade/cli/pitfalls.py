"""What is allowed, and yet seldom meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade.cores import find_cores
from cascade.types import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cascade.policy import Policy, TierSpec

__all__ = ["pitfalls"]


def pitfalls(policy: Policy, cores: int | None = None) -> list[str]:
    """List the known pitfalls that a valid policy has stepped into."""
    cores = find_cores().usable if cores is None else cores
    return [*_promise(policy), *_thresholds(policy), *_time(policy), *_models(policy, cores)]


def _promise(policy: Policy) -> Iterator[str]:
    if policy.mode is not Mode.ENFORCE:
        yield f"mode {policy.mode}: one end of the ladder answers everything"
    if len(policy.tiers) == 1:
        yield "one tier: there is nothing to escalate to"
    elif policy.certificate is None:
        yield "the promise is 'none': no certificate stands behind these thresholds"
    elif policy.certificate.certified <= 1:
        yield "only 'always escalate' is certified: every request pays for every tier"


def _thresholds(policy: Policy) -> Iterator[str]:
    for spec, threshold in zip(policy.tiers, policy.escalation.thresholds or (), strict=False):
        classes = spec.classes or policy.classes
        floor = 1 / len(classes) if classes and spec.confidence.score == "max_probability" else 0.0
        if threshold <= floor:
            yield f"tier {spec.name!r}: threshold {threshold:g} accepts every answer"
        elif threshold >= 1:
            yield f"tier {spec.name!r}: threshold {threshold:g} accepts hardly any answer"


def _time(policy: Policy) -> Iterator[str]:
    if policy.deadline is None:
        yield "no deadline: a call that brings none is refused"
    elif policy.max_deadline is None:
        yield "no max_deadline: a call may ask for any time"


def _models(policy: Policy, cores: int) -> Iterator[str]:
    threads = 0
    for spec in policy.tiers:
        own = getattr(spec, "threads", 0)
        threads += own if own > 1 else 0
        if own > cores:
            yield f"tier {spec.name!r}: {own} threads on {cores} usable cores"
        yield from _lane(spec, own, cores)
        if hasattr(spec, "sha256") and spec.sha256 is None:
            yield f"tier {spec.name!r}: any file of that name is served; pin it: cascade pin"
        if policy.cache and policy.cache.ttl is None and _unversioned(spec):
            yield f"tier {spec.name!r}: cached without version or ttl, its old answers stay"
    if threads > cores:
        yield f"{threads} threads in all tiers on {cores} usable cores"


def _lane(spec: TierSpec, threads: int, cores: int) -> Iterator[str]:
    most = 1 if spec.workers is None else spec.workers.max
    if threads and most * threads > cores:
        total = f"{most} workers × {threads} threads"
        yield f"tier {spec.name!r}: {total} on {cores} usable cores; fewer workers are run"
    if spec.batch is not None and spec.batch.max_size == 1:
        yield f"tier {spec.name!r}: batches of one row: batching can do nothing"
    if spec.execution == "inline" and spec.workers is not None:
        yield f"tier {spec.name!r}: an inline tier has no workers"


def _unversioned(spec: object) -> bool:
    return getattr(spec, "version", "a model has a digest") is None
