"""``cascade check``: is this policy valid, are its models the right ones, does its proof add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from cascade.cli.pitfalls import pitfalls
from cascade.cli.places import Places
from cascade.cli.reply import BAD_INPUT, DONE, FAILED, Reply
from cascade.errors import CascadeError, PolicyError
from cascade.types import Issue

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.policy import OnnxSpec, Policy

__all__ = ["check"]


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
    issues = [*(_models(policy, places) if models else []), *_certificate(policy, places)]
    if recording is not None:
        from cascade.fitting import redo_test

        where = ("escalation", "certificate")
        issues += [places.issue(where, wrong) for wrong in redo_test(policy, recording)]
    return _reply(tuple(issues), pitfalls(policy), FAILED if issues else DONE)


def _reply(issues: tuple[Issue, ...], warnings: list[str], status: int) -> Reply:
    data: dict[str, Any] = {
        "ok": not issues,
        "issues": [attrs.asdict(issue) for issue in issues],
        "warnings": warnings,
    }
    lines = [f"warning: {warning}" for warning in warnings]
    return Reply(
        "\n".join([*lines, *([] if issues else ["ok"])]), data, tuple(map(str, issues)), status
    )


def _models(policy: Policy, places: Places) -> list[Issue]:
    from cascade.policy import OnnxSpec

    issues = []
    for index, spec in enumerate(policy.tiers):
        if not isinstance(spec, OnnxSpec):
            continue
        try:
            _open(policy, spec)
        except CascadeError as error:
            issues.append(places.issue(("tiers", index, "model"), str(error)))
    return issues


def _open(policy: Policy, spec: OnnxSpec) -> None:
    """Find the model, compare its digest, and see that its outputs are what the policy says."""
    from cascade.bundle import resolve_model, verify_model
    from cascade.tiers.onnx import OnnxTier

    model = verify_model(resolve_model(policy, spec), spec)
    tier = OnnxTier(spec, lambda: model, spec.classes or policy.classes)
    tier.open()
    tier.close()


def _certificate(policy: Policy, places: Places) -> list[Issue]:
    if policy.certificate is None:
        return []
    from cascade.fitting import verify_certificate

    path = ("escalation", "certificate")
    return [places.issue(path, wrong) for wrong in verify_certificate(policy.certificate)]
