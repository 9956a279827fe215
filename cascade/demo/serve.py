"""Serve the held-out stream from the bundle, by every contender in turn."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.errors import DeadlineExceeded
from cascade.policy import Escalation, Policy
from cascade.router import Router
from cascade.types import Disposition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from cascade.outcome import Outcome

    Array = npt.NDArray[Any]

__all__ = ["CACHED", "CASCADE", "Served", "serve"]

CASCADE, CACHED = "cascade", "cascade_cached"
BLOCK = 50


@attrs.define(eq=False)
class Served:
    """What one contender did with the stream of n requests: columns (n,), seconds as floats.

    ``late`` counts the requests not answered within the deadline, ``degraded`` those answered by
    a smaller tier than they should have been, for want of time.
    """

    name: str
    values: Array
    seconds: Array
    confidences: Array
    calls: dict[str, float]
    ledger: dict[str, float]
    deadline: float
    late: int
    degraded: int


def serve(bundle: Path, rows: Array, order: Array) -> dict[str, Served]:
    """Ask each tier alone, then the cascade without and with its cache, in one interleaved run.

    Each block of requests goes to every contender before the next block begins, so all meet the
    same moods of the machine. Blocks rather than single requests, because a contender deployed
    alone finds its models in the processor's caches; and in rotation, so that none always follows
    the largest model.
    """
    policy: Any = Policy.from_yaml(bundle / "policy.yaml", env={})
    policies = {spec.name: _alone(policy, spec) for spec in policy.tiers}
    policies |= {CASCADE: attrs.evolve(policy, cache=None), CACHED: policy}
    outcomes: dict[str, list[Outcome[Any]]] = {name: [] for name in policies}
    taken: dict[str, list[int]] = {name: [] for name in policies}
    with ExitStack() as stack:
        stack.enter_context(_nothing_else_in_memory())
        asked = [(n, stack.enter_context(Router(p, env={}))) for n, p in policies.items()]
        for begin in range(0, len(order), BLOCK):
            for name, router in asked:
                for row in rows[order[begin : begin + BLOCK]]:
                    start = time.perf_counter_ns()
                    outcome = _ask(router, row)
                    taken[name].append(time.perf_counter_ns() - start)
                    outcomes[name].append(outcome)
            asked.append(asked.pop(0))
    names = tuple(spec.name for spec in policy.tiers)
    return {
        name: _served(name, outcomes[name], np.array(taken[name]) * 1e-9, names, policy.deadline)
        for name in policies
    }


@contextmanager
def _nothing_else_in_memory() -> Iterator[None]:
    """Keep the collector from walking what training left: a service has none of it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _ask(router: Router[Any, Any], row: Array) -> Outcome[Any]:
    """Route one row; one that expires is a result too, and a wrong one."""
    try:
        return router.route(row)
    except DeadlineExceeded as error:
        if error.outcome is None:
            raise
        return error.outcome


def _alone(policy: Any, spec: Any) -> Any:
    """The policy of one tier without a cascade around it."""
    return attrs.evolve(
        policy, tiers=(spec,), escalation=Escalation(), cache=None, certificate=None
    )


def _served(
    name: str, outcomes: list[Outcome[Any]], seconds: Array, tiers: tuple[str, ...], deadline: float
) -> Served:
    n = len(outcomes)
    called = dict.fromkeys(tiers, 0)
    for outcome in outcomes:
        for step in outcome.steps:
            called[step.tier] += step.result != "refused"
    parts = ("input", "transfer", "compute", "output")
    answered = np.array([each.value is not None for each in outcomes])
    return Served(
        name=name,
        values=np.array([each.value for each in outcomes]),
        seconds=seconds,
        confidences=np.array([_number(each.confidence) for each in outcomes]),
        calls={tier: count / n for tier, count in called.items()},
        ledger={part: sum(getattr(o.latency, part) for o in outcomes) / n for part in parts},
        deadline=deadline,
        late=int((~answered | (seconds > deadline)).sum()),
        degraded=sum(each.disposition is Disposition.DEGRADED for each in outcomes),
    )


def _number(confidence: float | None) -> float:
    return float("nan") if confidence is None else confidence
