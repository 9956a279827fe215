"""Replay: what a policy would have done with the requests of a recording.

The same decision core as when serving, fed with recorded answers in place of lanes. Time stands
still: no deadline is missed and no queue is full.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.binding import expect_policy
from cascade.complexity import estimator
from cascade.decide import Call, Decision, Ladder
from cascade.errors import RecordingError
from cascade.facts import Replied
from cascade.fitting.recording import Recording
from cascade.fitting.same import same_as
from cascade.types import Disposition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from cascade.fitting.recording import Costs
    from cascade.policy import Policy
    from cascade.types import Finish

__all__ = ["Replay", "complexities_of", "confidences_of", "replay", "tier_names"]


@attrs.frozen(eq=False)
class Replay:
    """What a policy would have done: shares and means over n rows, and the decision per row.

    ``accuracy`` and ``loss`` (the top tier's accuracy minus the cascade's) rest on the truth, or on
    agreement with the top tier where there is none; a row without an answer is not right, an
    abstention too. ``calls`` is the share of rows that call each tier; ``uncovered`` the share of
    answers that no promise covers.

    >>> sums = {"calls": {"a": 1.0}, "dispositions": {"accepted": 1}, "tiers": ("a",)}
    >>> Replay(
    ...     n=1,
    ...     accuracy=1.0,
    ...     accuracy_top=1.0,
    ...     loss=0.0,
    ...     mean_cost=None,
    ...     mean_seconds=None,
    ...     uncovered=0.0,
    ...     ends=("accepted",),
    ...     **sums,
    ... ).to_dict()["calls"]
    {'a': 1.0}
    """

    n: int
    accuracy: float
    accuracy_top: float
    loss: float
    calls: Mapping[str, float]
    mean_cost: float | None
    mean_seconds: float | None
    dispositions: Mapping[str, int]
    uncovered: float
    tiers: tuple[str | None, ...] = attrs.field(repr=False)  # one per row
    ends: tuple[str, ...] = attrs.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, as ``cascade replay --json`` prints them."""
        skipped = {"tiers", "ends"}
        return attrs.asdict(self, filter=lambda field, _: field.name not in skipped)


def replay(
    policy: Policy, recording: Any, *, costs: Costs | None = None,
    same: str | Callable[[Any, Any], bool] | None = None, complete_only: bool = False,
) -> Replay:  # fmt: skip
    """Run the rows of a recording through a policy's decisions.

    The policy's tiers are found in the recording by name; it opens no model. ``costs``, ``same``
    and ``complete_only`` are as for :func:`cascade.fit`.

    Raises:
        RecordingError: the recording cannot be used, or lacks what the policy decides by.

    >>> from cascade import Policy
    >>> policy = Policy.from_dict(
    ...     {
    ...         "version": 1,
    ...         "name": "pets",
    ...         "tiers": [
    ...             {"name": "small", "kind": "external"},
    ...             {"name": "large", "kind": "external"},
    ...         ],
    ...         "escalation": {"thresholds": [0.8]},
    ...     }
    ... )
    >>> found = replay(
    ...     policy,
    ...     {
    ...         "truth": ["cat", "dog"],
    ...         "small.value": ["cat", "cat"],
    ...         "small.confidence": [0.9, 0.4],
    ...         "large.value": ["cat", "dog"],
    ...     },
    ...     costs=[1, 10],
    ... )
    >>> found.accuracy, found.calls["large"], found.mean_cost
    (1.0, 0.5, 6.0)
    """
    names = tier_names(policy)
    held = Recording.of(recording, complete_only=complete_only).select(names)
    compare = same_as(same)
    right = held.right(compare)
    good = held.agrees(compare) if right is None else right
    confidences = confidences_of(policy, held)
    finishes, called = _decisions(policy, confidences, complexities_of(policy, held))
    ranks = np.array([finish.rank for finish in finishes])
    withheld = np.array([finish.disposition is Disposition.ABSTAINED for finish in finishes])
    told = (ranks >= 0) & ~withheld
    mine = np.where(told, good[np.arange(held.n), ranks], 0.0)
    strayed = np.array([not finish.covered for finish in finishes])[told]
    return Replay(
        n=held.n,
        accuracy=float(mine.mean()),
        accuracy_top=float(good[:, -1].mean()),
        loss=float(good[:, -1].mean() - mine.mean()),
        calls=dict(zip(names, called.mean(axis=0).tolist(), strict=True)),
        mean_cost=_spent(held, costs, called),
        mean_seconds=_seconds(held, called),
        dispositions=dict(Counter(str(finish.disposition) for finish in finishes)),
        uncovered=float(strayed.mean()) if len(strayed) else 0.0,
        tiers=tuple(finish.tier for finish in finishes),
        ends=tuple(str(finish.disposition) for finish in finishes),
    )


def tier_names(policy: Policy) -> list[str]:
    """Return the names of a policy's tiers.

    Raises:
        PolicyError: it is none, perhaps a path of one; a TypeError too.
    """
    expect_policy(policy, "Policy.from_yaml(path)")
    return [spec.name for spec in policy.tiers]


def confidences_of(policy: Policy, held: Recording) -> list[list[float | None]]:
    """Return each tier's confidences by row, as its settings make them of what was recorded."""
    columns: list[list[float | None]] = []
    for spec, tier in zip(policy.tiers, held.tiers, strict=True):
        margin = spec.confidence.score == "margin"
        column = tier.margin if margin else tier.confidence
        table = policy.calibrations.get(spec.name)
        if column is None and table is not None and table.blind:
            column = np.full(held.n, 0.5)
        if column is None:
            if tier is not held.tiers[-1]:
                what = "margin" if margin else "confidence"
                raise RecordingError(
                    f"{held.source}: no column {spec.name}.{what}, by which the policy decides"
                )
            columns.append([None] * held.n)
            continue
        if table is not None:
            values = np.zeros(held.n) if tier.value is None else tier.value
            column = table.rows(values, column, held.shown)
        columns.append(column.tolist())
    return columns


def complexities_of(policy: Policy, held: Recording) -> list[float]:
    """Return what the entry rule makes of each row.

    Raises:
        RecordingError: the recording lacks what the rule weighs.
    """
    rule = policy.complexity
    if rule is None:
        return [0.0] * held.n
    estimate = estimator(rule.intercept, rule.weights)
    if not hasattr(rule.weights, "items"):
        if len(held.features) != len(rule.weights):
            raise RecordingError(
                f"{held.source}: the entry rule weighs {len(rule.weights)} features, the recording "
                f"has {len(held.features)} columns x.…"
            )
        return list(map(estimate, np.column_stack(list(held.features.values()))))
    if set(rule.weights) <= set(held.features):
        rows = ({name: held.features[name][i] for name in rule.weights} for i in range(held.n))
        return list(map(estimate, rows))
    if held.text is None:
        raise RecordingError(f"{held.source}: the entry rule needs input, or x.{min(rule.weights)}")
    return list(map(estimate, held.text.tolist()))


def _decisions(
    policy: Policy, confidences: list[list[float | None]], hard: list[float]
) -> tuple[list[Finish], npt.NDArray[np.bool_]]:
    """Drive one decision per row."""
    names = tuple(spec.name for spec in policy.tiers)
    ladder = Ladder(names, policy.escalation.abstain_below, policy.mode == "first_only")
    floor = len(names) - 1 if policy.mode == "top_only" else 0
    point, etas = policy.point, [int] * len(names)  # int() is 0: there is always time
    finishes, called = [], np.zeros((len(hard), len(names)), dtype=np.bool_)
    for row, complexity in enumerate(hard):
        decision = Decision(ladder, floor)
        move = decision.start(point, complexity, 0, 1, etas)
        while type(move) is Call:
            called[row, move.tier] = True
            fact = Replied(move.tier, None, confidences[move.tier][row], 0, 0, 0)
            move = decision.step(fact, 0, etas)
        assert not isinstance(move, Call)  # noqa: S101  the only other kind
        finishes.append(move)
    return finishes, called


def _spent(held: Recording, costs: Costs | None, called: npt.NDArray[np.bool_]) -> float | None:
    """Return the mean cost of a request: row by row where costs were recorded so."""
    columns = [tier.cost for tier in held.tiers]
    if costs is None and all(column is not None for column in columns):
        return float((called * np.column_stack(columns)).sum(axis=1).mean())  # type: ignore[arg-type]
    try:
        return float(called.mean(axis=0) @ held.costs(costs))
    except RecordingError:
        if costs is not None:
            raise
        return None


def _seconds(held: Recording, called: npt.NDArray[np.bool_]) -> float | None:
    columns = [tier.seconds for tier in held.tiers]
    if any(column is None for column in columns):
        return None
    return float((called * np.column_stack(columns)).sum(axis=1).mean())  # type: ignore[arg-type]
