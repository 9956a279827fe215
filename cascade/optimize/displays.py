"""Plots of what was measured, after scikit-learn's Display convention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs

from cascade.fitting.displays import new_figure

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.optimize.profiling import PolicyProfile

__all__ = ["ProfileDisplay"]

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
