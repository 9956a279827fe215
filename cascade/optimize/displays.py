"""Plots of what was measured, after scikit-learn's Display convention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from cascade.errors import InputValueError
from cascade.fitting.displays import new_figure
from cascade.policy.walk import nearest

if TYPE_CHECKING:
    from cascade.optimize.exploring import Exploration
    from cascade.optimize.frontier import Ladder
    from cascade.optimize.profiling import PolicyProfile

__all__ = ["LadderDisplay", "ProfileDisplay", "check_plot"]

_SIZE = (8.0, 3.8)
_DPI = 130


@attrs.define(eq=False, slots=False)
class ProfileDisplay:
    """Per tier, by rows of a run: median seconds of the run and per row; and the knee.

    >>> ProfileDisplay({"a": [(1, 0.001, 0.001)]}, {"a": 1}).knees
    {'a': 1}
    """

    sizes: dict[str, list[tuple[int, float, float]]]
    knees: dict[str, int]

    @classmethod
    def from_profile(cls, found: PolicyProfile) -> Self:
        """Take the medians of a profiled policy."""
        sizes = {t.name: [(s.rows, s.p50, s.per_row) for s in t.sizes] for t in found.tiers}
        return cls(sizes, {tier.name: tier.knee for tier in found.tiers})

    def plot(self) -> Any:
        """Draw two panels side by side; returns the figure.

        Raises:
            MissingExtra: it needs the extra ``plot``.
        """
        figure = new_figure(_SIZE)
        ticks = sorted({rows for sizes in self.sizes.values() for rows, _, _ in sizes})
        for axes, column, title in zip(
            figure.subplots(1, 2), (1, 2), ("a run", "a row"), strict=True
        ):
            for name, sizes in self.sizes.items():
                rows = [size[0] for size in sizes]
                (line,) = axes.plot(
                    rows, [size[column] * 1e6 for size in sizes], marker=".", label=name
                )
                near = min(sizes, key=lambda size: abs(size[0] - self.knees[name]))
                axes.plot(
                    near[0], near[column] * 1e6, "o", ms=9, mfc="none", color=line.get_color()
                )
            axes.set(xscale="log", yscale="log", xlabel="rows of a run", ylabel="p50, µs")
            axes.set_xticks(ticks, list(map(str, ticks)))
            axes.minorticks_off()
            axes.set_title(f"{title} (circled: the knee)")
            axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        return figure

    def save(self, path: str | Path) -> None:
        """Draw into a file.

        Raises:
            MissingExtra: it needs the extra ``plot``.
        """
        self.plot().savefig(path, dpi=_DPI)


@attrs.define(eq=False, slots=False)
class LadderDisplay:
    """Accuracy against latency: every candidate of every tier, and the front of cascades.

    ``tiers`` holds (variant, seconds, accuracy) per tier; ``front`` and the single points
    ``before`` and ``chosen`` are (mean seconds, accuracy); ``steps`` those chosen.

    >>> LadderDisplay({"a": [("original", 0.001, 0.9)]}, [], None, None, ()).front
    []
    """

    tiers: dict[str, list[tuple[str, float, float]]]
    front: list[tuple[float, float]]
    before: tuple[float, float] | None
    chosen: tuple[float, float] | None
    steps: tuple[tuple[str, str], ...]

    @classmethod
    def from_exploration(cls, found: Exploration) -> Self:
        """Take what was measured; candidates without a time or an accuracy are left out."""
        tiers = {
            tier: [
                (one.name, one.seconds, one.accuracy)
                for one in some
                if one.seconds is not None and one.accuracy is not None
            ]
            for tier, some in found.candidates.items()
        }
        points = [_point(ladder) for ladder in found.front]
        steps = () if found.chosen is None else found.chosen.steps
        return cls(
            tiers, [point for point in points if point], _point(found.before),
            _point(found.chosen), steps,
        )  # fmt: skip

    def plot(self) -> Any:
        """Draw; returns the figure.

        Raises:
            MissingExtra: it needs the extra ``plot``.
        """
        figure = new_figure(_SIZE)
        axes = figure.subplots()
        for tier, some in self.tiers.items():
            if not some:
                continue
            times = [time * 1e6 for _, time, _ in some]
            right = [100 * share for _, _, share in some]
            dots = axes.plot(times, right, "o", ms=5, label=tier)
            for name, time, share in some:
                if (tier, name) in self.steps:
                    axes.plot(time * 1e6, 100 * share, "o", ms=12, mfc="none",
                              color=dots[0].get_color())  # fmt: skip
        if self.front:
            x, y = zip(*sorted(self.front), strict=True)
            axes.plot([t * 1e6 for t in x], [100 * a for a in y], ".-", color="0.5", lw=1,
                      label="cascades: the front, where chosen")  # fmt: skip
        for point, mark, label in (
            (self.before, "s", "as it is, on fresh rows"),
            (self.chosen, "*", "chosen, on fresh rows"),
        ):
            if point is not None:
                axes.plot(point[0] * 1e6, 100 * point[1], mark, ms=13, mec="white", label=label)
        axes.set(xscale="log", xlabel="mean latency of the models, µs", ylabel="accuracy, %")
        axes.set_title("Every candidate (circled: in the chosen ladder), and whole cascades")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        return figure

    def save(self, path: str | Path) -> None:
        """Draw into a file.

        Raises:
            MissingExtra: it needs the extra ``plot``.
        """
        self.plot().savefig(path, dpi=_DPI)


def check_plot(path: str | Path) -> Path:
    """Refuse a file that no plot can be saved to, before anything is measured for it.

    Returns the file; without an ending it is PNG.

    Raises:
        InputValueError: Matplotlib has no such format.
        MissingExtra: it needs the extra ``plot``.
    """
    known = sorted(new_figure(_SIZE).canvas.get_supported_filetypes())
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind and kind not in known:
        raise InputValueError(f"{path}: no plot can be saved as {kind!r}; {nearest(kind, known)}")
    return Path(path) if kind else Path(f"{path}.png")


def _point(ladder: Ladder | None) -> tuple[float, float] | None:
    if ladder is None or ladder.accuracy is None:
        return None
    return ladder.seconds, ladder.accuracy
