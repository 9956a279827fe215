"""What must hold between the fields of a policy."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cascade.errors import PolicyError
from cascade.types import Issue, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cascade.policy.model import Policy

__all__ = ["check", "conflicts"]


def check(policy: Policy) -> None:
    """Raise a PolicyError that lists every conflict."""
    found = list(conflicts(policy))
    if found:
        issues = [Issue(None, None, None, ".".join(map(str, path)), text) for path, text in found]
        raise PolicyError("\n".join(map(str, issues)), issues)


def conflicts(policy: Policy) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield (path, message) for everything that does not fit together."""
    yield from _tiers(policy)
    yield from _escalation(policy)
    longest = policy.max_deadline
    if longest is not None and policy.deadline is not None and policy.deadline > longest:
        yield (
            ("deadline",),
            f"expected at most max_deadline ({longest:g} s), got {policy.deadline:g} s",
        )
    yield from _load(policy)
    rule = policy.complexity
    if rule is not None:
        if list(rule.skip_above) != sorted(rule.skip_above):
            yield ("complexity", "skip_above"), "expected numbers that do not fall"
        if len(rule.skip_above) > len(policy.tiers) - 1:
            yield ("complexity", "skip_above"), f"expected at most {len(policy.tiers) - 1} numbers"


def _load(policy: Policy) -> Iterator[tuple[tuple[Any, ...], str]]:
    """What moves the point needs a path of points, and must know what each one calls."""
    certificate, load = policy.certificate, policy.load
    wanting: list[tuple[str, ...]] = [] if load is None else [("load",)]
    if policy.escalation.spare_budget:
        wanting.append(("escalation", "spare_budget"))
    for path in wanting:
        if certificate is None:
            if policy.escalation.certificate is None:
                yield path, "needs escalation.certificate: its path is what load moves along"
        elif any(len(point.escalation) != len(policy.tiers) for point in certificate.path):
            yield path, "needs a certificate that says what each point calls; fit it again"
        elif certificate.covers != "adaptive" and not (load is not None and load.brownout):
            yield path, "the certificate covers one fixed point, from which load may not move"


def _tiers(policy: Policy) -> Iterator[tuple[tuple[Any, ...], str]]:
    if not policy.tiers:
        yield ("tiers",), "expected at least one tier"
    names = Counter(spec.name for spec in policy.tiers)
    for i, spec in enumerate(policy.tiers):
        if names[spec.name] > 1:
            yield ("tiers", i, "name"), f"expected a name of its own, got {spec.name!r} twice"
        crew = spec.workers
        if crew is not None and crew.low > crew.max:
            yield (
                ("tiers", i, "workers", "min"),
                f"expected at most max ({crew.max}), got {crew.min}",
            )
        differ = set(spec.classes or ()) ^ set(policy.classes or ())
        if spec.classes is not None and policy.classes is not None and differ:
            yield ("tiers", i, "classes"), "expected the same set of classes as the policy's"
        outputs = spec.outputs if spec.kind == "onnx" and i < len(policy.tiers) - 1 else None
        if outputs is not None and outputs.kind in {"label", "value"} and not outputs.confidence:
            message = f"kind {outputs.kind} needs confidence: below the top tier"
            yield ("tiers", i, "outputs"), message


def _escalation(policy: Policy) -> Iterator[tuple[tuple[Any, ...], str]]:
    escalation, below = policy.escalation, len(policy.tiers) - 1
    given = escalation.thresholds
    if given is not None and escalation.certificate is not None:
        yield ("escalation", "thresholds"), "expected either certificate or thresholds, got both"
    if given is not None and len(given) != below:
        yield (
            ("escalation", "thresholds"),
            f"expected {below} (one per tier below the top), got {len(given)}",
        )
    bare = given is None and escalation.certificate is None
    if policy.mode is Mode.ENFORCE and below > 0 and bare:
        message = (
            "mode enforce needs certificate: (from an exported bundle) or thresholds:; "
            "or use mode: top_only or first_only"
        )
        yield ("escalation",), message
    if escalation.certificate is not None:
        for i, spec in enumerate(policy.tiers):
            if spec.kind == "external" and getattr(spec, "version", None) is None:
                yield ("tiers", i, "version"), "missing; required beside a certificate"
