"""The demo's two plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.fitting.displays import new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cascade.demo.result import Run
    from cascade.demo.serve import Served

__all__ = ["save"]

_SIZE = (7.2, 4.2)
_DPI = 130
_LINES = "lines: computed from each tier alone"
_MARKS = (
    ("always_small", "s", 8, "tab:blue", "always small"),
    ("always_large", "D", 8, "tab:orange", "always large"),
    ("cascade", "*", 17, "tab:green", "cascade, at the certified point"),
    ("cascade_cached", "P", 9, "tab:purple", "the same with its cache"),
    ("oracle", "^", 9, "tab:red", "oracle"),
)


def save(
    folder: Path, curve: Sequence[tuple[float, float]], certified: int, runs: dict[str, Run],
    served: dict[str, Served],
) -> list[Path]:  # fmt: skip
    """Write ``accuracy.png`` and ``latency.png``; returns their paths.

    ``curve`` holds (mean seconds, accuracy) along the certificate's path; ``certified`` is the
    index of the point in force.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    first, second = (new_figure(_SIZE, "demo") for _ in range(2))
    _accuracy(first.subplots(), curve, certified, runs)
    _latency(second.subplots(), served)
    paths = [folder / "accuracy.png", folder / "latency.png"]
    for figure, path in zip((first, second), paths, strict=True):
        figure.savefig(path, dpi=_DPI)
    return paths


def _accuracy(
    axes: Any, curve: Sequence[tuple[float, float]], certified: int, runs: dict[str, Run]
) -> None:
    x, y = np.array(curve).T * [[1e6], [100]]
    axes.plot(x, y, color="0.7", lw=1.2, marker=".", ms=4, label="tested, not certified")
    kept = slice(certified + 1)
    axes.plot(x[kept], y[kept], color="tab:green", lw=1.8, marker=".", ms=5, label="certified")
    for name, marker, size, color, label in _MARKS:
        run = runs[name]
        axes.plot(
            run.mean * 1e6, run.accuracy * 100, marker=marker, ms=size, color=color, ls="none",
            label=label, mec="white", zorder=4,
        )  # fmt: skip
    _microseconds(axes, "mean latency per request, µs (log scale)")
    axes.set_ylabel("accuracy on the held-out stream, %")
    axes.set_title("Accuracy against mean latency")
    axes.legend(loc="lower right", fontsize=8, title=_LINES, title_fontsize=8)


def _latency(axes: Any, served: dict[str, Served]) -> None:
    for name, contender in served.items():
        times = np.sort(contender.seconds) * 1e6
        share = np.arange(1, len(times) + 1) / len(times) * 100
        whole = name.startswith("cascade")
        axes.plot(
            times, share, lw=2.2 if whole else 1.2, ls="-" if whole else "--",
            label=name.replace("_", " "),
        )  # fmt: skip
    _microseconds(axes, "latency of a request, µs (log scale)")
    axes.set_ylabel("requests answered within, %")
    axes.set_title("Latency: the tiers alone (dashed) and the cascade")
    axes.set_ylim(0, 101)
    axes.legend(loc="upper left", fontsize=8)


def _microseconds(axes: Any, label: str) -> None:
    """A log axis with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
