"""Write a fitted cascade down as a bundle: the folder that a router serves."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import attrs

from cascade.bundle import Golden
from cascade.errors import ExportError
from cascade.optimize.drafts import POLICY, drafted
from cascade.optimize.export import INPUT, OUTPUT
from cascade.optimize.policy_text import policy_text
from cascade.optimize.profile import measure
from cascade.optimize.scorers import OnnxScorer
from cascade.policy.schema import policy_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from cascade.optimize.fitted import FittedTier
    from cascade.policy import Certificate, Policy

__all__ = ["check_target", "write_bundle"]

SCHEMA = "policy.schema.json"
_ALWAYS = (POLICY, "certificate.json", "golden.json")  # what a bundle is known by
_RTOL, _ATOL = 1e-3, 1e-4  # a golden answer on another machine, in float32


def write_bundle(
    folder: Path,
    tiers: Sequence[FittedTier],
    policy: Policy,
    certificate: Certificate,
    rows: npt.NDArray[Any],
    *,
    name: str | None = None,
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Write policy, models, certificate, profile and golden answers to ``folder``.

    ``rows`` (n, features) are what the tiers are measured on, the first of them the golden input.
    The bundle is written beside the folder, loaded once as a router would, and then moved.

    Raises:
        ExportError: the folder holds something else than a bundle.
        PolicyError: what was given does not make a valid policy.
    """
    folder = folder.absolute()
    check_target(folder)
    named = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip("-") or policy.name
    settings: Any = {key: value for key, value in (extras or {}).items() if value is not None}
    whole: Any = policy
    attrs.evolve(whole, name=named, **settings)  # refuses what no policy takes, before the work
    with drafted(folder) as draft:
        for file, content in _files(tiers, certificate, rows).items():
            (draft / file).write_bytes(content)
        text = policy_text(policy, certificate, named, extras or {})
        (draft / POLICY).write_text(text, encoding="utf-8")


def check_target(folder: Path) -> None:
    """Refuse to write over what is not a bundle: a policy alone is somebody's own.

    Raises:
        ExportError: the folder holds something else, or is none.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    missing = [name for name in _ALWAYS if not (folder / name).is_file()]
    if missing and folder.exists():
        msg = f"{folder} is not empty and holds no {missing[0]}: it is not a bundle"
        raise ExportError(f"{msg}, so it is left alone", step="write")


def _files(
    tiers: Sequence[FittedTier], certificate: Certificate, rows: npt.NDArray[Any]
) -> dict[str, bytes]:
    files, golden, profiles = {}, {}, {}
    for tier in tiers:
        scorer = tier.scorer
        profiles[tier.name] = measure(scorer.batch, rows)
        if isinstance(scorer, OnnxScorer):
            files[f"{tier.name}.onnx"] = scorer.model
            asked, answer = rows[:1], scorer.batch(rows[:1])
            golden[tier.name] = Golden(
                inputs={INPUT: asked}, outputs={OUTPUT: answer}, rtol=_RTOL, atol=_ATOL
            )
    facts = {
        "golden.json": {name: one.to_dict() for name, one in golden.items()},
        "profile.json": {name: one.to_dict() for name, one in profiles.items()},
        "certificate.json": certificate.to_dict(),
        SCHEMA: policy_schema(),
    }
    texts = {file: json.dumps(content, indent=2) + "\n" for file, content in facts.items()}
    return files | {file: text.encode() for file, text in texts.items()}
