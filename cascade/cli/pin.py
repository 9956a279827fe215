"""``cascade pin``: write the digests of the models into a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from cascade.cli.reply import Reply, table
from cascade.files import all_or_none, replace_file
from cascade.policy.places import Places

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["pin"]


def pin(path: Path) -> Reply:
    """Write ``sha256`` of every model; comments and layout stay, the file is replaced at once.

    A certificate of models that were not pinned is of those that are there now; that of others
    stays, and they are refused.

    Raises:
        PolicyError: the policy is not valid, before or after; the file stays as it was.
        ModelIntegrityError: a model file is missing.
    """
    from cascade.bundle import read_model, resolve_model
    from cascade.policy import OnnxSpec, Policy
    from cascade.policy.loader import load

    policy = load(Policy, path, None, stale_ok=True)
    text = path.read_bytes().decode("utf-8")
    digests, changed = {}, []
    for index, spec in enumerate(policy.tiers):
        if not isinstance(spec, OnnxSpec):
            continue
        digests[spec.name] = read_model(resolve_model(policy, spec), spec)[1]
        if digests[spec.name] != spec.sha256:
            changed.append(spec.name)
            places = Places(text, str(path))
            text = places.put(
                ("tiers", index), "sha256", _quoted(digests[spec.name]), after="model"
            )
    if changed:
        _save(policy, path, text)
    rows = [
        (name, sha, "pinned" if name in changed else "unchanged") for name, sha in digests.items()
    ]
    said = table(rows, indent="") if rows else "no models to pin"
    return Reply(said, {"policy": str(path), "digests": digests, "changed": changed})


def _save(policy: Any, path: Path, text: str) -> None:
    """Replace the policy, and its certificate where that was of models without a digest."""
    from cascade.policy import Policy
    from cascade.policy.loader import load

    certificate = policy.certificate
    beside = [] if certificate is None else [path.parent / policy.escalation.certificate]
    with all_or_none([path.resolve(), *beside]):
        replace_file(path.resolve(), text.encode("utf-8"))
        if certificate is not None:
            digests = _digests(policy, load(Policy, path, None, stale_ok=True))
            attrs.evolve(certificate, digests=digests).save(beside[0])
        Policy.from_yaml(path)


def _digests(before: Any, now: Any) -> dict[str, str]:
    """Return a certificate's digests once the models have theirs."""
    from cascade.policy.digest import tier_digest

    held = dict(before.certificate.digests)
    for old, new in zip(before.tiers, now.tiers, strict=True):
        if _unpinned(old) and held.get(old.name) == tier_digest(before, old):
            held[old.name] = tier_digest(now, new)
    return held


def _unpinned(spec: Any) -> bool:
    return spec.kind == "onnx" and spec.sha256 is None


def _quoted(digest: str) -> str:
    """Quote a digest that YAML would read as a number (all decimal digits, or like 12e34…)."""
    return f'"{digest}"' if digest.replace("e", "", 1).isdecimal() else digest
