"""What is allowed, and yet seldom meant: a setting that does much, or one that does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade.cores import find_cores
from cascade.policy import InputSettings, TierSpec
from cascade.policy.walk import fields_of
from cascade.types import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cascade.policy import Certificate, Policy

__all__ = ["pitfalls"]

_QUEUE = fields_of(TierSpec)["queue"].default


def pitfalls(policy: Policy, cores: int | None = None) -> list[str]:
    """List the known pitfalls that a valid policy has stepped into."""
    cores = find_cores().usable if cores is None else cores
    found = [*_promise(policy), *_thresholds(policy), *_time(policy), *_models(policy, cores)]
    return [*found, *_idle(policy), *(said for spec in policy.tiers for said in _idle_of(spec))]


def _promise(policy: Policy) -> Iterator[str]:
    if policy.mode is not Mode.ENFORCE:
        yield f"mode {policy.mode}: one end of the ladder answers everything"
    if len(policy.tiers) == 1:
        yield "one tier: there is nothing to escalate to"
    elif policy.certificate is None:
        yield "the promise is 'none': no certificate stands behind these thresholds"
    else:
        yield from _proof(policy.certificate)


def _proof(certificate: Certificate) -> Iterator[str]:
    if certificate.certified <= 1:
        yield "only 'always escalate' is certified: every request pays for every tier"
    if not any(name in certificate.digests for name in certificate.tiers):
        yield "the certificate has no digests: whether it is of these tiers cannot be told"


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
    if spec.execution == "inline" and spec.queue != _QUEUE:
        yield f"tier {spec.name!r}: an inline tier has no queue"


def _idle(policy: Policy) -> Iterator[str]:
    """Name the sections that change nothing."""
    held, rule = policy.escalation, policy.complexity
    if held.allowance is not None and held.allowance.overall is held.allowance.per_tenant is None:
        yield "escalation.allowance: without overall or per_tenant it limits nothing"
    fixed = policy.certificate is not None and policy.certificate.certified <= 1
    if fixed and policy.load is not None and not policy.load.brownout:
        yield "load: one point is certified, and there is no brownout: it never moves"
    if fixed and held.spare_budget:
        yield "escalation.spare_budget: one point is certified: there is none stricter"
    if rule is not None and not any(point.skip_above for point in policy.points):
        yield "complexity: nothing is skipped without skip_above"
    if policy.cache is not None and policy.cache.per_tenant == 1.0:
        yield "cache.per_tenant: all of the cache is no limit"
    if all(spec.kind == "external" for spec in policy.tiers):
        if policy.inputs != InputSettings():
            yield "inputs: tiers in Python declare none, so that there is nothing to check"
        if policy.golden is not None:
            yield "golden: tiers in Python are not asked their golden inputs"


def _idle_of(spec: TierSpec) -> Iterator[str]:
    """Name the settings of a tier that change nothing."""
    kind = None if spec.outputs is None else spec.outputs.kind
    if spec.kind == "external" and kind is not None:
        yield f"tier {spec.name!r}: outputs: a tier in Python says itself what it returns"
    elif kind in {"label", "value"} and spec.classes is not None:
        yield f"tier {spec.name!r}: classes: of kind {kind} the outputs are the labels"
    if spec.confidence.score == "supplied" and spec.confidence.temperature != 1.0:
        yield f"tier {spec.name!r}: temperature: a supplied confidence is used as it is"
    if getattr(spec, "spinning", False) and getattr(spec, "threads", 0) == 1:
        yield f"tier {spec.name!r}: spinning: of one thread there is none that waits"


def _unversioned(spec: object) -> bool:
    return getattr(spec, "version", "a model has a digest") is None
