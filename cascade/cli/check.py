"""``cascade check``: is this policy valid, are its models the right ones, does its proof add up."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from cascade.batching import Curve, knee
from cascade.binding import Functions, scored
from cascade.bundle import load_golden, load_profile, resolve_model, verify_model
from cascade.cli.pitfalls import pitfalls
from cascade.cli.reply import BAD_INPUT, DONE, FAILED, Reply
from cascade.errors import CascadeError, PolicyError
from cascade.opening import replay
from cascade.plan import common_inputs, same_classes
from cascade.policy.places import Places
from cascade.tiers.graph import count_nodes
from cascade.tiers.onnx import OnnxTier
from cascade.types import Issue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cascade.bundle import Golden, Profile
    from cascade.policy import OnnxSpec, Policy
    from cascade.protocols import BoundTier

__all__ = ["check"]

T = TypeVar("T")
_LONG = 0.005  # s that a node may take without a warning


def check(
    path: Path, *, models: bool = True, recording: Path | None = None, **fitted: Any
) -> Reply:
    """Load the policy at ``path``, then look at what it names; report everything that is wrong.

    Without ``models`` none is opened; the files beside the policy are read all the same. With a
    ``recording`` the certificate's test is redone on it, ``fitted`` as it was.
    """
    issues: list[Issue] = []
    warnings: list[str] = []
    try:
        _look(path, recording, issues, warnings, models=models, fitted=fitted)
    except (CascadeError, OSError, ValueError) as error:  # as every command, with these keys
        found = error.issues if isinstance(error, PolicyError) else ()
        issues += found or (Issue(None, None, None, "", str(error)),)
        return _reply(tuple(issues), warnings, BAD_INPUT)
    return _reply(tuple(issues), warnings, FAILED if issues else DONE)


def _look(
    path: Path, recording: Path | None, issues: list[Issue], warnings: list[str], *,
    models: bool, fitted: dict[str, Any],
) -> None:  # fmt: skip
    from cascade.policy import Policy

    policy = Policy.from_yaml(path)
    places = Places(path.read_text(encoding="utf-8-sig"), str(path))
    warnings += pitfalls(policy)
    profiles = _beside(load_profile, "profile", policy, places, issues) or {}
    golden = _beside(load_golden, "golden", policy, places, issues)
    if models:
        issues += _models(policy, places, profiles, golden, warnings)
    issues += _certificate(policy, places)
    if recording is not None:
        from cascade.fitting import redo_test

        where = ("escalation", "certificate")
        issues += [places.issue(where, wrong) for wrong in redo_test(policy, recording, **fitted)]


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


def _models(
    policy: Policy, places: Places, profiles: dict[str, Profile], golden: dict[str, Golden] | None,
    warnings: list[str],
) -> list[Issue]:  # fmt: skip
    """Open every model, as a router does; what is seldom meant goes to ``warnings``."""
    from cascade.policy import OnnxSpec

    issues: list[Issue] = []
    opened: list[BoundTier] = []
    for index, spec in enumerate(policy.tiers):
        if not isinstance(spec, OnnxSpec):
            continue
        try:
            tier, model = _open(policy, spec)
            opened.append(tier)
            profile = profiles.get(spec.name)
            warnings += _batching(spec, profile, batches=tier.batches)
            warnings += _stopping(spec, profile, model)
            if golden and spec.name in golden:
                replay(tier, golden[spec.name])
            elif golden is not None and policy.golden is not None:
                warnings.append(
                    f"golden: {policy.golden} has no input of tier {spec.name!r}: what its model "
                    f"answers is not looked at when it is loaded"
                )
        except CascadeError as error:
            issues.append(places.issue(("tiers", index, "model"), str(error)))
    issues += [places.issue(("tiers",), wrong) for wrong in _together(policy, opened)]
    for tier in opened:
        tier.close()
    return issues


def _beside(
    load: Callable[[Policy], dict[str, T]], key: str, policy: Policy, places: Places,
    issues: list[Issue],
) -> dict[str, T] | None:  # fmt: skip
    """Read a file beside the policy; None: what is wrong with it is among the issues."""
    try:
        return load(policy)
    except PolicyError as error:
        issues += places.beside(key, error.issues)
        return None


def _open(policy: Policy, spec: OnnxSpec) -> tuple[BoundTier, bytes]:
    """Find the model, compare its digest, and see that its outputs are what the policy says."""
    path = resolve_model(policy, spec)
    model = verify_model(path, spec)
    classes = spec.classes or policy.classes
    tier = OnnxTier(spec, lambda: model, classes, path, scored(policy, spec))
    tier.open()
    return tier, model


def _together(policy: Policy, opened: list[BoundTier]) -> Iterator[str]:
    """Say why models do not go together; what functions in Python make of them is not known."""
    none = Functions(None, {})
    rules: list[tuple[Any, Callable[..., Any]]] = [
        (policy.prepare, functools.partial(common_inputs, strict=policy.inputs.cast == "none")),
        (policy.postprocess, same_classes),
    ]
    for named, rule in rules:
        try:
            if named is None:
                rule(opened, none)
        except PolicyError as error:
            yield str(error)


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
