"""``cascade pin``: write the digests of the models into a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade.cli.places import Places
from cascade.cli.reply import Reply, table
from cascade.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["pin"]


def pin(path: Path) -> Reply:
    """Write ``sha256`` of every model; comments and layout stay, the file is replaced at once.

    Raises:
        PolicyError: the policy is not valid, before or after.
        ModelIntegrityError: a model file is missing.
    """
    from cascade.bundle import read_model, resolve_model
    from cascade.policy import OnnxSpec, Policy

    policy = Policy.from_yaml(path)
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
        replace_file(path.resolve(), text.encode("utf-8"))
    rows = [
        (name, sha, "pinned" if name in changed else "unchanged") for name, sha in digests.items()
    ]
    said = table(rows, indent="") if rows else "no models to pin"
    return Reply(said, {"policy": str(path), "digests": digests, "changed": changed})


def _quoted(digest: str) -> str:
    """Quote a digest that YAML would read as a number (all decimal digits, or like 12e34…)."""
    return f'"{digest}"' if digest.replace("e", "", 1).isdecimal() else digest
