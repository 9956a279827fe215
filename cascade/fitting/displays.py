"""Plots, after scikit-learn's Display convention: computed once, drawn by ``plot(ax=)``.

Matplotlib is imported when something is drawn, and no window is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from cascade.errors import MissingExtra
from cascade.fitting.paths import midpoints, oracle_cost
from cascade.fitting.recording import Recording

if TYPE_CHECKING:
    import numpy.typing as npt

    from cascade.fitting.recording import Costs
    from cascade.fitting.result import Fit
    from cascade.policy import Certificate

    Floats = npt.NDArray[np.float64]

__all__ = ["CostLossDisplay", "ReliabilityDisplay", "RiskCoverageDisplay", "new_figure"]

_SIZE = (6.4, 4.0)
_BINS = 10
_CURVE = 200  # points of a curve


def new_figure(size: tuple[float, float], extra: str = "plot") -> Any:
    """Return an empty figure of this size in inches; no window is opened.

    Raises:
        MissingExtra: Matplotlib is not installed; it comes with ``extra``.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra.for_extra(extra, "matplotlib") from error
    return Figure(figsize=size, layout="constrained")


def _axes(ax: Any) -> Any:
    return new_figure(_SIZE).subplots() if ax is None else ax


class _Drawn:
    """What ``plot`` leaves behind: the axes and their figure."""

    ax_: Any = None
    figure_: Any = None

    def _keep(self, ax: Any) -> Self:
        self.ax_, self.figure_ = ax, ax.figure
        return self


@attrs.define(eq=False, slots=False)
class RiskCoverageDisplay(_Drawn):
    """Loss against coverage along a certificate's path, its certified prefix shaded.

    ``coverage`` (P,) is the share of rows answered below the top tier, ``loss`` (P,) the share of
    rows lost on the test.

    >>> from cascade import Certificate
    >>> proof = Certificate(
    ...     max_loss=0.01,
    ...     alpha=0.1,
    ...     loss="gross",
    ...     covers="adaptive",
    ...     n=500,
    ...     tiers=("a", "b"),
    ...     certified=1,
    ...     path=[{"thresholds": [2.0], "losses": 0, "p_value": 0.0, "escalation": [0.0, 1.0]}],
    ... )
    >>> RiskCoverageDisplay.from_certificate(proof).coverage.tolist()
    [0.0]
    """

    coverage: Floats
    loss: Floats
    certified: int
    max_loss: float
    alpha: float
    name: str

    @classmethod
    def from_certificate(cls, certificate: Certificate) -> Self:
        """Take the path of a certificate."""
        path = certificate.path
        return cls(
            np.array([1.0 - point.escalation[-1] for point in path]),
            np.array([point.losses / certificate.n for point in path]),
            certificate.certified,
            certificate.max_loss,
            certificate.alpha,
            certificate.loss,
        )

    def plot(self, ax: Any = None) -> Self:
        """Draw on ``ax``, or on a new figure; in percent."""
        ax = _axes(ax)
        here = self.certified - 1
        ax.axvspan(0.0, 100 * self.coverage[here], color="tab:green", alpha=0.12, lw=0,
                   label="certified")  # fmt: skip
        ax.plot(100 * self.coverage, 100 * self.loss, color="tab:blue", label="counted on the test")
        ax.axhline(100 * self.max_loss, color="tab:red", ls="--", lw=1,
                   label=f"bound, {self.max_loss:.2g}")  # fmt: skip
        ax.plot(100 * self.coverage[here], 100 * self.loss[here], "*", ms=15, color="tab:green",
                label="cheapest certified point")  # fmt: skip
        ax.set_xlabel("answered below the top tier, % of rows")
        ax.set_xlim(0, 100)
        ax.set_ylabel(f"{self.name} loss, % of rows")
        ax.set_ylim(min(-0.1, 110 * self.loss.min()), max(3 * self.max_loss, self.loss[here]) * 100)
        ax.set_title(f"Loss at most {self.max_loss:.2%} with confidence {1 - self.alpha:.0%}")
        ax.legend(loc="upper left", fontsize="small")
        return self._keep(ax)


@attrs.define(eq=False, slots=False)
class CostLossDisplay(_Drawn):
    """Cost against loss of accuracy: each tier alone, the plain threshold, the oracle, and a fit.

    ``curve`` (P, 2) holds cost and loss of the first tier's plain threshold against the top tier;
    ``marks`` name single points.

    >>> table = {"a.correct": [1, 0], "a.confidence": [0.9, 0.2], "b.correct": [1, 1]}
    >>> CostLossDisplay.from_recording(table, costs=[1, 10]).marks["b alone"]
    (10.0, 0.0)
    """

    curve: Floats
    marks: dict[str, tuple[float, float]]

    @classmethod
    def from_recording(
        cls, recording: Any, fit: Fit | None = None, *, costs: Costs | None = None
    ) -> Self:
        """Compute the baselines from a recording with truth; ``fit`` adds its certified point."""
        held = Recording.of(recording)
        prices = np.asarray(fit.costs) if fit is not None else held.costs(costs)
        right = held.right()
        if right is None:
            raise ValueError("cost against loss needs the truth")
        good = right.astype(np.float64)
        accuracy = good.mean(axis=0)
        marks = {
            f"{name} alone": (float(price), float(accuracy[-1] - own))
            for name, price, own in zip(held.names, prices, accuracy, strict=True)
        }
        marks["oracle"] = (oracle_cost(good > 0.5, prices), 0.0)
        sure = held.tiers[0].confidence
        curve = np.zeros((0, 2))
        if sure is not None:
            curve = _threshold_curve(sure, good[:, -1] - good[:, 0], prices)
        if fit is not None:
            from cascade.simulation import replay

            found = replay(fit.policy, held, costs=prices[[held.names.index(n) for n in
                           fit.certificate.tiers]].tolist())  # fmt: skip
            marks["certified"] = (fit.cost, found.loss)
        return cls(curve, marks)

    def plot(self, ax: Any = None) -> Self:
        """Draw on ``ax``, or on a new figure; loss in points of accuracy."""
        ax = _axes(ax)
        ax.plot(self.curve[:, 0], 100 * self.curve[:, 1], color="grey", lw=1, zorder=1,
                label="plain threshold on the first tier")  # fmt: skip
        for name, (cost, loss) in self.marks.items():
            style = {"certified": ("*", 17, "black"), "oracle": ("^", 9, "grey")}
            marker, size, color = style.get(name, ("o", 7, None))
            ax.plot(cost, 100 * loss, marker, ms=size, color=color, label=name)
        ax.axhline(0.0, color="black", lw=0.5)
        ax.set_xlabel("cost of a request")
        ax.set_ylabel("accuracy below the top tier's, points")
        ax.set_title("Cost against loss: down and left is better")
        ax.legend(fontsize="small")
        return self._keep(ax)


def _threshold_curve(sure: Floats, loss: Floats, prices: Floats) -> Floats:
    order = np.argsort(-sure)
    running = np.r_[0.0, np.cumsum(loss[order])] / len(sure)
    grid = midpoints(sure)
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, _CURVE).astype(np.intp))]
    accepted = len(sure) - np.searchsorted(sure[order][::-1], grid)
    first = np.where(grid > 1.0, 0.0, prices[0])
    return np.column_stack([first + (1 - accepted / len(sure)) * prices[-1], running[accepted]])


@attrs.define(eq=False, slots=False)
class ReliabilityDisplay(_Drawn):
    """Accuracy against confidence, in bins of equally many rows, for each tier that has both.

    >>> table = {"a.correct": [1, 0], "a.confidence": [0.9, 0.2], "b.correct": [1, 1]}
    >>> bins = ReliabilityDisplay.from_recording(table).bins["a"]
    >>> bins.tolist()
    [[0.2, 0.0], [0.9, 1.0]]
    """

    bins: dict[str, Floats]

    @classmethod
    def from_recording(cls, recording: Any) -> Self:
        """Compute the bins (m, 2) of mean confidence and accuracy from a recording with truth."""
        held = Recording.of(recording)
        right = held.right()
        if right is None:
            raise ValueError("reliability needs the truth")
        found = {}
        for place, tier in enumerate(held.tiers):
            if tier.confidence is not None:
                order = np.argsort(tier.confidence, kind="stable")
                parts = [part for part in np.array_split(order, _BINS) if len(part)]
                found[tier.name] = np.array(
                    [(tier.confidence[p].mean(), right[p, place].mean()) for p in parts]
                )
        return cls(found)

    def plot(self, ax: Any = None) -> Self:
        """Draw on ``ax``, or on a new figure."""
        ax = _axes(ax)
        ax.plot([0, 1], [0, 1], color="black", lw=0.5, ls=":", label="honest")
        for name, bins in self.bins.items():
            ax.plot(bins[:, 0], bins[:, 1], "o-", ms=4, label=name)
        ax.set_xlabel("mean confidence of a tenth of the rows")
        ax.set_ylabel("share of them that is right")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.02)
        ax.set_title("Reliability: above the line is too modest, below too sure")
        ax.legend(fontsize="small")
        return self._keep(ax)
