"""Explore a policy: every variant of every tier measured, and the ladder that is fastest in all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.optimize.changing import WAYS, change_tier
from cascade.optimize.data import split
from cascade.optimize.frontier import Ladder, Option, Rows, best, front, ladders, prove, worth
from cascade.optimize.running import load_models, open_tier, tier_named, whole_model
from cascade.optimize.slimming import ORIGINAL, Candidate, refit_temperature
from cascade.optimize.timing import interleave

if TYPE_CHECKING:
    from collections.abc import Callable

    from cascade.optimize.data import Data, Parts
    from cascade.optimize.running import Running
    from cascade.policy import Policy

__all__ = ["Exploration", "explore"]

_MOST = 4  # variants of a tier that ladders are made of


@attrs.frozen(eq=False)
class Exploration:
    """What was found: candidates by tier, the front over whole cascades, and the fastest ladder.

    ``before`` is the ladder as it is and ``chosen`` the fastest one, or that as it is where no
    other one is worth a change, each at the cheapest point of its path that keeps the promise on
    rows that had no say in the choice; None where none does.
    ``front`` is from the rows that the choice was made on. ``models`` and ``temperatures`` are by
    (tier, variant).
    """

    candidates: dict[str, list[Candidate]]
    front: list[Ladder]
    before: Ladder | None
    chosen: Ladder | None
    max_loss: float
    alpha: float
    models: dict[tuple[str, str], bytes] = attrs.field(factory=dict, repr=False)
    temperatures: dict[tuple[str, str], float] = attrs.field(factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the models, as JSON types."""
        return {
            "max_loss": self.max_loss,
            "alpha": self.alpha,
            "candidates": {
                tier: [attrs.asdict(one) for one in some] for tier, some in self.candidates.items()
            },
            "front": [attrs.asdict(one) for one in self.front],
            "before": None if self.before is None else attrs.asdict(self.before),
            "chosen": None if self.chosen is None else attrs.asdict(self.chosen),
        }


def explore(
    policy: Policy, data: Data, *, max_loss: float = 0.01, alpha: float = 0.1, seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Exploration:  # fmt: skip
    """Quantise and prune every ONNX tier in every way, and search all ladders of the results.

    A variant is in the search when it is measurably faster than its original. The gate judges a
    tier by itself, and binds the top one; below it the loss of the whole ladder counts, against the
    top tier as it is. Nothing is written. Every tier must be an ONNX model.

    Raises:
        InputValueError: the rows cannot be used.
        MissingExtra: the extra ``quantize`` is not installed.
    """
    for spec in policy.tiers:
        tier_named(policy, spec.name)  # all of them can be run
    parts = split(data, seed)
    candidates: dict[str, list[Candidate]] = {}
    opened: dict[tuple[str, str], Running] = {}
    for name, (spec, model) in load_models(policy).items():
        candidates[name] = []
        whole = whole_model(policy, spec, model)
        opened[name, ORIGINAL] = open_tier(spec, whole, policy)
        for way in WAYS:
            say(f"{way}: making and measuring variants of {name}")
            found = change_tier(policy, name, data, way, max_loss=max_loss, alpha=alpha, seed=seed)
            for one in found.candidates:
                if one.name != ORIGINAL or not any(c.name == ORIGINAL for c in candidates[name]):
                    candidates[name].append(one)
            for one in _faster(found.candidates, top=name == policy.tiers[-1].name):
                running = open_tier(spec, found.variants[one.name], policy, sha256=None)
                warmth = refit_temperature(running, parts.learn)
                changed = attrs.evolve(_any(spec).confidence, temperature=warmth)
                opened[name, one.name] = open_tier(
                    spec, running.model, policy, sha256=None, confidence=changed
                )
        candidates[name].sort(key=lambda one: one.name != ORIGINAL)
    say(f"searching the ladders of {len(opened)} variants")
    return _searched(policy, opened, candidates, parts, max_loss, alpha)


def _faster(found: tuple[Candidate, ...], *, top: bool) -> list[Candidate]:
    """Choose the variants for the search; of the top tier, which has none above it, the gate's."""
    kept = [one for one in found if one.verdict == "kept"]
    refused = [one for one in found if one.verdict.startswith("refused") and not top]
    return [*kept, *sorted(refused, key=lambda one: -(one.accuracy or 0.0))][:_MOST]


def _any(spec: Any) -> Any:
    return spec


def _searched(
    policy: Policy, opened: dict[tuple[str, str], Running],
    candidates: dict[str, list[Candidate]], parts: Parts, max_loss: float, alpha: float,
) -> Exploration:  # fmt: skip
    times = interleave(
        {"\n".join(key): running.single(parts.choose) for key, running in opened.items()}
    )
    medians = {key: float(np.median(times["\n".join(key)])) for key in opened}
    seen, fresh = (_rows(policy, opened, medians, part) for part in (parts.choose, parts.certify))
    for tier, some in candidates.items():
        if all(one.name != ORIGINAL for one in some):
            some.insert(0, _original(tier, opened[tier, ORIGINAL], medians[tier, ORIGINAL], seen))
    found = ladders(seen, max_loss, alpha)
    everyone = tuple((spec.name, ORIGINAL) for spec in policy.tiers)
    first = best(found)
    before = prove(seen, fresh, everyone, max_loss, alpha)
    chosen = None if first is None else prove(seen, fresh, first.steps, max_loss, alpha)
    return Exploration(
        candidates, front(found), before, worth(before, chosen), max_loss, alpha,
        {key: running.model for key, running in opened.items()},
        {key: running.spec.confidence.temperature for key, running in opened.items()},
    )  # fmt: skip


def _original(tier: str, running: Running, seconds: float, seen: Rows) -> Candidate:
    """Describe a tier that nothing could be made of."""
    (own,) = seen.picked(((tier, ORIGINAL),))
    right = running.accuracy(own.values, seen.truth)
    return Candidate(ORIGINAL, "the original", seconds, len(running.model), right)


def _rows(
    policy: Policy, opened: dict[tuple[str, str], Running],
    medians: dict[tuple[str, str], float], data: Data,
) -> Rows:  # fmt: skip
    options: dict[str, list[Option]] = {}
    for (tier, variant), running in opened.items():
        values, sure = running.answers(data)
        one = Option(tier, variant, medians[tier, variant], values, sure)
        options.setdefault(tier, []).append(one)
    top = options[policy.tiers[-1].name][0]  # the original comes first
    return Rows([options[spec.name] for spec in policy.tiers], top.values, data.truth)
