"""``cascade replay``: what a policy would have done; with bounds, a gate for CI."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

from cascade.cli.edits import check_target
from cascade.cli.reply import DONE, FAILED, Reply, table
from cascade.errors import PolicyError

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.simulation import Replay

__all__ = ["replay"]


def replay(
    policy: Path, recording: Path, *, decisions: Path | None, against: Path | None,
    max_loss: float | None, max_cost: float | None, **settings: Any,
) -> Reply:  # fmt: skip
    """Replay a policy, compare it with another one, and hold it to bounds.

    ``max_loss`` and ``max_cost`` bound the loss and the mean cost; beside ``against``, by how much
    they may exceed the other policy's.
    """
    import cascade
    from cascade.fitting.recording import Recording

    for name, bound in (("--max-loss", max_loss), ("--max-cost", max_cost)):
        if bound is not None and not math.isfinite(bound):
            raise PolicyError(f"{name}: expected a number, got {bound}")
    if decisions is not None:
        check_target(decisions)
    complete_only = settings.pop("complete_only")
    held = Recording.read(recording, complete_only=complete_only)
    found = cascade.replay(cascade.Policy.from_yaml(policy), held, **settings)
    old = None
    if against is not None:
        old = cascade.replay(cascade.Policy.from_yaml(against), held, **settings)
    if decisions is not None:
        _write(found, decisions)
    broken = list(_broken(found, old, max_loss, max_cost))
    rows = [_row("", str(policy), str(against) if against else None)]
    rows += [
        _row(name, getattr(found, key), None if old is None else getattr(old, key))
        for name, key in _SHOWN
    ]
    data = found.to_dict() | ({} if old is None else {"against": old.to_dict()})
    return Reply(table(rows, indent=""), data, tuple(broken), FAILED if broken else DONE)


_SHOWN = (
    ("rows", "n"), ("accuracy", "accuracy"), ("top tier's accuracy", "accuracy_top"),
    ("loss", "loss"), ("calls", "calls"), ("mean cost", "mean_cost"),
    ("mean seconds", "mean_seconds"), ("dispositions", "dispositions"), ("uncovered", "uncovered"),
)  # fmt: skip
_SHARES = {"accuracy", "top tier's accuracy", "loss", "uncovered"}


def _row(name: str, value: Any, other: Any) -> tuple[str, ...]:
    cells = [name, _shown(name, value)]
    return (*cells, _shown(name, other)) if other is not None else tuple(cells)


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "not recorded"
    if name in _SHARES:
        return f"{value:.2%}"
    if hasattr(value, "items"):
        share = name == "calls"
        return ", ".join(
            f"{key} {part:.1%}" if share else f"{key} {part}" for key, part in value.items()
        )
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _broken(
    found: Replay, old: Replay | None, max_loss: float | None, max_cost: float | None
) -> Any:
    for what, mine, theirs, bound in (
        ("loss", found.loss, 0.0 if old is None else old.loss, max_loss),
        ("cost", found.mean_cost, 0.0 if old is None else old.mean_cost, max_cost),
    ):
        if bound is None:
            continue
        if mine is None or theirs is None:
            yield f"{what}: nothing was recorded to hold it against; give --costs"
        elif mine - theirs > bound:
            more = "" if old is None else f" more than the other policy's {theirs:.4g}"
            yield f"{what}: {mine:.4g} is over the bound of {bound:.4g}{more}"


def _write(found: Replay, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "tier", "disposition"])
        rows = enumerate(zip(found.tiers, found.ends, strict=True))
        writer.writerows((row, tier or "", end) for row, (tier, end) in rows)
