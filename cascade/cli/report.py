"""The report on smaller models: a table, a plot, the front; and the fastest ladder, certified."""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import TYPE_CHECKING, Any

import attrs

from cascade.cli.profile import percent, progress
from cascade.errors import CannotCertify, PolicyError
from cascade.files import replace_file
from cascade.types import seconds

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.optimize.data import Data
    from cascade.optimize.exploring import Exploration
    from cascade.optimize.frontier import Ladder
    from cascade.policy import Certificate, Policy

__all__ = ["markdown", "write_report"]

_HEAD = (
    "| cascade | thresholds | mean | accuracy | lost | p |",
    "|---|---|---:|---:|---:|---:|",
)
_MAX_LOSS, _ALPHA = 0.01, 0.1  # of a policy without a certificate


def write_report(policy: Policy, rows: Data, folder: Path) -> tuple[Exploration, list[str]]:
    """Explore, and write report.md, report.json, report.png and, if it can be, ``ladder/``.

    Returns what was found, and the lines to show.

    Raises:
        InputValueError: the rows cannot be used.
        MissingExtra: the extras ``quantize`` and ``plot`` are needed.
    """
    from cascade.optimize.displays import LadderDisplay
    from cascade.optimize.exploring import explore

    old = policy.certificate
    bounds = (_MAX_LOSS, _ALPHA) if old is None else (old.max_loss, old.alpha)
    found = explore(policy, rows, max_loss=bounds[0], alpha=bounds[1], say=progress)
    folder.mkdir(parents=True, exist_ok=True)
    ladder, text = folder / "ladder", markdown(found)
    earlier = ladder.exists()
    said = _ladder(policy, rows, found, ladder)
    if earlier and not any(line.startswith("Written") for line in said):
        said.append(f"What stands in {ladder} is from an earlier run.")
    page = [f"# Smaller models for {policy.name}", "", text, *(f"- {line}" for line in said)]
    page += ["", "![Every candidate, the chosen ladder and the front](report.png)", ""]
    replace_file(folder / "report.md", "\n".join(page).encode())
    facts = json.dumps({**found.to_dict(), "said": said}, indent=1, allow_nan=False)
    replace_file(folder / "report.json", f"{facts}\n".encode())
    LadderDisplay.from_exploration(found).save(folder / "report.png")
    return found, [text, f"Written: {folder}/report.md, report.json, report.png", *said]


def markdown(found: Exploration) -> str:
    """Return the report as Markdown."""
    steps = () if found.chosen is None else found.chosen.steps
    lines = [
        "| tier | variant | p50 | accuracy | lost | p | verdict | in the chosen ladder |",
        "|---|---|---:|---:|---:|---:|---|---|",
    ]
    for tier, some in found.candidates.items():
        for one in some:
            gate = one.gate
            cells = [
                tier, one.name, "" if one.seconds is None else seconds(one.seconds),
                "" if one.accuracy is None else percent(one.accuracy),
                "" if gate is None else f"{gate.losses} of {gate.n}",
                "" if gate is None else f"{gate.p_value:.2g}",
                one.verdict, "yes" if (tier, one.name) in steps else "",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    promise = f"at most {found.max_loss:g} lost, risk {found.alpha:g}"
    lines += ["", f"The front over whole cascades ({promise}), fastest first:", ""]
    lines += [*_HEAD, *map(_cascade, found.front), ""]
    if found.chosen is None:
        return "\n".join([*lines, "No ladder keeps the promise on rows that had no say."]) + "\n"
    lines += ["At the cheapest point that keeps it on rows that had no say in the choice:", ""]
    points = {"as it is: ": found.before, "chosen: ": found.chosen}
    lines += [*_HEAD, *(_cascade(one, name) for name, one in points.items() if one is not None)]
    if found.before is not None:
        ratio = found.chosen.seconds / found.before.seconds
        lines += ["", f"The chosen ladder takes {ratio:.2f} × the time in the models."]
    return "\n".join(lines) + "\n"


def _cascade(one: Ladder, prefix: str = "") -> str:
    right = "" if one.accuracy is None else percent(one.accuracy)
    bars = ", ".join("skip" if t > 1.0 else f"{t:.3f}" for t in one.thresholds)
    lost = f"{one.losses} of {one.n} | {one.p_value:.2g}"
    return f"| {prefix}{one.name} | {bars} | {seconds(one.seconds)} | {right} | {lost} |"


def _ladder(policy: Policy, rows: Data, found: Exploration, folder: Path) -> list[str]:
    """Write the chosen ladder as a policy of its own, certified, if it is another one."""
    from cascade.optimize.certifying import certify_anew, why_not_certify
    from cascade.optimize.data import split

    held = tuple((spec.name, "original") for spec in policy.tiers)
    if found.chosen is None:
        return []
    if found.chosen.steps == held:
        return ["The ladder as it is, is the fastest."]
    lines = _commands(policy, found)
    old: Any = policy.certificate
    if old is None or len(found.chosen.steps) < 2:
        return [*lines, "It has no certificate to renew, and is not written down."]
    reason = why_not_certify(policy, old, rows)
    if reason is not None:
        return [*lines, f"It cannot be certified here: {reason}."]
    changed, files = _policy_of(policy, found)
    promise = attrs.evolve(old, tiers=tuple(spec.name for spec in changed.tiers))
    models = {spec.name: files[spec.model] for spec in changed.tiers}
    made, problem = certify_anew(changed, promise, split(rows), models)
    try:
        if problem is not None:
            raise problem
        _save(folder, _certified(changed, made), made, files)
    except (CannotCertify, PolicyError) as error:
        return [*lines, f"It is not written down: {error}."]
    return [*lines, f"Written, certified on {made.n:,} rows: {folder / 'policy.yaml'}"]


def _policy_of(policy: Any, found: Exploration) -> tuple[Any, dict[str, bytes]]:
    steps: Any = dict(found.chosen.steps) if found.chosen else {}
    tiers, files = [], {}
    for spec in policy.tiers:
        if spec.name not in steps:
            continue
        key = (spec.name, steps[spec.name])
        name, model = f"{spec.name}.onnx", found.models[key]
        files[name] = model
        confidence = attrs.evolve(spec.confidence, temperature=found.temperatures[key])
        digest = hashlib.sha256(model).hexdigest()
        tiers.append(attrs.evolve(spec, model=name, sha256=digest, confidence=confidence))
    bare = {"certificate": None, "profile": None, "golden": None, "mode": "top_only"}
    return attrs.evolve(policy, tiers=tuple(tiers), **bare), files


def _certified(changed: Any, made: Certificate) -> Policy:
    """Return the policy by its new certificate; all else that it says of escalation stays."""
    held: Any = changed.escalation
    escalation = attrs.evolve(held, certificate="certificate.json", thresholds=None)
    whole: Policy = attrs.evolve(changed, mode="enforce", escalation=escalation, certificate=made)
    return whole


def _save(folder: Path, whole: Policy, made: Certificate, files: dict[str, bytes]) -> None:
    from cascade.optimize.drafts import POLICY, drafted

    with drafted(folder) as draft:
        for name, content in files.items():
            (draft / name).write_bytes(content)
        made.save(draft / "certificate.json")
        (draft / POLICY).write_text(whole.to_yaml(), encoding="utf-8")


def _commands(policy: Policy, found: Exploration) -> list[str]:
    """Say how to make the same changes in one's own policy.

    A variant that the gate refuses by itself is none that the commands keep: the whole ladder is
    what keeps the promise with it.
    """
    steps = dict(found.chosen.steps) if found.chosen else {}
    bounds = f"--max-loss {found.max_loss:g} --alpha {found.alpha:g}"
    lines = []
    for spec in policy.tiers:
        variant = steps.get(spec.name)
        if variant is None:
            lines.append(f"Leave out: {spec.name}")
        elif _refused(found, spec.name, variant):
            lines.append(f"Take {spec.name} from the ladder: {variant}, too lossy by itself")
        elif variant != "original":
            way = "prune" if "trees" in variant or "neurons" in variant else "quantize"
            named = f"{shlex.quote(str(policy.path))} {spec.name}"
            lines.append(f"Run: cascade {way} {named} --data DATA {bounds}  # {variant}")
    return lines


def _refused(found: Exploration, tier: str, variant: str) -> bool:
    return any(
        one.name == variant and one.verdict.startswith("refused") for one in found.candidates[tier]
    )
