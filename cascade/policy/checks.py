"""What must hold between the fields of a policy.

Each rule looks at what it needs and no more: of a policy that holds other problems it gets a Draft,
and a rule that asks for what could not be read ends there, without a word.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cascade.policy.constraints import told_apart
from cascade.policy.walk import UNREAD, Problem, Unread, dotted, known, refusal, shown
from cascade.types import Issue, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cascade.policy.model import Policy

__all__ = ["check", "conflicts"]


def check(policy: Policy) -> None:
    """Raise a PolicyError that lists every conflict."""
    issues = [Issue(None, None, None, dotted(path), said) for path, said in conflicts(policy)]
    if issues:
        raise refusal(issues)


def conflicts(policy: Any) -> list[Problem]:
    """Return (path, message) for everything that does not fit together in a policy or a draft."""
    found: list[Problem] = []
    for rule in _RULES:
        found += _found(rule(policy))
    for i, spec in enumerate(known(policy, "tiers") or ()):
        for one in _OF_A_TIER:
            found += _found(one(policy, i, spec))
    return found


def _found(problems: Iterator[Problem]) -> Iterator[Problem]:
    try:
        yield from problems
    except Unread:
        return


def _below(policy: Any) -> int:
    return max(0, len(policy.tiers) - 1)


# -- of the whole ----------------------------------------------------------------------------------


def _some_tier(policy: Any) -> Iterator[Problem]:
    if not policy.tiers:
        yield ("tiers",), "expected at least one tier"


def _names(policy: Any) -> Iterator[Problem]:
    names = [known(spec, "name") for spec in policy.tiers]
    times = Counter(names)
    for i, name in enumerate(names):
        if name is not None and times[name] > 1:
            yield ("tiers", i, "name"), f"expected a name of its own, got {shown(name)} twice"


def _classes(policy: Any) -> Iterator[Problem]:
    """Tiers may differ in the order of their classes, and in nothing else."""
    first, stated = "the policy", known(policy, "classes")
    for i, spec in enumerate(policy.tiers):
        own = known(spec, "classes")
        if own is None:
            continue
        if stated is None:
            first, stated = f"tier {shown(known(spec, 'name'))}", own
        elif set(map(told_apart, own)) != set(map(told_apart, stated)):
            yield ("tiers", i, "classes"), f"expected the same set of classes as {first} has"


def _deadline(policy: Any) -> Iterator[Problem]:
    longest, deadline = policy.max_deadline, policy.deadline
    if longest is not None and deadline is not None and deadline > longest:
        yield ("deadline",), f"expected at most max_deadline ({longest:g} s), got {deadline:g} s"


# -- of the way up the ladder ----------------------------------------------------------------------


def _either(policy: Any) -> Iterator[Problem]:
    if policy.escalation.thresholds is not None and policy.escalation.certificate is not None:
        yield ("escalation", "thresholds"), "expected either certificate or thresholds, got both"


def _thresholds(policy: Any) -> Iterator[Problem]:
    given, below = policy.escalation.thresholds, _below(policy)
    if given is not None and policy.tiers and len(given) != below:
        said = f"expected {below} (one per tier below the top), got {len(given)}"
        yield ("escalation", "thresholds"), said


def _bare(policy: Any) -> Iterator[Problem]:
    held = policy.escalation
    if policy.mode is Mode.ENFORCE and _below(policy) and held.thresholds is held.certificate:
        said = (
            "mode enforce needs certificate: (from an exported bundle) or thresholds:; "
            "or use mode: observe, top_only or first_only"
        )
        yield ("escalation",), said


def _skips(policy: Any) -> Iterator[Problem]:
    rule, below = policy.complexity, _below(policy)
    if rule is not None and policy.tiers and len(rule.skip_above) > below:
        said = f"expected at most {below}, one per tier below the top, got {len(rule.skip_above)}"
        yield ("complexity", "skip_above"), said


def _rising(policy: Any) -> Iterator[Problem]:
    rule = policy.complexity
    if rule is None or UNREAD in rule.skip_above:
        return
    if list(rule.skip_above) != sorted(rule.skip_above):
        yield ("complexity", "skip_above"), "expected numbers that do not fall"


def _load(policy: Any) -> Iterator[Problem]:
    if policy.load is not None:
        yield from _moving(policy, ("load",))


def _spare_budget(policy: Any) -> Iterator[Problem]:
    if policy.escalation.spare_budget:
        yield from _moving(policy, ("escalation", "spare_budget"))


def _moving(policy: Any, path: tuple[str, ...]) -> Iterator[Problem]:
    """What moves the point needs a path of points, and must know what each one calls."""
    certificate, load = policy.certificate, policy.load
    if certificate is None:
        if policy.escalation.certificate is None:
            yield path, "needs escalation.certificate: its path is what load moves along"
    elif any(len(point.escalation) != len(policy.tiers) for point in certificate.path):
        yield path, "needs a certificate that says what each point calls; fit it again"
    elif certificate.covers != "adaptive" and not (load is not None and load.brownout):
        yield path, "the certificate covers one fixed point, from which load may not move"


# -- of one tier -----------------------------------------------------------------------------------


def _workers(policy: Any, i: int, spec: Any) -> Iterator[Problem]:  # noqa: ARG001  one signature
    crew = spec.workers
    if crew is not None and crew.min is not None and crew.min > crew.max:
        yield ("tiers", i, "workers", "min"), f"expected at most max ({crew.max}), got {crew.min}"


def _confidence(policy: Any, i: int, spec: Any) -> Iterator[Problem]:
    outputs = spec.outputs if spec.kind == "onnx" and i < _below(policy) else None
    if outputs is not None and outputs.kind in {"label", "value"} and not outputs.confidence:
        said = f"kind {outputs.kind} needs confidence: below the top tier"
        yield ("tiers", i, "outputs"), said


def _version(policy: Any, i: int, spec: Any) -> Iterator[Problem]:
    proven = policy.escalation.certificate is not None
    if proven and spec.kind == "external" and spec.version is None:
        yield ("tiers", i, "version"), "missing; required beside a certificate"


_RULES = (_some_tier, _names, _classes, _deadline, _either, _thresholds, _bare, _rising, _skips,
          _load, _spare_budget)  # fmt: skip
_OF_A_TIER = (_workers, _confidence, _version)
