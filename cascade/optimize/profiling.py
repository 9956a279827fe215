"""Profile a policy: what each tier costs at each batch size, cold, hot and sparse; what to change.

Latency is input capture, data transfer, model compute and output delivery, and cannot be improved
before it is split. Everything here is measured on the machine it runs on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from cascade.batching import Curve, knee
from cascade.optimize.cold import Cold, measure_cold
from cascade.optimize.profile import law, times
from cascade.optimize.running import load_models, open_tier
from cascade.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from cascade.bundle import Profile
    from cascade.optimize.data import Data
    from cascade.optimize.running import Running
    from cascade.outcome import Outcome
    from cascade.policy import Policy

__all__ = [
    "Arrivals", "LedgerSplit", "PolicyProfile", "SizeTimes", "TierProfile", "batch_sizes",
    "bottleneck", "dominated", "ledger_split", "profile_policy", "typical",
]  # fmt: skip

GAP = 0.002
"""Seconds between two sparse arrivals."""
CAP = 32
"""The largest batch that is measured where the policy names none."""
JUDGED = 1_000
"""Rows at most that accuracy and the ledger's split are taken from."""

_NEAR = 1.05  # times within this factor are not told apart
_SECONDS, _SPARSE = 0.8, 150
_PATIENT = 60.0  # a deadline that nothing here runs into
_PASSES = 3  # over the rows that are routed, for a request's typical ledger
_PARTS = ("input", "transfer", "compute", "output")


@attrs.frozen
class SizeTimes:
    """A run of so many rows: median and 99th percentile in seconds, and the median per row."""

    rows: int
    p50: float
    p99: float
    per_row: float


@attrs.frozen
class Arrivals:
    """Single requests: median, 99th percentile, and CPU seconds per call, waiting included."""

    p50: float
    p99: float
    cpu: float


@attrs.frozen
class TierProfile:
    """What was measured of one tier; times in seconds, ``accuracy`` None without truth."""

    name: str
    sizes: tuple[SizeTimes, ...]
    law: Profile
    knee: int
    hot: Arrivals
    sparse: Arrivals
    cold: Cold
    bytes: int
    accuracy: float | None


@attrs.frozen
class LedgerSplit:
    """Mean seconds of a request by the ledger's parts; ``tiers`` splits compute, by tier.

    ``calls`` is the share of requests that call each tier.
    """

    parts: dict[str, float]
    tiers: dict[str, float]
    calls: dict[str, float]


@attrs.frozen
class PolicyProfile:
    """A profiled policy; ``skipped`` says why of each tier that could not be measured."""

    tiers: tuple[TierProfile, ...]
    ledger: LedgerSplit | None
    bottleneck: str | None
    dominated: dict[str, str]
    skipped: dict[str, str]
    rows: int

    def profiles(self) -> dict[str, dict[str, float]]:
        """Return what the profile file of a policy holds, by tier."""
        return {tier.name: tier.law.to_dict() for tier in self.tiers}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return attrs.asdict(self)


def profile_policy(
    policy: Policy, data: Data, say: Callable[[str], None] = lambda _: None
) -> PolicyProfile:
    """Measure every ONNX tier of a policy on the rows of ``data``, and the ledger on a router.

    Takes about three seconds per tier, more for slow ones. External tiers cannot be run from a
    file: they are skipped, and so is then the ledger.

    Raises:
        InputValueError: a model does not take these rows, or the truth is not what it answers.
        ModelIntegrityError: a model is missing, or not the one that the policy names.
    """
    tiers = []
    for name, (spec, model) in load_models(policy).items():
        say(f"measuring {name}")
        running = open_tier(spec, model, policy)
        tiers.append(_tier(running, policy, data))
    skipped = {
        spec.name: f"{spec.kind}: bound in Python, not in a file"
        for spec in policy.tiers
        if spec.name not in {tier.name for tier in tiers}
    }
    ledger = None
    if not skipped and policy.prepare is None and policy.postprocess is None:
        say("routing, for the ledger's split")
        ledger = _ledger(policy, data)
    speeds = {tier.name: (tier.hot.p50, tier.accuracy) for tier in tiers}
    named = None if ledger is None else bottleneck(ledger)
    return PolicyProfile(tuple(tiers), ledger, named, dominated(speeds), skipped, data.n)


def _tier(running: Running, policy: Policy, data: Data) -> TierProfile:
    spec = running.spec
    cap = CAP if spec.batch is None else spec.batch.max_size
    sizes = batch_sizes(cap if running.tier.batches else 1)
    runs = {size: running.batch(data, size) for size in sizes}
    for run in runs.values():
        run()  # the first run of a shape allocates
    taken = {size: times(run, _SECONDS / len(sizes)) for size, run in runs.items()}
    fitted = law(taken)
    curve = Curve(fitted.overhead * 1e9, fitted.per_row * 1e9)
    return TierProfile(
        name=spec.name,
        sizes=tuple(_size(size, seconds) for size, seconds in taken.items()),
        law=fitted,
        knee=knee(curve, sizes[-1]),
        hot=_arrivals(runs[1], 0.0),
        sparse=_arrivals(runs[1], GAP),
        cold=measure_cold(policy, spec.name, data),
        bytes=len(running.model),
        accuracy=_accuracy(running, data),
    )


def batch_sizes(cap: int) -> tuple[int, ...]:
    """Return 1, 2, 4, … and the cap.

    >>> batch_sizes(12)
    (1, 2, 4, 8, 12)
    """
    sizes = [1]
    while sizes[-1] < cap:
        sizes.append(min(2 * sizes[-1], cap))
    return tuple(sizes)


def _size(size: int, seconds: npt.NDArray[np.float64]) -> SizeTimes:
    p50, p99 = np.quantile(seconds, [0.5, 0.99]).tolist()
    return SizeTimes(size, p50, p99, p50 / size)


def _arrivals(run: Callable[[], object], gap: float) -> Arrivals:
    """Run back to back, or with so many seconds from the start of one call to the next."""
    least, most = 20, _SPARSE if gap else 2_000
    taken: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    began = start
    while len(taken) < least or (len(taken) < most and time.perf_counter() < start + _SECONDS):
        if gap and taken:
            time.sleep(max(0.0, began + gap - time.perf_counter()))
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    spent = (time.process_time() - cpu) / len(taken)
    p50, p99 = np.quantile(taken, [0.5, 0.99]).tolist()
    return Arrivals(p50, p99, spent)


def _accuracy(running: Running, data: Data) -> float | None:
    if data.truth is None or running.tier.kind == "value":  # numbers are never quite the same
        return None
    some = data.take(np.arange(min(data.n, JUDGED)))
    values, _ = running.answers(some)
    return running.accuracy(values, some.truth)


def _ledger(policy: Any, data: Data) -> LedgerSplit:
    bare = attrs.evolve(policy, cache=None, deadline=_PATIENT, max_deadline=None)
    names = [spec.name for spec in policy.tiers]
    with Router(bare, env={}) as router:
        passes = [
            [router.route(data.row(i)) for i in range(max(20, min(data.n, JUDGED // 4)))]
            for _ in range(_PASSES)
        ]
    return ledger_split([typical(same) for same in zip(*passes, strict=True)], names)


def typical(outcomes: Sequence[Outcome[Any]]) -> Outcome[Any]:
    """Return the one whose total is in the middle: a stall of the machine is no bottleneck."""
    return sorted(outcomes, key=lambda one: one.latency.total)[len(outcomes) // 2]


def ledger_split(outcomes: Sequence[Outcome[Any]], names: Sequence[str]) -> LedgerSplit:
    """Return what requests take on average, by the ledger's parts and by tier."""
    n = len(outcomes)
    parts, tiers = dict.fromkeys(_PARTS, 0.0), dict.fromkeys(names, 0.0)
    calls = dict.fromkeys(names, 0.0)
    for outcome in outcomes:
        for part in _PARTS:
            parts[part] += getattr(outcome.latency, part) / n
        for step in outcome.steps:
            calls[step.tier] += (step.result != "refused") / n
            tiers[step.tier] += step.latency.compute / n
    return LedgerSplit(parts, tiers, calls)


def bottleneck(ledger: LedgerSplit) -> str:
    """Name what the largest share of a request's time goes to: a tier's compute, or a part.

    >>> bottleneck(LedgerSplit({"input": 1.0, "compute": 4.0}, {"a": 1.0, "b": 3.0}, {}))
    "tier 'b': 60% of the time is its compute"
    """
    whole = sum(ledger.parts.values()) or 1.0
    shares = {f"tier {name!r}": time / whole for name, time in ledger.tiers.items()}
    shares |= {part: time / whole for part, time in ledger.parts.items() if part != "compute"}
    worst = max(shares, key=shares.__getitem__)
    what = "of the time is its compute" if worst.startswith("tier ") else "of the time"
    return f"{worst}: {shares[worst]:.0%} {what}"


def dominated(tiers: Mapping[str, tuple[float, float | None]]) -> dict[str, str]:
    """Map each tier that another one beats to that one: slower by 5 % and not more accurate.

    ``tiers`` holds seconds and accuracy by name; without accuracy nothing is said.

    >>> dominated({"a": (1.0, 0.9), "b": (5.0, 0.95), "c": (2.0, 0.96)})
    {'b': 'c'}
    """
    found = {}
    for name, (seconds, accuracy) in tiers.items():
        better = [
            (own, other)
            for other, (own, right) in tiers.items()
            if accuracy is not None and right is not None
            if own * _NEAR <= seconds and right >= accuracy
        ]
        if better:
            found[name] = min(better)[1]
    return found
