"""Write a fit down: beside the user's own policy, or as a policy of external tiers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cascade.policy import Policy
from cascade.policy.digest import tier_digest

if TYPE_CHECKING:
    from cascade.fitting.result import Fit

__all__ = ["merged", "save"]

CERTIFICATE, CALIBRATION = "certificate.json", "calibration.json"


def save(fit: Fit, folder: str | Path) -> Path:
    """Write policy.yaml, certificate.json and, if there is one, calibration.json."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _write_tables(fit, target)
    fit.certificate.save(target / CERTIFICATE)
    path = target / "policy.yaml"
    lines = [f"# {line}" for line in fit.report().splitlines()]
    path.write_text("\n".join([*lines, fit.policy.to_yaml()]), encoding="utf-8")
    Policy.from_yaml(path, env={})  # what is written can be read
    return path


def merged(fit: Fit, path: Path) -> tuple[str, str]:
    """Put a fit into the user's own policy file: only escalation and confidence change.

    Returns the text before and after; comments and order stay. The certificate and the tables are
    written beside it. It is then certified with the models and settings of that file.
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes, yaml.width = True, 4096
    before = path.read_text(encoding="utf-8")
    if "\n- " not in before:
        yaml.indent(mapping=2, sequence=4, offset=2)
    tree: Any = yaml.load(before)
    escalation = tree.setdefault("escalation", {})
    escalation.pop("thresholds", None)
    escalation["certificate"] = CERTIFICATE
    for spec in tree["tiers"]:
        if spec["name"] in fit.policy.calibrations:
            held = spec.get("confidence", {})
            spec["confidence"] = held if hasattr(held, "items") else {"score": held}
            spec["confidence"]["calibration"] = CALIBRATION
        elif hasattr(spec.get("confidence"), "items"):
            spec["confidence"].pop("calibration", None)
    _write_tables(fit, path.parent)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    _certify(fit, json.loads(json.dumps(tree)), path)
    path.write_text(stream.getvalue(), encoding="utf-8")
    Policy.from_yaml(path, env={})
    return before, stream.getvalue()


def _certify(fit: Fit, tree: dict[str, Any], path: Path) -> None:
    """Write the certificate for the models, scores and tables of this very policy."""
    bare = {**tree, "mode": "top_only", "escalation": {}}  # to be read before it is certified
    policy = Policy.from_dict(bare, root=path.parent)
    digests = {spec.name: tier_digest(policy, spec) for spec in policy.tiers}
    digests["data"] = fit.certificate.digests["data"]
    attrs.evolve(fit.certificate, digests=digests).save(path.parent / CERTIFICATE)


def _write_tables(fit: Fit, folder: Path) -> None:
    tables = {name: table.to_dict() for name, table in fit.policy.calibrations.items()}
    if tables:
        (folder / CALIBRATION).write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
