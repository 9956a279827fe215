"""Digests: what was certified, and what an answer depends on."""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from typing import TYPE_CHECKING, Any

from cascade.policy.walk import fields_of

if TYPE_CHECKING:
    from cascade.policy.model import Policy
    from cascade.policy.settings import TierSpec

__all__ = ["answer_digest", "entry_digest", "plain", "policy_digest", "tier_digest"]


def plain(settings: Any) -> Any:
    """Return settings as plain types, leaving out what is None."""
    if isinstance(settings, Enum):
        return settings.value
    if isinstance(settings, (list, tuple)):
        return [plain(item) for item in settings]
    if isinstance(settings, dict):
        return {key: plain(value) for key, value in settings.items()}
    if not hasattr(type(settings), "__attrs_attrs__"):
        return settings
    found = {tag: getattr(settings, tag) for tag in getattr(type(settings), "TAGS", ())}
    for name in fields_of(type(settings)):
        value = getattr(settings, name)
        if value is not None:
            found[name] = plain(value)
    bare = getattr(type(settings), "SHORTHAND", None) if hasattr(type(settings), "BARE") else None
    return found[bare] if bare is not None and set(found) == {bare} else found


_BUILT_IN = {"onnx", "external"}
_HOW = {
    "name",
    "classes",
    "execution",
    "workers",
    "queue",
    "batch",
    "breaker",
}  # not what is answered


def _hash(tree: Any) -> str:
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def policy_digest(policy: Policy) -> str:
    """Return the digest of everything that a policy says, its certified path included."""
    path = None if policy.certificate is None else policy.certificate.to_dict()
    tables = {name: table.to_dict() for name, table in policy.calibrations.items()}
    return _hash([plain(policy), path, *([tables] if tables else [])])


def tier_digest(policy: Policy, spec: TierSpec, model_sha256: str | None = None) -> str:
    """Return the digest of what decides a tier's answers and confidences."""
    tree = plain(spec)
    kept = {key: tree.get(key) for key in ("kind", "outputs", "confidence", "version")}
    if tree["kind"] not in _BUILT_IN:  # what the settings of others mean is not known here
        kept |= {key: value for key, value in tree.items() if key not in _HOW}
    kept["sha256"] = model_sha256 or tree.get("sha256")
    kept["classes"] = plain(spec.classes or policy.classes)
    table = policy.calibrations.get(spec.name)
    if table is not None:  # what it says, wherever it stands
        kept["confidence"] = {k: v for k, v in kept["confidence"].items() if k != "calibration"}
        kept["calibration"] = table.to_dict()
    return _hash(kept)


def entry_digest(policy: Policy) -> str:
    """Return the digest of the entry rule's estimate."""
    rule = policy.complexity
    return _hash(None if rule is None else [rule.intercept, plain(rule.weights)])


def answer_digest(policy: Policy) -> str:
    """Return the digest of what changes answers: not deadline, cache, name or mode."""
    whole = plain(policy)
    kept = {key: whole.get(key) for key in ("prepare", "postprocess", "inputs", "complexity")}
    kept["tiers"] = [tier_digest(policy, spec) for spec in policy.tiers]
    kept["points"] = [[p.thresholds, p.skip_above] for p in policy.points]
    return _hash([1, kept, policy.escalation.abstain_below])
