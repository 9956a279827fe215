"""``cascade.fit``: from a recording to a policy with a certificate."""

from __future__ import annotations

import datetime as dt
import math
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

import cascade
from cascade.errors import CannotCertify, RecordingError
from cascade.fitting.certify import TestedPath, cannot_certify, certificate_of
from cascade.fitting.paths import oracle_cost, two_tier_path
from cascade.fitting.pvalues import rows_needed
from cascade.fitting.recording import Recording
from cascade.fitting.same import same_as
from cascade.fitting.search import Rows, Search, candidates, path_of, run_test
from cascade.fitting.split import LEARN_SHARE, learn_and_test, seed_of
from cascade.policy import ConfidenceSettings, Escalation, ExternalSpec, Policy
from cascade.policy.digest import entry_digest, tier_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from cascade.calibration import Calibration
    from cascade.fitting.entry import Entry
    from cascade.fitting.recording import Costs
    from cascade.fitting.search import Candidate, Judged
    from cascade.policy import Certificate

__all__ = ["Fit", "fit"]

LOSSES = ("auto", "gross", "net", "disagreement")
SCORE_CHOICES = ("auto", "plain", "margin", "by_label", "learned")
_FEW_LOSSES = 30  # expected at the bound: with fewer, no row can be spared for choosing by


@attrs.frozen(eq=False)
class Fit:
    """What fitting found: a policy, its certificate, and what they are worth.

    ``cost`` is the mean cost of a request at the cheapest certified point, ``cost_top`` that of
    always asking the top tier, ``cost_oracle`` that of knowing which tier will be right.

    >>> table = {"small.correct": [1] * 299 + [0], "small.confidence": [0.9] * 299 + [0.1]}
    >>> table |= {"large.correct": [1] * 300, "small.cost": [1] * 300, "large.cost": [50] * 300}
    >>> found = fit(table, max_loss=0.02)
    >>> found.thresholds, round(found.saves, 2)
    ((0.0,), 0.98)
    """

    policy: Policy
    certificate: Certificate
    candidate: Candidate
    judged: tuple[Judged, ...]
    recording: Recording
    costs: tuple[float, ...]
    cost: float
    cost_top: float
    cost_oracle: float | None
    accuracy: Mapping[str, float] | None
    entry: Entry | None = None

    def __repr__(self) -> str:
        """Show what is promised and what it costs; ``report()`` says more."""
        cert = self.certificate
        promise = f"max_loss={cert.max_loss}, alpha={cert.alpha}, loss={cert.loss!r}, n={cert.n}"
        costs = f"cost={self.cost:.4g}, cost_top={self.cost_top:.4g}"
        return f"Fit(tiers={cert.tiers}, thresholds={self.thresholds}, {promise}, {costs})"

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds of the cheapest certified point, one per tier below the top."""
        return self.certificate.path[self.certificate.certified - 1].thresholds

    @property
    def saves(self) -> float:
        """The share of the top tier's cost that is saved."""
        return 1.0 - self.cost / self.cost_top

    def report(self) -> str:
        """Say what is promised, what it costs, what it saves, and how far that is from the best."""
        from cascade.fitting.words import fit_report

        return fit_report(self)

    def save(self, folder: str | Path) -> Path:
        """Write policy.yaml, certificate.json and, if there is one, calibration.json.

        Returns the policy's path.
        """
        from cascade.fitting.files import save

        return save(self, folder)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, as ``cascade fit --json`` prints them."""
        cert = self.certificate
        point = cert.path[cert.certified - 1]
        return {
            "certified": True,
            "max_loss": cert.max_loss,
            "alpha": cert.alpha,
            "n": cert.n,
            "losses": point.losses,
            "thresholds": list(point.thresholds),
            "escalation": list(point.escalation),
            "cost": self.cost,
            "cost_top": self.cost_top,
            "cost_oracle": self.cost_oracle,
            "needed": None,
        }


def fit(  # noqa: PLR0913  what may be asked for
    recording: Any, *, tiers: Sequence[str] | None = None, max_loss: float = 0.01,
    alpha: float = 0.1, loss: str = "auto", score: str = "auto", ladder: str = "auto",
    costs: Costs | None = None, same: str | Callable[[Any, Any], bool] | None = None,
    covers: str = "auto", entry: bool = True, complete_only: bool = False, seed: int | None = 0,
    name: str = "fitted", progress: Callable[[str, float], None] | None = None,
) -> Fit:  # fmt: skip
    """Find the cheapest operating points whose loss against the top tier is provably bounded.

    The loss is at most ``max_loss`` with confidence ``1 - alpha`` over the draw of the rows,
    exactly and at every sample size: fixed-sequence testing (Angelopoulos et al., 'Learn then
    Test', arXiv 2110.01052), by binomial p-values, or by betting for the net loss. Whatever is
    chosen by looking is chosen on a third of the rows; the test is on the others. With few rows,
    two tiers and nothing asked for, nothing is chosen, and all rows are tested.

    Args:
        recording: a :class:`cascade.Recording`, the path of one, or its columns.
        tiers: names, cheapest first; all of the recording's when None. The last is the top tier.
        max_loss: the bound, in (0, 1).
        alpha: the risk that it does not hold, in (0, 1).
        loss: ``gross`` (the top tier is right and the cascade wrong), ``net`` (the top tier's
            accuracy minus the cascade's), ``disagreement`` (the answers differ; needs no truth), or
            ``auto``.
        score: ``plain`` confidence, ``margin``, ``by_label`` (label and confidence together),
            ``learned`` (these and what the input shows, by logistic regression), or ``auto``.
        ladder: ``auto`` to leave out tiers that do not pay, or ``all``.
        covers: ``adaptive`` for a promise that covers moving among certified points from request to
            request, ``fixed_point`` for each point by itself; ``auto`` is adaptive but for net.
        costs: of a call per tier, in any unit; else the recording's costs, else its seconds.
        same: when two answers agree: ``casefold``, ``strip``, ``number:1e-6``, ``json``, or a
            function of two values.
        entry: whether an entry rule by what the input shows (``x.*`` columns, or the statistics of
            ``input``) may be fitted; it is kept if it lowers the cost.
        complete_only: leave out rows that lack a tier's value, or the truth that others have.
        seed: of the split; None draws one, and writes it down.
        name: of the policy.
        progress: called now and then with what is being done, and how much of it is.

    Raises:
        CannotCertify: no point holds, and ``.needed`` rows could suffice; or a cascade is
            pointless.
        RecordingError: the recording cannot be used.

    >>> table = {"small.correct": [1] * 299 + [0], "small.confidence": [0.9] * 299 + [0.1]}
    >>> table |= {"large.correct": [1] * 300}
    >>> found = fit(table, max_loss=0.02, costs=[1, 20])
    >>> found.certificate.loss, found.saves > 0.1
    ('gross', True)
    """
    _check(max_loss, alpha, loss=loss, score=score, ladder=ladder, covers=covers)
    seed = seed_of(seed)
    held = Recording.of(recording, complete_only=complete_only)
    held = held if tiers is None else held.select(tiers)
    held.check()
    rows = _rows(held, loss, same_as(same))
    if loss == "auto" and rows.right is not None:
        _worth_it(rows, held.names)
    plan = _Plan(rows, costs, max_loss, alpha, np.random.RandomState(seed), progress)
    return _made(plan, plan.run(loss, score, ladder, covers, entry=entry), seed, name)


_CHOICES = {
    "loss": LOSSES,
    "score": SCORE_CHOICES,
    "ladder": ("auto", "all"),
    "covers": ("auto", "adaptive", "fixed_point"),
}


def _check(max_loss: Any, alpha: Any, **words: str) -> None:
    for key, value in (("max_loss", max_loss), ("alpha", alpha)):
        if not isinstance(value, Real) or not 0.0 < float(value) < 1.0:
            raise ValueError(f"{key}: expected a number between 0 and 1, got {value!r}")
    for key, word in words.items():
        if word not in _CHOICES[key]:
            raise ValueError(f"{key}: expected one of {', '.join(_CHOICES[key])}, got {word!r}")


def _rows(held: Recording, loss: str, same: Any) -> Rows:
    right = held.right(same)
    if right is None and loss in {"gross", "net"}:
        raise RecordingError(
            f"{held.source}: the {loss} loss needs truth (or .correct for every tier); without it "
            "use loss='disagreement'"
        )
    agrees = held.agrees(same) if right is None or loss == "disagreement" else None
    rows = Rows(held, right, agrees)
    if loss == "gross" and rows.graded:
        raise RecordingError(
            f"{held.source}: the gross loss needs what is right or wrong, and .quality is graded; "
            "use loss='net'"
        )
    return rows


def _worth_it(rows: Rows, names: Sequence[str]) -> None:
    """Refuse a top tier that the first one beats: a cascade against it is pointless."""
    assert rows.right is not None  # noqa: S101  the caller has looked
    accuracy = rows.right.mean(axis=0)
    if accuracy[:-1].max() >= accuracy[-1]:
        best = int(accuracy[:-1].argmax())
        raise CannotCertify(
            f"a cascade is pointless: the top tier {names[-1]!r} is right on {accuracy[-1]:.2%} of "
            f"the rows, {names[best]!r} on {accuracy[best]:.2%}; serve {names[best]!r} alone"
        )


@attrs.frozen(eq=False)
class _Found:
    """What was chosen and learned, and how it did on the test."""

    kind: Candidate
    tested: TestedPath
    judged: Sequence[Judged] = ()
    tables: Mapping[int, Calibration] = attrs.field(factory=dict)
    entry: Entry | None = None


@attrs.frozen(eq=False)
class _Plan:
    rows: Rows
    given: Costs | None  # what a call costs; None: as it was recorded
    max_loss: float
    alpha: float
    rng: np.random.RandomState
    progress: Callable[[str, float], None] | None

    @cached_property
    def costs(self) -> npt.NDArray[np.float64]:
        """What a call of each tier costs (K,), over all rows: to say what is saved.

        What is chosen goes by the costs of the rows to learn from: a tier that is slow where it is
        wrong would tell the choice about the test.
        """
        return self.rows.recording.costs(self.given)

    def run(self, loss: str, score: str, ladder: str, covers: str, *, entry: bool) -> _Found:
        """Choose, learn and test."""
        truth = "gross" if self.rows.right is not None else "disagreement"
        few = self.rows.n * self.max_loss < _FEW_LOSSES and (loss, score) == ("auto", "auto")
        settled = few or (loss in {"gross", "disagreement"} and score in {"plain", "margin"})
        settled = settled and not self.rows.graded
        if len(self.costs) == 2 and settled:
            kind = candidates(
                self.rows, "all", ["plain" if few else score], [truth if few else loss], covers
            )
            if kind:
                return _Found(kind[0], self._test(kind[0], self.rows, None, {}, None))
        learn, test = (self.rows.take(part) for part in self._split())
        if learn.n < 2:
            raise _too_few(self.rows.n, self.max_loss, self.alpha)
        losses = [loss] if loss != "auto" else ["gross", "net"] if truth == "gross" else [truth]
        if loss == "auto" and self.rows.graded:
            losses = ["net"]
        scores = [score] if score != "auto" else ["plain", "margin", "by_label"]
        if score == "auto" and learn.recording.shown:
            scores.append("learned")  # without features it is by_label with less freedom
        given = candidates(learn, "all" if ladder == "auto" else "full", scores, losses, covers)
        if not given:
            top, first = self.rows.recording.names[-1], self.rows.recording.names[0]
            raise CannotCertify(
                f"do not cascade: no {score if score != 'auto' else 'confidence'} was recorded for "
                f"{first!r}, so nothing says when its answer will do; ask {top!r} alone"
            )
        ratio = test.n / max(learn.n, 1)
        costs = learn.recording.costs(self.given)
        search = Search(learn, costs, self.max_loss, self.alpha, ratio, self.progress)
        chosen, judged = search.choose(given)
        tables = learn.tables(chosen)
        skip = search.entry(chosen) if entry else None
        return _Found(chosen, self._test(chosen, test, learn, tables, skip), judged, tables, skip)

    def _split(self) -> tuple[Any, Any]:
        learn, test = learn_and_test(self.rows.n, self.rng)
        return learn, self.rng.permutation(test)  # betting follows the rows in their order

    def _test(
        self, kind: Candidate, test: Rows, learn: Rows | None, tables: Mapping[int, Calibration],
        entry: Entry | None,
    ) -> TestedPath:  # fmt: skip
        scores, losses = test.scores(kind, tables), test.losses(kind.tiers, kind.loss)
        if entry is not None:
            scores = entry.applied(test.recording, scores)
        if learn is None or (len(kind.tiers) == 2 and kind.loss != "net"):
            path = two_tier_path(scores)  # valid on the same rows: the loss is monotone
        else:
            # A grid of two tiers needs no losses, so it may lie where the final tables put scores.
            nested = len(kind.tiers) == 2
            seen = learn.scores(kind, tables) if nested else learn.fair_scores(kind)
            lost = learn.losses(kind.tiers, kind.loss)
            costs = learn.recording.costs(self.given)
            path = path_of(kind, seen, lost, costs, self.max_loss, self.alpha)
        tested = run_test(kind, path, scores, losses, self.max_loss, self.alpha)
        return tested if entry is None else entry.without_calls(test.recording, tested)


def _too_few(n: int, max_loss: float, alpha: float) -> CannotCertify:
    tested = rows_needed(max_loss, alpha) or 0
    needed = max(6, math.ceil(tested / (1.0 - LEARN_SHARE)))
    return CannotCertify(
        f"{n} rows are too few to choose on a third of them and test on the others; at least "
        f"{needed} are needed even if none is lost",
        needed=needed,
    )


def _made(plan: _Plan, found: _Found, seed: int, name: str) -> Fit:
    kind, tested = found.kind, found.tested
    problem = cannot_certify(tested)
    if problem is not None:
        raise problem
    held = plan.rows.recording
    prices = plan.costs[list(kind.tiers)]
    spent = tested.calls[tested.certified - 1] @ prices
    if spent >= plan.costs[-1]:
        raise CannotCertify(
            f"a cascade is pointless: at the cheapest certified point a request costs {spent:.4g}, "
            f"asking {held.names[-1]!r} alone {plan.costs[-1]:.4g}"
        )
    names = [held.names[tier] for tier in kind.tiers]
    policy = _policy(held, found, name)
    digests = {spec.name: tier_digest(policy, spec) for spec in policy.tiers}
    if found.entry is not None:
        digests["entry"] = entry_digest(policy)
    certificate = certificate_of(
        tested, names, loss=kind.loss, costs=prices.tolist(),
        skip_above=() if found.entry is None else (found.entry.cut,),
        digests={**digests, "data": held.digest},
        seed=seed,
        fractions=None if not found.judged else {"learn": LEARN_SHARE, "test": 1.0 - LEARN_SHARE},
        created=dt.datetime.now(dt.UTC).date().isoformat(),
        versions={"cascade": cascade.__version__},
        note=f"score: {kind.score}; the promise is per row of the recording",
    )  # fmt: skip
    right = plan.rows.right
    return Fit(
        policy.certified(certificate), certificate, kind, tuple(found.judged), held,
        tuple(plan.costs.tolist()), float(spent), float(plan.costs[-1]),
        None if right is None else oracle_cost(right[:, list(kind.tiers)] > 0.5, prices),
        None if right is None else dict(zip(held.names, right.mean(axis=0).tolist(), strict=True)),
        found.entry,
    )  # fmt: skip


def _policy(held: Recording, found: _Found, name: str) -> Policy:
    """Return a policy of external tiers; their versions are those of the recording."""
    kind, tables, entry = found.kind, found.tables, found.entry
    specs, top = [], kind.tiers[-1]
    for tier in kind.tiers:
        calibration = "calibration.json" if tier in tables else None
        specs.append(
            ExternalSpec(
                name=held.names[tier],
                version=f"recorded-{held.digest[:8]}",
                confidence=ConfidenceSettings(
                    score="margin" if kind.score == "margin" and tier != top else "auto",
                    calibration=calibration,
                ),
            )
        )
    return Policy(
        name=name,
        tiers=tuple(specs),
        escalation=Escalation(certificate="certificate.json"),
        complexity=None if entry is None else entry.settings(),
        calibrations={held.names[tier]: table for tier, table in tables.items()},
    )
