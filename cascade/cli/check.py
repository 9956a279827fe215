"""``cascade check``: is this policy valid, are its models the right ones, does its proof add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.batching import Curve, knee
from cascade.cli.pitfalls import pitfalls
from cascade.cli.places import Places
from cascade.cli.reply import BAD_INPUT, DONE, FAILED, Reply
from cascade.errors import CascadeError, PolicyError
from cascade.tiers.graph import count_nodes
from cascade.types import Issue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cascade.bundle import Profile
    from cascade.policy import OnnxSpec, Policy

__all__ = ["check"]

_LONG = 0.005  # s that a node may take without a warning


def check(path: Path, *, models: bool = True, recording: Path | None = None) -> Reply:
    """Load the policy at ``path``, then look at what it names; report everything that is wrong.

    With a ``recording`` the certificate's test is redone on it.
    """
    from cascade.policy import Policy

    try:
        policy = Policy.from_yaml(path)
        places = Places(path.read_text(encoding="utf-8-sig"), str(path))
    except PolicyError as error:
        found = error.issues or (Issue(str(path), None, None, "", str(error)),)
        return _reply(found, [], BAD_INPUT)
    except OSError as error:
        issue = Issue(str(path), None, None, "", error.strerror or str(error))
        return _reply((issue,), [], BAD_INPUT)
    warnings = pitfalls(policy)
    issues = [*(_models(policy, places, warnings) if models else []), *_certificate(policy, places)]
    if recording is not None:
        from cascade.fitting import redo_test

        where = ("escalation", "certificate")
        issues += [places.issue(where, wrong) for wrong in redo_test(policy, recording)]
    return _reply(tuple(issues), warnings, FAILED if issues else DONE)


def _reply(issues: tuple[Issue, ...], warnings: list[str], status: int) -> Reply:
    data: dict[str, Any] = {
        "ok": not issues,
        "issues": [issue._asdict() for issue in issues],
        "warnings": warnings,
    }
    lines = [f"warning: {warning}" for warning in warnings]
    return Reply(
        "\n".join([*lines, *([] if issues else ["ok"])]), data, tuple(map(str, issues)), status
    )


def _models(policy: Policy, places: Places, warnings: list[str]) -> list[Issue]:
    """Open every model; what is seldom meant goes to ``warnings``."""
    from cascade.bundle import load_profile
    from cascade.policy import OnnxSpec

    issues, profiles = [], load_profile(policy)
    for index, spec in enumerate(policy.tiers):
        if not isinstance(spec, OnnxSpec):
            continue
        try:
            warnings += _open(policy, spec, profiles.get(spec.name))
        except CascadeError as error:
            issues.append(places.issue(("tiers", index, "model"), str(error)))
    return issues


def _open(policy: Policy, spec: OnnxSpec, profile: Profile | None) -> list[str]:
    """Find the model, compare its digest, and see that its outputs are what the policy says."""
    from cascade.binding import scored
    from cascade.bundle import resolve_model, verify_model
    from cascade.tiers.onnx import OnnxTier

    path = resolve_model(policy, spec)
    model = verify_model(path, spec)
    classes = spec.classes or policy.classes
    tier = OnnxTier(spec, lambda: model, classes, path, scored(policy, spec))
    tier.open()
    batches = tier.batches
    tier.close()
    return [*_batching(spec, profile, batches=batches), *_stopping(spec, profile, model)]


def _batching(spec: OnnxSpec, profile: Profile | None, *, batches: bool) -> Iterator[str]:
    """Say when batching can do nothing."""
    if spec.batch is None:
        return
    if not batches:
        yield f"tier {spec.name!r}: the model takes one row at a time: batching can do nothing"
    elif profile is not None:
        curve = Curve(profile.overhead, profile.per_row)
        if knee(curve, spec.batch.max_size) == 1:
            yield f"tier {spec.name!r}: a row costs as much in a batch: batching can do nothing"


def _stopping(spec: OnnxSpec, profile: Profile | None, model: bytes) -> Iterator[str]:
    """Say when a run could hardly be stopped: onnxruntime looks up only between two nodes."""
    if profile is None or spec.execution == "process":
        return
    nodes = max(1, count_nodes(model))
    each = (profile.overhead + profile.per_row) / nodes
    if each > _LONG:
        yield (
            f"tier {spec.name!r}: {nodes} nodes at {each * 1e3:.0f} ms: a run past its deadline "
            f"goes on to the end of one; execution: process can be killed"
        )


def _certificate(policy: Policy, places: Places) -> list[Issue]:
    if policy.certificate is None:
        return []
    from cascade.fitting import verify_certificate

    path = ("escalation", "certificate")
    return [places.issue(path, wrong) for wrong in verify_certificate(policy.certificate)]
