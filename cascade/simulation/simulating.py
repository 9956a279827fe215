"""Simulate: a policy against a trace of arrivals, in virtual time, with recorded answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.budget import nanoseconds
from cascade.bundle import load_profile
from cascade.decide import Ladder
from cascade.errors import PolicyError, RecordingError
from cascade.fitting.recording import Recording
from cascade.fitting.same import same_as
from cascade.lanes.choose import workers_of
from cascade.simulation.arrivals import Arrivals
from cascade.simulation.queueing import Events, Server, World
from cascade.simulation.replaying import complexities_of, confidences_of, tier_names
from cascade.types import Disposition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from cascade.policy import Policy, TierSpec
    from cascade.simulation.queueing import Log

__all__ = ["Simulation", "find_capacity", "simulate"]

_NANO = 1e9
_FASTEST = 2.0**20  # speed that a search for the capacity tries; and the slowest is its inverse
_CORES = 1 << 20  # what serves is another machine: this one's cores limit nothing
_CLOSE = 1.02  # two speeds that a search for the capacity does not tell apart


@attrs.frozen(eq=False)
class Simulation:
    """How n requests fared: shares of all, accuracy of the answers, times in seconds.

    ``slo_attainment`` is answers in time ÷ arrivals (degraded ones count, shed ones do not),
    ``forced_accepts`` (ρ) the share of the answers that the certified rule would not have given,
    ``calls`` the calls of each tier ÷ arrivals, ``utilization`` the share of its workers' time.
    ``baselines`` holds the same of always-small, always-large and a plain timeout: no look ahead,
    the wait is given up at the deadline and the work goes on.

    >>> empty = Simulation(0, 0.0, 0.0, 0.0, 0.0, None, None, {"small": 0.0}, {"small": 0.0})
    >>> sorted(empty.to_dict())[:3]
    ['accuracy', 'baselines', 'calls']
    """

    n: int
    slo_attainment: float
    accuracy: float
    forced_accepts: float
    shed: float
    p50: float | None
    p99: float | None
    calls: Mapping[str, float]
    utilization: Mapping[str, float]
    baselines: Mapping[str, Simulation] = attrs.field(factory=dict)
    workers: Mapping[str, int] = attrs.field(factory=dict, repr=False)
    log: Log | None = attrs.field(default=None, repr=False)
    arrivals: Arrivals | None = attrs.field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, as ``cascade simulate --json`` prints them."""
        kept = {
            field.name: getattr(self, field.name)
            for field in attrs.fields(type(self))
            if field.name not in {"log", "arrivals", "baselines", "workers"}
        }
        kept["baselines"] = {name: found.to_dict() for name, found in self.baselines.items()}
        return kept


def simulate(  # noqa: PLR0913  a call's keywords
    policy: Policy, recording: Any, arrivals: Any, *, speed: float = 1.0,
    deadline: float | str | None = None, seconds: Mapping[str, float | str] | None = None,
    same: str | Callable[[Any, Any], bool] | None = None, complete_only: bool = False,
    baselines: bool = True,
) -> Simulation:  # fmt: skip
    """Serve a trace of arrivals by a policy, in virtual time; request i takes row i mod n.

    ``arrivals`` is a path, a sequence of seconds, or made by :func:`cascade.simulation.poisson` and
    its neighbours; ``speed`` compresses it. A request's deadline is its own in the trace, else
    ``deadline``, else the policy's. A tier's time is ``seconds``, else the recording's, else the
    profile's. Cache and flights are left out: every request is computed.

    Raises:
        RecordingError: recording or arrivals cannot be used, or a tier's time is not known.
        PolicyError: there is no deadline.
        ValueError: ``speed`` or a time is not positive.

    >>> from cascade import Policy
    >>> policy = Policy.from_dict(
    ...     {
    ...         "version": 1,
    ...         "name": "pets",
    ...         "deadline": "250ms",
    ...         "tiers": [
    ...             {"name": "small", "kind": "external"},
    ...             {"name": "large", "kind": "external", "workers": 1},
    ...         ],
    ...         "escalation": {"thresholds": [0.8]},
    ...     }
    ... )
    >>> recording = {
    ...     "truth": ["cat", "dog"],
    ...     "small.value": ["cat", "cat"],
    ...     "small.confidence": [0.9, 0.4],
    ...     "large.value": ["cat", "dog"],
    ... }
    >>> times = {"small": "1ms", "large": "100ms"}
    >>> found = simulate(
    ...     policy, recording, [0.0, 0.1, 0.2, 0.21, 0.22, 0.23, 0.24, 0.25], seconds=times
    ... )
    >>> found.slo_attainment, found.accuracy, found.forced_accepts, found.calls["large"]
    (1.0, 0.875, 0.125, 0.375)
    """
    if not speed > 0:
        raise ValueError(f"speed: expected a positive number, got {speed!r}")
    names = tier_names(policy)
    held = Recording.of(recording, complete_only=complete_only).select(names)
    when = Arrivals.of(arrivals).at_speed(speed)
    budgets = _budgets(policy, when, deadline)
    world, good = _world(policy, held, seconds or {}, same)
    found = _run(world, good, names, when, budgets)
    if not baselines:
        return found
    runs = {name: _run(other, good, names, when, budgets) for name, other in _others(world).items()}
    return attrs.evolve(found, baselines=runs)


def _others(world: World) -> dict[str, World]:
    """Return the baselines of a world."""
    first = attrs.evolve(world.ladder, first_only=True)
    static = attrs.evolve(world, policy=None)
    others = {
        "static": static,
        "always_small": attrs.evolve(static, ladder=first),
        "always_large": attrs.evolve(static, floor=len(world.servers) - 1),
        "plain_timeout": attrs.evolve(static, plain_timeout=True),
    }
    if world.policy is None:  # it is the static one
        del others["static"]
    return others


def find_capacity(
    policy: Policy, recording: Any, arrivals: Any, *, slo: float = 0.99, **settings: Any
) -> float:
    """Return the highest speed of the trace at which the SLO attainment is still ``slo``.

    ``settings`` are those of :func:`simulate`. Found by bisection, to within 2 %; infinite where
    the trace is too short to tell: all of it may come at once.

    Raises:
        ValueError: ``slo`` is no share, or not reached however slow the trace is.
    """
    if not 0.0 < slo <= 1.0:
        raise ValueError(f"slo: expected a share above 0 and at most 1, got {slo!r}")
    only = bool(settings.get("complete_only"))
    held, when = Recording.of(recording, complete_only=only), Arrivals.of(arrivals)

    def holds(speed: float) -> bool:
        run = simulate(policy, held, when, speed=speed, baselines=False, **settings)
        return run.slo_attainment >= slo

    low, high = 1.0, 1.0
    while holds(high):
        if high >= _FASTEST:
            return math.inf
        low, high = high, 2 * high
    while not holds(low):
        low, high = low / 2, low
        if low < max(1.0 / _FASTEST, when.slowest()):
            raise ValueError(f"slo: {slo:.2%} is not reached at any speed")
    while high / low > _CLOSE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _run(
    world: World, good: npt.NDArray[np.float64], names: list[str], when: Arrivals,
    budgets: npt.NDArray[np.int64],
) -> Simulation:  # fmt: skip
    times = np.round(when.times * _NANO).astype(np.int64)
    ranks = None if when.ranks is None else when.ranks.tolist()
    tenants = None if when.tenants is None else when.tenants.tolist()
    log = Events(world, times, budgets, ranks, tenants).run()
    n = len(times)
    answered = log.latency >= 0
    rows = np.arange(n) % len(good)
    withheld = [end is not None and end.disposition is Disposition.ABSTAINED for end in log.ends]
    told = answered & ~np.array(withheld)
    right = good[rows[told], log.rank[told]]
    ends = [end for end in log.ends if end is not None]
    forced = [
        end.disposition is Disposition.DEGRADED or (world.point.certified and not end.covered)
        for end in ends
        if end.rank >= 0 and end.disposition is not Disposition.ABSTAINED
    ]
    took = log.latency[answered] / _NANO
    p50, p99 = np.quantile(took, [0.5, 0.99]).tolist() if len(took) else (None, None)
    workers = np.array([server.most for server in world.servers])
    return Simulation(
        n=n,
        slo_attainment=float((answered & (log.latency <= budgets)).mean()),
        accuracy=float(right.mean()) if len(right) else 0.0,
        forced_accepts=float(np.mean(forced)) if forced else 0.0,
        shed=sum(end.disposition is Disposition.SHED for end in ends) / n,
        p50=p50,
        p99=p99,
        calls=dict(zip(names, (log.calls / n).tolist(), strict=True)),
        utilization=dict(
            zip(names, (log.busy / np.maximum(1, log.worker_time)).tolist(), strict=True)
        ),
        workers=dict(zip(names, workers.tolist(), strict=True)),
        log=log,
        arrivals=when,
    )


def _world(
    policy: Policy, held: Recording, seconds: Mapping[str, float | str], same: Any
) -> tuple[World, npt.NDArray[np.float64]]:
    compare = same_as(same)
    right = held.right(compare)
    good = held.agrees(compare) if right is None else right
    names = tuple(spec.name for spec in policy.tiers)
    for name in seconds:
        if name not in names:
            raise RecordingError(f"seconds: no tier {name!r} (the policy has {', '.join(names)})")
    profiles = load_profile(policy) if policy.root is not None else {}
    servers = [
        _server(spec, profiles.get(spec.name), tier.seconds, seconds.get(spec.name), held)
        for spec, tier in zip(policy.tiers, held.tiers, strict=True)
    ]
    ladder = Ladder(names, policy.escalation.abstain_below, policy.mode == "first_only")
    floor = len(names) - 1 if policy.mode == "top_only" else 0
    confidences, hard = confidences_of(policy, held), complexities_of(policy, held)
    rules = policy.escalation
    scaled = any(spec.workers is not None and spec.workers.min for spec in policy.tiers)
    moved = scaled or policy.load or rules.spare_budget or rules.allowance
    moving = policy if moved else None
    world = World(ladder, policy.point, floor, servers, confidences, hard, policy=moving)
    return world, np.asarray(good, float)


def _server(
    spec: TierSpec, profile: Any, recorded: Any, given: float | str | None, held: Recording
) -> Server:
    overhead = 0.0 if profile is None else profile.overhead
    if given is not None:
        taken = np.full(held.n, nanoseconds(given, f"seconds: {spec.name}") / _NANO)
    elif recorded is not None:
        taken = np.asarray(recorded, dtype=np.float64)
    elif profile is not None:
        taken = np.full(held.n, overhead + profile.per_row)
    else:
        raise RecordingError(
            f"{held.source}: no column {spec.name}.seconds, and no profile; say how long it takes: "
            f"seconds={{{spec.name!r}: '10ms'}} (--seconds {spec.name}=10ms)"
        )
    # inline is one at a time, as in an event loop
    low, most = (1, 1) if spec.execution == "inline" else workers_of(spec, _CORES)
    return Server(
        np.maximum(1, np.round(taken * _NANO)).astype(np.int64),
        low,
        1 if spec.batch is None else spec.batch.max_size,
        spec.queue,
        round(overhead * _NANO),
        can_stop=spec.kind == "onnx" or spec.execution == "process",
        most=most,
    )


def _budgets(policy: Policy, when: Arrivals, deadline: Any) -> npt.NDArray[np.int64]:
    default = nanoseconds(deadline) / _NANO if deadline is not None else policy.deadline
    own = np.full(len(when.times), np.nan) if when.deadlines is None else when.deadlines
    if default is None and np.isnan(own).any():
        raise PolicyError(
            "deadline: missing in the policy and in the trace; give deadline= (--deadline 50ms)"
        )
    budgets = np.where(np.isnan(own), np.nan if default is None else default, own)
    if policy.max_deadline is not None:
        budgets = np.minimum(budgets, policy.max_deadline)
    return np.round(budgets * _NANO).astype(np.int64)
