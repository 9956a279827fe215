"""The Pareto front over whole cascades: which variants of which tiers, at which thresholds.

Pure: answers and times of every variant in, ladders out. All ladders are held to one reference, the
answers of the top tier as it was: a smaller top tier then pays for what it loses itself.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.fitting.certify import certified_prefix
from cascade.fitting.losses import LOSSES
from cascade.fitting.paths import call_shares, deciding_tiers, learned_path, two_tier_path
from cascade.fitting.pvalues import binomial_p_values
from cascade.optimize.timing import GAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["Ladder", "Option", "Rows", "best", "evaluate", "front", "ladders", "prove", "worth"]

_POINTS = 64  # of a path that are looked at


@attrs.frozen(eq=False)
class Option:
    """A variant of a tier: seconds of a call, and its answers and confidences on the rows, (n,)."""

    tier: str
    variant: str
    seconds: float
    values: Array
    confidences: Array


@attrs.frozen(eq=False)
class Rows:
    """What all variants answer on the same rows: options per tier, cheapest tier first.

    ``reference`` (n,) are the answers that losses are counted against, ``truth`` (n,) or None.
    """

    options: Sequence[Sequence[Option]]
    reference: Array
    truth: Array | None

    def picked(self, steps: tuple[tuple[str, str], ...]) -> list[Option]:
        """Return the options of a ladder."""
        held = {(one.tier, one.variant): one for some in self.options for one in some}
        return [held[step] for step in steps]


@attrs.frozen
class Ladder:
    """A cascade at one operating point: what it takes on average, and what it loses.

    ``steps`` are (tier, variant), cheapest first; ``losses`` of ``n`` rows are lost against the
    reference, with the p-value of 'more than max_loss are'.
    """

    steps: tuple[tuple[str, str], ...]
    thresholds: tuple[float, ...]
    seconds: float
    losses: int
    n: int
    p_value: float
    accuracy: float | None

    @property
    def name(self) -> str:
        """The ladder in words.

        >>> Ladder((("a", "original"), ("b", "int8")), (0.9,), 1.0, 0, 10, 1.0, None).name
        'a → b (int8)'
        """
        plain = "original"
        return " → ".join(t if v == plain else f"{t} ({v})" for t, v in self.steps)


def ladders(rows: Rows, max_loss: float, alpha: float) -> list[list[Ladder]]:
    """Return the points of every ladder that keeps the promise on these rows, strictest first.

    A ladder takes one variant or none of each tier. Its path is tested in its order and ends before
    the first point whose p-value exceeds alpha: what is left could be certified on rows like these.
    """
    found = []
    for chosen in _combinations(rows.options):
        points = list(_points(chosen, rows.reference, rows.truth, max_loss, alpha))
        kept = certified_prefix(np.array([point.p_value for point in points]), alpha)
        if kept:
            found.append(points[:kept])
    return found


def _combinations(options: Sequence[Sequence[Option]]) -> Iterator[list[Option]]:
    for picked in product(*([None, *some] for some in options)):
        chosen = [option for option in picked if option is not None]
        if chosen:
            yield chosen


def _points(
    chosen: list[Option], reference: Array, truth: Array | None, max_loss: float, alpha: float
) -> Iterator[Ladder]:
    for thresholds in _path(chosen, truth, max_loss, alpha):
        yield evaluate(chosen, thresholds, reference, truth, max_loss)


def _path(
    chosen: Sequence[Option], truth: Array | None, max_loss: float, alpha: float
) -> list[tuple[float, ...]]:
    if len(chosen) == 1:
        return [()]
    sure = np.column_stack([option.confidences for option in chosen[:-1]])
    lost = np.column_stack([
        _lost(option.values, chosen[-1].values, truth) for option in chosen[:-1]
    ])  # fmt: skip
    costs = [option.seconds for option in chosen]
    many = len(chosen) > 2
    path = learned_path(sure, lost, costs, max_loss, alpha) if many else two_tier_path(sure)
    places = np.unique(np.linspace(0, len(path) - 1, _POINTS).astype(int))
    return [tuple(thresholds.tolist()) for thresholds in path[places]]


def prove(
    seen: Rows, fresh: Rows, steps: tuple[tuple[str, str], ...], max_loss: float, alpha: float
) -> Ladder | None:
    """Test one ladder's path on fresh rows; return its cheapest point that holds, None without.

    The path comes from the rows seen, so that fixed-sequence testing makes it hold for every point
    up to that one, each taken by itself.
    """
    path = _path(seen.picked(steps), seen.truth, max_loss, alpha)
    picked = fresh.picked(steps)
    points = [evaluate(picked, t, fresh.reference, fresh.truth, max_loss) for t in path]
    kept = certified_prefix(np.array([point.p_value for point in points]), alpha)
    return points[kept - 1] if kept else None


def evaluate(
    chosen: Sequence[Option], thresholds: tuple[float, ...], reference: Array,
    truth: Array | None, max_loss: float,
) -> Ladder:  # fmt: skip
    """Return what a ladder does at one point, on the rows of its options."""
    n = len(reference)
    if thresholds:
        sure = np.column_stack([option.confidences for option in chosen[:-1]])
        deciding = deciding_tiers(sure, thresholds)
        calls = call_shares(deciding, thresholds, len(chosen))
    else:
        deciding, calls = np.zeros(n, dtype=np.intp), np.ones(1)
    values = np.array([option.values for option in chosen])[deciding, np.arange(n)]
    losses = int(_lost(values, reference, truth).sum())
    return Ladder(
        tuple((option.tier, option.variant) for option in chosen),
        thresholds,
        float(calls @ np.array([option.seconds for option in chosen])),
        losses,
        n,
        float(binomial_p_values(losses, n, max_loss)),
        None if truth is None else float((values == truth).mean()),
    )


def _lost(values: Array, reference: Array, truth: Array | None) -> Array:
    loss = LOSSES["disagreement" if truth is None else "gross"]
    return np.asarray(loss([values, reference], truth)[:, 0])


def front(found: Sequence[Sequence[Ladder]]) -> list[Ladder]:
    """Return the points that no other one beats in time and in losses, fastest first."""
    everything = sorted(
        (point for points in found for point in points), key=lambda p: (p.seconds, p.losses)
    )
    kept: list[Ladder] = []
    for point in everything:
        if not kept or point.losses < kept[-1].losses:
            kept.append(point)
    return kept


def best(found: Sequence[Sequence[Ladder]], gain: float = GAIN) -> Ladder | None:
    """Return the fastest point; among those as fast, the ladder of the fewest tiers and changes.

    Otherwise chance would choose among equals.
    """
    ends = [points[-1] for points in found]
    if not ends:
        return None
    near = min(point.seconds for point in ends) * (1.0 + gain)
    return min(
        (point for point in ends if point.seconds <= near),
        key=lambda p: (len(p.steps), sum(v != "original" for _, v in p.steps), p.losses, p.seconds),
    )


def worth(before: Ladder | None, found: Ladder | None) -> Ladder | None:
    """Return the ladder to have: another one than before only if it gains what pays for a change.

    Either may have proven nothing, which is None.
    """
    if before is None:
        return found
    slow = found is None or found.seconds > (1.0 - GAIN) * before.seconds
    return before if slow else found
