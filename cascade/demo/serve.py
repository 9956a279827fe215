"""Serve the held-out stream from the bundle: every contender in turn, request by request."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.policy import Escalation, Policy
from cascade.router import Router

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from cascade.types import Outcome

    Array = npt.NDArray[Any]

__all__ = ["Served", "serve"]

CASCADE, CACHED = "cascade", "cascade_cached"


@attrs.define(eq=False)
class Served:
    """What one contender did with the stream of n requests: columns (n,), seconds as floats."""

    name: str
    values: Array
    seconds: Array
    confidences: Array
    calls: dict[str, float]
    ledger: dict[str, float]


def serve(bundle: Path, rows: Array, order: Array) -> dict[str, Served]:
    """Ask each tier alone, the cascade without and with cache; interleaved, so none is favoured."""
    policy: Any = Policy.from_yaml(bundle / "policy.yaml", env={})
    with ExitStack() as stack:
        asked = {
            spec.name: stack.enter_context(Router(_alone(policy, spec), env={}))
            for spec in policy.tiers
        }
        asked[CASCADE] = stack.enter_context(Router(attrs.evolve(policy, cache=None), env={}))
        asked[CACHED] = stack.enter_context(Router(policy, env={}))
        outcomes: dict[str, list[Outcome[Any]]] = {name: [] for name in asked}
        seconds: dict[str, list[int]] = {name: [] for name in asked}
        for at in order.tolist():
            for name, router in asked.items():
                start = time.perf_counter_ns()
                outcome = router.route(rows[at])
                seconds[name].append(time.perf_counter_ns() - start)
                outcomes[name].append(outcome)
    names = tuple(spec.name for spec in policy.tiers)
    return {name: _served(name, outcomes[name], seconds[name], names) for name in asked}


def _alone(policy: Any, spec: Any) -> Any:
    """The policy of one tier without a cascade around it."""
    return attrs.evolve(
        policy, tiers=(spec,), escalation=Escalation(), cache=None, certificate=None
    )


def _served(
    name: str, outcomes: list[Outcome[Any]], nanoseconds: list[int], tiers: tuple[str, ...]
) -> Served:
    n = len(outcomes)
    called = dict.fromkeys(tiers, 0)
    for outcome in outcomes:
        for step in outcome.steps:
            called[step.tier] += step.result != "refused"
    parts = ("input", "transfer", "compute", "output")
    spent = {part: sum(getattr(each.latency, part) for each in outcomes) / n for part in parts}
    return Served(
        name,
        np.array([each.value for each in outcomes]),
        np.array(nanoseconds) * 1e-9,
        np.array([np.nan if each.confidence is None else each.confidence for each in outcomes]),
        {tier: count / n for tier, count in called.items()},
        spent,
    )
