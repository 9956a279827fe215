"""The demo's two plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cascade.demo.result import Run
    from cascade.demo.serve import Served

__all__ = ["save"]

_SIZE = (7.2, 4.2)
_DPI = 130


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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra.for_extra("plot", "matplotlib") from error
    first = Figure(figsize=_SIZE, layout="constrained")
    _accuracy(first.subplots(), curve, certified, runs)
    second = Figure(figsize=_SIZE, layout="constrained")
    _latency(second.subplots(), served)
    paths = [folder / "accuracy.png", folder / "latency.png"]
    for figure, path in zip((first, second), paths, strict=True):
        figure.savefig(path, dpi=_DPI)
    return paths


def _accuracy(
    axes: Any, curve: Sequence[tuple[float, float]], certified: int, runs: dict[str, Run]
) -> None:
    x, y = np.array(curve).T
    axes.plot(x * 1e6, y * 100, color="0.6", lw=1.2, marker=".", ms=4, label="tested points")
    axes.plot(
        x[certified] * 1e6, y[certified] * 100, marker="*", ms=16, color="tab:green", ls="none",
        label="certified point in force", zorder=4,
    )  # fmt: skip
    styles = {"always_small": "s", "always_large": "D", "cascade_cached": "P", "oracle": "^"}
    for name, marker in styles.items():
        run = runs[name]
        axes.plot(
            run.mean * 1e6, run.accuracy * 100, marker=marker, ms=8, ls="none",
            label=name.replace("_", " "),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("mean latency per request, µs (log scale)")
    axes.set_ylabel("accuracy on the held-out stream, %")
    axes.set_title("Accuracy against mean latency")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=8)


def _latency(axes: Any, served: dict[str, Served]) -> None:
    for name, contender in served.items():
        times = np.sort(contender.seconds) * 1e6
        share = np.arange(1, len(times) + 1) / len(times) * 100
        whole = name.startswith("cascade")
        axes.plot(
            times, share, lw=2.2 if whole else 1.2, ls="-" if whole else "--",
            label=name.replace("_", " "),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("latency of a request, µs (log scale)")
    axes.set_ylabel("requests answered within, %")
    axes.set_title("Latency: the tiers alone (dashed) and the cascade")
    axes.set_ylim(0, 101)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=8)
