"""``cascade tune``: how each model runs best here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.cli.edits import Edits, check_target
from cascade.cli.profile import progress, rows_of, write_laws
from cascade.cli.reply import Reply
from cascade.cores import find_cores
from cascade.types import seconds

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.optimize.data import Data
    from cascade.optimize.tuning import TierTuning
    from cascade.policy import Policy

__all__ = ["tune"]

_WHAT = {
    "p50": "a call", "p99": "the slowest hundredth", "throughput": "a row", "cpu": "CPU a call",
}  # fmt: skip


def tune(
    path: Path, data: Path | None, objective: str, *, rate: float | None, tiers: str | None,
    providers: str | None, dry_run: bool,
) -> Reply:  # fmt: skip
    """Tune the policy at ``path``; with ``dry_run`` only the difference is shown.

    Raises:
        PolicyError: the objective, a provider or a tier is not known, or nothing can be written.
        InputValueError: the rows cannot be used.
    """
    from cascade.optimize.tuning import tune_policy
    from cascade.policy import Policy

    policy, cores = Policy.from_yaml(path), find_cores().usable
    if not dry_run:
        check_target(path)
    rows = rows_of(policy, data)
    found = tune_policy(
        policy, rows, objective, cores=cores, rate=rate, tiers=_names(tiers),
        providers=_names(providers), say=progress,
    )  # fmt: skip
    edits = Edits(path)
    places = {spec.name: index for index, spec in enumerate(policy.tiers)}
    for one in found:
        index = places[one.name]
        edits.tier(
            index, _bounded(one.changes, edits.keys(("tiers", index, "workers")), policy, index)
        )
    difference = edits.difference()
    renewed = None
    if not dry_run:
        edits.save()
        renewed = _renew(path, rows, [one.name for one in found if one.changes])
    lines = [f"Objective {objective}, {cores} usable cores", "", *map(_said, found), ""]
    lines += difference or ["Nothing to change."]
    if difference and not dry_run:
        lines += ["", f"Written: {path}" + (f", {renewed}" if renewed else "")]
    changed: dict[str, Any] = {one.name: one.changes for one in found if one.changes}
    facts = {"objective": objective, "cores": cores, "written": bool(difference) and not dry_run}
    reply = {**facts, "changed": changed, "tiers": [one.to_dict() for one in found]}
    return Reply("\n".join(lines), reply)


def _bounded(
    changes: dict[str, Any], held: list[str], policy: Policy, index: int
) -> dict[str, Any]:
    """Return the changes with bounds of workers where the file has them; the lower one may stay."""
    if "workers" not in changes or not held:
        return changes
    most, crew = changes["workers"], policy.tiers[index].workers
    low = {} if crew is None or crew.min is None else {"min": min(crew.min, most)}
    return {**changes, "workers": {"max": most, **low}}


def _renew(path: Path, rows: Data, changed: list[str]) -> Path | None:
    """Measure anew what lanes start from, of the tiers that run in another way now."""
    from cascade.optimize.running import load_models, open_tier
    from cascade.policy import Policy

    policy = Policy.from_yaml(path)
    if policy.profile is None or not changed:
        return None
    progress("measuring the profile anew")
    models = {name: pair for name, pair in load_models(policy).items() if name in changed}
    return write_laws(
        policy, path,
        {name: open_tier(*pair, policy).law(rows).to_dict() for name, pair in models.items()},
    )  # fmt: skip


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _said(one: TierTuning) -> str:
    choice = one.choice
    effort = f"{choice.measurements} measurements of {choice.candidates} settings"
    if choice.comparison is None or choice.seconds is None:
        return f"{one.name}: stays as it is, nothing was better ({effort})"
    what, told = _WHAT[one.objective], choice.comparison.describe()
    if not one.changes:
        return f"{one.name}: stays as it is; the best other one is no gain ({told}; {effort})"
    before, after = map(seconds, choice.seconds)
    words = ", ".join(f"{key}: {_word(value)}" for key, value in one.changes.items())
    return f"{one.name}: {words}; {what} {before} → {after} ({told}; {effort})"


def _word(value: Any) -> str:
    return str(value["max_size"]) if isinstance(value, dict) else str(value).lower()
