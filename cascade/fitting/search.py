"""Which ladder, score and loss: chosen by looking at the learning part, and at nothing else."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.fitting.betting import betting_p_values
from cascade.fitting.by_label import cross_fitted, fit_by_label
from cascade.fitting.certify import TestedPath, certified_prefix, fixed_sequence_test, walk
from cascade.fitting.entry import Entry, fit_entry
from cascade.fitting.learned import cross_fitted_score, fit_learned
from cascade.fitting.paths import learned_path, midpoints
from cascade.types import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from cascade.calibration import Calibration
    from cascade.fitting.recording import Recording

    Floats = npt.NDArray[np.float64]

__all__ = ["Candidate", "Judged", "Rows", "Search", "candidates", "path_of", "run_test"]

_CALIBRATED = ("by_label", "learned")  # scores that look at more than the confidence
_NET_POINTS = 120  # of a path for the net loss
_ADAPTIVE_WORTH = 0.02  # of the top tier's cost: what an adaptive promise may cost
_WORTH = 0.005  # of the cost: what an entry rule must save at least,
_ENTRY = 0.2  # and this share of what another choice would have to
_FEW = 0.5  # a choice must gain this share of the top tier's cost, over the root of the rows


@attrs.frozen
class Candidate:
    """A ladder (places of its tiers in the recording), a score and a loss."""

    tiers: tuple[int, ...]
    score: str
    loss: str
    asked: str = "auto"

    @property
    def covers(self) -> str:
        """What the promise covers: moving among points loses what the net loss gains."""
        if self.asked != "auto":
            return self.asked
        return "fixed_point" if self.loss == "net" else "adaptive"


@attrs.frozen(eq=False)
class Rows:
    """n rows as the test sees them; K tiers of the whole recording.

    ``right`` (n, K) is None where no truth is known, then ``agrees`` (n, K) stands in for it.
    """

    recording: Recording
    right: npt.NDArray[Any] | None
    agrees: npt.NDArray[np.bool_] | None

    def take(self, rows: Any) -> Rows:
        """Return these rows."""
        return Rows(
            self.recording.take(rows),
            None if self.right is None else self.right[rows],
            None if self.agrees is None else self.agrees[rows],
        )

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.recording.n

    @property
    def graded(self) -> bool:
        """Whether answers are graded, and not right or wrong."""
        return self.right is not None and bool(((self.right != 0) & (self.right != 1)).any())

    def losses(self, tiers: Sequence[int], loss: str) -> npt.NDArray[Any]:
        """Return (n, len(tiers) - 1): what is lost when a tier below the top answers."""
        *below, top = tiers
        if loss == "disagreement":
            assert self.agrees is not None  # noqa: S101  the driver sees to it
            return ~self.agrees[:, below]
        assert self.right is not None  # noqa: S101  the driver sees to it
        mine, best = self.right[:, below], self.right[:, [top]]
        if loss == "gross":
            return np.asarray((best > 0.5) & (mine <= 0.5), dtype=np.bool_)
        if self.right.dtype == np.bool_:
            return best.astype(np.int8) - mine.astype(np.int8)
        return np.asarray(best - mine, dtype=np.float64)

    def raw_scores(self, tiers: Sequence[int], score: str) -> Floats | None:
        """Return (n, len(tiers) - 1): confidences or margins; None where they were not recorded."""
        field = "margin" if score == "margin" else "confidence"
        columns = [getattr(self.recording.tiers[tier], field) for tier in tiers[:-1]]
        if any(column is None for column in columns):
            return None
        return np.column_stack(columns)

    def _answers(self, candidate: Candidate) -> Iterator[tuple[int, Any, Any, Floats]]:
        """Yield place, values, confidences and losses of each tier below the top."""
        losses = self.losses(candidate.tiers, candidate.loss)
        for at, tier in enumerate(candidate.tiers[:-1]):
            held, n = self.recording.tiers[tier], self.n
            values = np.zeros(n) if held.value is None else held.value
            sure = np.full(n, 0.5) if held.confidence is None else held.confidence
            yield tier, values, sure, losses[:, at].astype(np.float64)

    def tables(self, candidate: Candidate) -> dict[int, Calibration]:
        """Fit the calibrations of a candidate that looks at more than the confidence."""
        if candidate.score == "by_label":
            return {tier: fit_by_label(*seen) for tier, *seen in self._answers(candidate)}
        if candidate.score == "learned":
            shown = self.recording.shown
            return {
                tier: fit_learned(values, sure, lost, shown)
                for tier, values, sure, lost in self._answers(candidate)
            }
        return {}

    def scores(self, candidate: Candidate, tables: Mapping[int, Calibration]) -> Floats:
        """Return (n, len(tiers) - 1): the scores that a candidate's thresholds are for."""
        if candidate.score in _CALIBRATED:
            seen, shown = self._answers(candidate), self.recording.shown
            return np.column_stack([tables[tier].rows(v, c, shown) for tier, v, c, _ in seen])
        raw = self.raw_scores(candidate.tiers, candidate.score)
        assert raw is not None  # noqa: S101  a candidate's scores were recorded
        return raw

    def fair_scores(self, candidate: Candidate) -> Floats:
        """Return the scores of these rows by tables that did not see them."""
        if candidate.score == "by_label":
            return np.column_stack([cross_fitted(*seen) for _, *seen in self._answers(candidate)])
        if candidate.score == "learned":
            shown = self.recording.shown
            seen = self._answers(candidate)
            return np.column_stack(
                [cross_fitted_score(v, c, lost, shown) for _, v, c, lost in seen]
            )
        return self.scores(candidate, {})


@attrs.frozen
class Judged:
    """A candidate with the cost per request that it may be expected to reach."""

    candidate: Candidate
    cost: float


def candidates(
    rows: Rows, ladders: str, scores: Sequence[str], losses: Sequence[str], covers: str = "auto"
) -> list[Candidate]:
    """List what can be tried; ``ladders`` is "all" for every subset that keeps the top tier.

    With more than two tiers the signed loss is tried on ladders of two: where tiers follow one
    another its path is not the gross loss's.
    """
    k = len(rows.recording.tiers)
    sizes = range(1, k) if ladders == "all" else [k - 1]
    found = []
    for tiers in (part for size in sizes for part in combinations(range(k - 1), size)):
        for score in scores:
            if not _recorded(rows, tiers, score):
                continue
            found += [
                Candidate((*tiers, k - 1), score, loss, covers)
                for loss in losses
                if loss != "net" or len(tiers) == 1 or len(losses) == 1
            ]
    return found


def _recorded(rows: Rows, below: Sequence[int], score: str) -> bool:
    tiers = [rows.recording.tiers[tier] for tier in below]
    if score == "learned":  # what the input shows may do without a confidence
        return bool(rows.recording.shown) or all(t.confidence is not None for t in tiers)
    if score in _CALIBRATED:
        return all(t.confidence is not None and t.value is not None for t in tiers)
    return rows.raw_scores((*below, -1), score) is not None


def path_of(
    candidate: Candidate, scores: Floats, losses: npt.NDArray[Any], costs: Floats, max_loss: float,
    alpha: float,
) -> Floats:  # fmt: skip
    """Return the path (P, K-1) to test, learned from rows that the test does not see."""
    price = costs[list(candidate.tiers)]
    if scores.shape[1] > 1:
        return learned_path(scores, losses > 0, price.tolist(), max_loss, alpha)
    grid = midpoints(scores[:, 0])
    if candidate.loss == "net" and len(grid) > _NET_POINTS:
        ranked = np.sort(scores[:, 0])[::-1]
        wanted = ranked[np.linspace(0, len(ranked) - 1, _NET_POINTS).astype(np.intp)]
        grid = np.r_[NEVER, np.unique(grid[np.searchsorted(-grid, -wanted)])[::-1]]
        grid = np.unique(np.r_[grid, 0.0])[::-1]
    return grid[:, None]


def run_test(
    candidate: Candidate, path: Floats, scores: Floats, losses: npt.NDArray[Any], max_loss: float,
    alpha: float,
) -> TestedPath:  # fmt: skip
    """Test a path in its order, by the exact binomial test or by betting."""
    if candidate.loss != "net":
        return fixed_sequence_test(
            path, scores, losses, max_loss=max_loss, alpha=alpha, covers=candidate.covers
        )
    along = np.empty((len(losses), len(path)), losses.dtype)
    calls = np.empty((len(path), path.shape[1] + 1))
    for at, (lost, shares) in enumerate(walk(path, scores, losses)):
        along[:, at], calls[at] = lost, shares
    if candidate.covers == "adaptive":  # at worst a request moves to where it is lost
        along = np.maximum.accumulate(along, axis=1)
    p_values = betting_p_values(along, max_loss)
    p_values[0] = 0.0  # 'always escalate' loses nothing by construction
    return TestedPath(
        len(losses), max_loss, alpha, candidate.covers, path,
        along.sum(axis=0, dtype=np.float64), p_values, calls, certified_prefix(p_values, alpha),
    )  # fmt: skip


@attrs.frozen(eq=False)
class Search:
    """Judges candidates on the learning part, as if tested on ``tested`` times as many rows."""

    rows: Rows
    costs: Floats
    max_loss: float
    alpha: float
    tested: float
    progress: Callable[[str, float], None] | None = None

    def choose(self, given: Sequence[Candidate]) -> tuple[Candidate, list[Judged]]:
        """Return the best candidate, and all of them by the cost expected.

        The plainest (fewest tiers, plain score, adaptive promise) is kept unless another gains
        enough: half a standard unit (1 over the root of the rows) of the top tier's cost, and two
        points of it for giving up the adaptive promise.
        """
        judged = []
        for at, candidate in enumerate(given):
            if self.progress is not None:
                self.progress(f"judging {len(given)} candidates", at / len(given))
            judged.append(Judged(candidate, self._expected(candidate)[0]))

        def price(one: Judged) -> Any:
            kind = one.candidate
            handicap = (len(kind.tiers) - 2 + (kind.score != "plain")) * self._step
            return (
                one.cost
                + handicap
                + _ADAPTIVE_WORTH * self.costs[-1] * (kind.loss == "net" and kind.asked == "auto")
            )

        best: Candidate = min(judged, key=price).candidate
        return best, sorted(judged, key=lambda one: one.cost)

    @property
    def _step(self) -> float:
        return float(_FEW * self.costs[-1] / np.sqrt(self.rows.n))

    def _expected(self, candidate: Candidate) -> tuple[float, Floats, Floats]:
        """Return the cost that may be expected, the scores (n, K-1) and the thresholds for it."""
        losses = self.rows.losses(candidate.tiers, candidate.loss)
        scores = self.rows.fair_scores(candidate)
        path = path_of(candidate, scores, losses, self.costs, self.max_loss, self.alpha)
        tile = np.tile(np.arange(self.rows.n), int(np.ceil(self.tested)))
        size = tile[: round(self.rows.n * self.tested)]
        found = run_test(candidate, path, scores[size], losses[size], self.max_loss, self.alpha)
        reached = found.calls[: found.certified] @ self.costs[list(candidate.tiers)]
        return float(reached.min()), scores, path[int(reached.argmin())]

    def entry(self, candidate: Candidate) -> Entry | None:
        """Fit an entry rule for a candidate; None where it would not lower the cost enough.

        A row whose first answer would be turned down is spared the first call; one whose answer
        would have done pays for the tiers above.
        """
        features = self.rows.recording.shown
        if not features:
            return None
        cost, scores, thresholds = self._expected(candidate)
        wasted = ~(scores[:, 0] >= thresholds[0])
        made = fit_entry(features, wasted)
        if made is None or thresholds[0] > 1.0:
            return None
        rule, fair = made
        first = self.costs[candidate.tiers[0]]
        beyond = (cost - first) / max(float(wasted.mean()), 1e-9)  # of a row that escalates
        order = np.argsort(-fair)
        gain = np.where(wasted[order], first, -beyond).cumsum() / self.rows.n
        best = int(gain.argmax())
        if gain[best] < max(self._step * _ENTRY, _WORTH * cost) or best + 1 == self.rows.n:
            return None
        cut = float(f"{(fair[order[best]] + fair[order[best + 1]]) / 2:.6g}")
        return Entry(rule, cut, float(gain[best]))
