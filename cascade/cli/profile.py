"""``cascade profile``: what each tier costs, and what to change first."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from cascade.cli.edits import Edits, check_target
from cascade.cli.reply import Reply, table
from cascade.files import replace_file
from cascade.types import seconds

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.optimize.data import Data
    from cascade.optimize.profiling import PolicyProfile, TierProfile
    from cascade.policy import Policy

__all__ = ["percent", "profile", "progress", "rows_of", "write_laws"]

_FILE = "profile.json"


def profile(
    path: Path, data: Path | None, *, plot: Path | None = None, report: Path | None = None
) -> Reply:
    """Measure the policy at ``path``, and write the profile file that lanes start from.

    With ``report`` every smaller model of every tier is tried, and told of in that folder.

    Raises:
        InputValueError: the rows cannot be used, or no plot can be saved so.
        PolicyError: something could not be written.
        MissingExtra: the plot needs the extra ``plot``, the report ``quantize`` too.
    """
    from cascade.optimize.profiling import profile_policy
    from cascade.policy import Policy

    policy = Policy.from_yaml(path)
    plot = _check(policy, path, plot, report)
    rows = rows_of(policy, data)
    found = profile_policy(policy, rows, progress)
    lines = [*_report(found), ""]
    if plot is not None:
        from cascade.optimize.displays import ProfileDisplay

        plot.parent.mkdir(parents=True, exist_ok=True)
        ProfileDisplay.from_profile(found).save(plot)
        lines.append(f"Plot: {plot}")
    written = write_laws(policy, path, found.profiles())
    lines.append(f"Written: {written}")
    facts = {**found.to_dict(), "profile": str(written)}
    if report is not None:
        from cascade.cli.report import write_report

        explored, told = write_report(policy, rows, report)
        facts["report"] = explored.to_dict()
        lines += ["", *told]
    return Reply("\n".join(lines), facts)


def _check(policy: Policy, path: Path, plot: Path | None, report: Path | None) -> Path | None:
    """Refuse at once what would fail after the measuring; return the file of the plot."""
    from cascade.optimize.displays import check_plot
    from cascade.optimize.lazily import require_onnx
    from cascade.optimize.running import tier_named

    check_target(path.parent / (policy.profile or _FILE))
    if plot is not None:
        check_target(plot)
        plot = check_plot(plot)
    if report is not None:
        check_target(report / "report.png")
        check_plot("report.png")
        require_onnx()
        for spec in policy.tiers:
            tier_named(policy, spec.name)  # all of them can be run
    return plot


def rows_of(policy: Policy, data: Path | None) -> Data:
    """Read the rows that a command was given, or else the golden inputs of the bundle."""
    from cascade.optimize.data import golden_rows, load_data

    return golden_rows(policy) if data is None else load_data(data)


def progress(line: str) -> None:
    """Say on stderr what is being done: measuring takes a while."""
    print(line, file=sys.stderr, flush=True)


def write_laws(policy: Policy, path: Path, laws: dict[str, Any]) -> Path:
    """Write the profile, tiers that were not measured as they were; name it in the policy."""
    from cascade.bundle import load_profile

    held = {name: one.to_dict() for name, one in load_profile(policy).items()}
    target = path.parent / (policy.profile or _FILE)
    text = json.dumps(held | laws, indent=2) + "\n"
    replace_file(target.resolve(), text.encode())
    if policy.profile is None:
        edits = Edits(path)
        edits.put((), "profile", _FILE, after="name")
        edits.save()
    return target


def _report(found: PolicyProfile) -> list[str]:
    head = (
        "tier", "accuracy", "p50", "p99", "2 ms apart", "CPU a call", "knee", "a row there",
        "cold start", "memory",
    )  # fmt: skip
    lines = [f"Single requests; {found.rows:,} rows", table([head, *map(_row, found.tiers)]), ""]
    lines += ["Runs of so many rows: p50, per row", table(_sizes(found)), ""]
    lines += [f"{name}: not measured ({why})" for name, why in found.skipped.items()]
    if found.ledger is not None:
        lines += _ledger(found)
    for name, by in found.dominated.items():
        why = f"slower than {by} and, on these rows, not more accurate"
        lines.append(f"Dominated: {name} is {why}: leave it out.")
    if all(tier.accuracy is None for tier in found.tiers):
        lines.append("Without truth (y in DATA) accuracies and dominated tiers are unknown.")
    return lines


def _row(tier: TierProfile) -> tuple[str, ...]:
    at_knee = min(tier.sizes, key=lambda size: abs(size.rows - tier.knee))
    cold, memory = tier.cold.load + tier.cold.first, tier.cold.memory
    return (
        tier.name, "-" if tier.accuracy is None else percent(tier.accuracy),
        seconds(tier.hot.p50), seconds(tier.hot.p99), seconds(tier.sparse.p50),
        seconds(tier.sparse.cpu), str(tier.knee), seconds(at_knee.per_row), seconds(cold),
        "-" if memory is None else f"{memory / 1e6:.1f} MB",
    )  # fmt: skip


def _sizes(found: PolicyProfile) -> list[tuple[str, ...]]:
    sizes = sorted({size.rows for tier in found.tiers for size in tier.sizes})
    rows: list[tuple[str, ...]] = [("tier", *map(str, sizes))]
    for tier in found.tiers:
        own: dict[int, Any] = {size.rows: size for size in tier.sizes}
        rows.append((tier.name, *(seconds(own[s].per_row) if s in own else "-" for s in sizes)))
    return rows


def _ledger(found: PolicyProfile) -> list[str]:
    ledger: Any = found.ledger
    whole = sum(ledger.parts.values()) or 1.0
    parts = [f"{part} {seconds(t)} ({t / whole:.0%})" for part, t in ledger.parts.items()]
    tiers = [
        f"{name} {seconds(t)}, asked by {ledger.calls[name]:.0%}"
        for name, t in ledger.tiers.items()
    ]
    return [
        f"A request takes {seconds(whole)} on average: {', '.join(parts)}",
        f"of which compute: {'; '.join(tiers)}",
        f"Bottleneck: {found.bottleneck}",
    ]


def percent(share: float) -> str:
    """Return a share as a percentage.

    >>> percent(0.9615)
    '96.2%'
    """
    return f"{share:.1%}"
