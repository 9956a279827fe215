"""``cascade quantize`` and ``cascade prune``: a smaller model where it wins, certified anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.cli.edits import check_target
from cascade.cli.profile import percent, progress, rows_of
from cascade.cli.reply import FAILED, Reply, table
from cascade.cli.rewrite import Change, model_path
from cascade.types import seconds

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.optimize.data import Data
    from cascade.optimize.slimming import Candidate, Slimming

__all__ = ["smaller"]


def smaller(
    path: Path, tier: str, data: Path, way: str, *, max_loss: float, alpha: float, seed: int,
    dry_run: bool,
) -> Reply:  # fmt: skip
    """Make a tier's model smaller in one ``way``; rewrite the policy if something wins.

    Raises:
        InputValueError: there is no such tier, or the rows cannot be used.
        PolicyError: nothing can be written there.
        MissingExtra: the extra ``quantize`` is not installed.
    """
    from cascade.optimize.changing import change_tier
    from cascade.optimize.running import tier_named
    from cascade.policy import Policy

    policy = Policy.from_yaml(path)
    if not dry_run:
        for target in (path, model_path(path, tier_named(policy, tier).model)):
            check_target(target)
    rows = rows_of(policy, data)
    progress(f"{way}: making and measuring variants of {tier}")
    found = change_tier(policy, tier, rows, way, max_loss=max_loss, alpha=alpha, seed=seed)
    only = found.candidates[0]
    lines = (
        [f"{tier}: {only.name} {only.verdict}"]
        if only.speed is None and len(found.candidates) == 1
        else _report(found, rows, max_loss, alpha)
    )
    facts: dict[str, Any] = {**found.to_dict(), "written": False, "certificate": None, "next": []}
    if found.kept is None:
        return Reply("\n".join([*lines, "", "Kept: none; the model stays as it is."]), facts)
    lines += ["", f"Kept: {found.kept}; temperature {found.temperature:g}"]
    if dry_run:
        return Reply("\n".join([*lines, "Nothing is written (--dry-run)."]), facts)
    change = Change(path, policy, found)
    problem = change.certify(rows, seed)
    if problem is not None:
        error = f"{found.kept} passes, but {problem}; nothing is written"
        return Reply("\n".join(lines), facts, (error,), FAILED)
    change.save()
    promise = None if change.certificate is None else change.certificate.to_dict()
    facts |= {"written": True, "next": change.next, "certificate": promise}
    written = ", ".join(map(str, change.files))
    said = [*lines, *change.said, "", *change.edits.difference(), "", f"Written: {written}"]
    return Reply("\n".join([*said, *(f"Run: {line}" for line in change.next)]), facts)


def _report(found: Slimming, rows: Data, max_loss: float, alpha: float) -> list[str]:
    head = ("variant", "p50", "× original", "size", "accuracy", "lost", "p", "verdict")
    bound = f"a variant may lose {max_loss:g} of its answers, at a risk of {alpha:g}"
    lines = [
        f"{found.tier}: {rows.n:,} rows; {bound} shared among those that are faster",
        table([head, *map(_row, found.candidates)]),
    ]
    if rows.truth is None:
        lines.append("Without truth (y) a row is lost where the answers differ.")
    return lines


def _row(one: Candidate) -> tuple[str, ...]:
    gate, speed = one.gate, one.speed
    return (
        one.name,
        "-" if one.seconds is None else seconds(one.seconds),
        "-" if speed is None else f"{speed.ratio:.2f}",
        "-" if one.bytes is None else f"{one.bytes / 1e6:.2f} MB",
        "-" if one.accuracy is None else percent(one.accuracy),
        "-" if gate is None else f"{gate.losses} of {gate.n}",
        "-" if gate is None else f"{gate.p_value:.2g}",
        one.verdict,
    )
