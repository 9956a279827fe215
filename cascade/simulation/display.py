"""A simulation over time: what came, how busy the tiers were, what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from cascade.fitting.displays import new_figure

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from cascade.simulation.simulating import Simulation

    Floats = npt.NDArray[np.float64]

__all__ = ["LoadDisplay"]

_BINS = 120
_SIZE = (8.0, 7.0)


@attrs.define(eq=False, slots=False)
class LoadDisplay:
    """Columns over ``time`` (bins,), in seconds: ``arrivals`` per second; per tier the ``busy``
    share of its workers; the shares of the requests of that moment that were answered by the top
    tier, ``forced``, or not at all (``lost``); ``slowest``, their latency at p99 in seconds;
    ``point``, the mean index of the operating point (0 is the strictest).

    >>> display = LoadDisplay(
    ...     *(np.zeros(2) for _ in range(2)), {"a": np.zeros(2)}, *(np.zeros(2) for _ in range(5))
    ... )
    >>> sorted(display.busy)
    ['a']
    """  # noqa: D205  a summary of seven columns

    time: Floats
    arrivals: Floats
    busy: dict[str, Floats]
    top: Floats
    forced: Floats
    lost: Floats
    slowest: Floats
    point: Floats

    @classmethod
    def from_simulation(cls, found: Simulation) -> Self:
        """Bin a simulation's log."""
        log, when = found.log, found.arrivals
        assert log is not None  # noqa: S101  every simulation keeps its own
        assert when is not None  # noqa: S101
        end = max(float(when.times[-1]), log.ended / 1e9, 1e-9)
        edges = np.linspace(0.0, end, _BINS + 1)
        width = edges[1]
        bins = np.minimum((when.times / width).astype(int), _BINS - 1)
        count = np.bincount(bins, minlength=_BINS)
        share = np.maximum(count, 1)
        unanswered = log.latency < 0
        forced = np.array([e is not None and str(e.disposition) == "degraded" for e in log.ends])
        top = log.rank == len(found.calls) - 1

        def shares(flags: npt.NDArray[Any]) -> Floats:
            return np.bincount(bins, weights=flags, minlength=_BINS) / share

        slowest = np.full(_BINS, np.nan)
        for at in range(_BINS):
            taken = log.latency[(bins == at) & ~unanswered]
            if len(taken):
                slowest[at] = np.quantile(taken, 0.99) / 1e9
        busy = {
            name: log.busy_share(tier, edges) / found.workers[name]
            for tier, name in enumerate(found.calls)
        }
        return cls(
            (edges[1:] + edges[:-1]) / 2, count / width, busy,
            shares(top), shares(forced), shares(unanswered), slowest,
            np.where(count > 0, shares(log.points), np.nan),
        )  # fmt: skip

    def plot(self) -> Any:
        """Draw four panels under each other, five where the point moves; returns the figure.

        Raises:
            MissingExtra: it needs the extra ``plot``.
        """
        seen = self.point[np.isfinite(self.point)]
        moves = len(seen) > 0 and float(np.ptp(seen)) > 0
        figure = new_figure(_SIZE)
        came, busy, shares, slow, *more = figure.subplots(5 if moves else 4, sharex=True)
        came.plot(self.time, self.arrivals, color="#555")
        came.set_ylabel("arrivals / s")
        for name, column in self.busy.items():
            busy.plot(self.time, column, label=name)
        busy.set(ylabel="utilisation", ylim=(-0.02, 1.02))
        busy.legend(loc="upper right", fontsize="small")
        parts = {"top tier": self.top, "forced": self.forced, "no answer": self.lost}
        shares.stackplot(
            self.time, *parts.values(), labels=[*parts], colors=["#4c78a8", "#f2b447", "#c44"]
        )
        shares.set(ylabel="share of requests", ylim=(0, 1))
        shares.legend(loc="upper right", fontsize="small")
        slow.plot(self.time, self.slowest * 1e3, ".", color="#4c78a8", markersize=4)
        slow.set(ylabel="p99, ms", ylim=(0, None))
        for panel in more:
            panel.plot(self.time, self.point, ".", color="#555", markersize=4)
            panel.set(ylabel="point")
            panel.invert_yaxis()  # stricter is up
        (more or [slow])[-1].set_xlabel("time, s")
        return figure

    def save(self, path: str | Path) -> None:
        """Draw into a file.

        Raises:
            MissingExtra: it needs the extra ``plot``.
        """
        self.plot().savefig(path, dpi=120)
