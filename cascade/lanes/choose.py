"""Which lane a tier gets: what its policy says, or what its measured time does."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

from cascade.breaker import Breaker
from cascade.lanes.auto import FAST, AutoLane
from cascade.lanes.inline import InlineLane
from cascade.lanes.loop import LoopLane
from cascade.lanes.worker import WorkerLane

if TYPE_CHECKING:
    from collections.abc import Callable

    from cascade.bundle import Profile
    from cascade.calibration import Calibration
    from cascade.lanes.watchdog import Watchdog
    from cascade.load import ServiceTime
    from cascade.policy.settings import TierSpec
    from cascade.protocols import BoundTier, Clock, Lane

__all__ = ["foresee", "make_lane", "workers_of"]

_EXTERNAL = 8  # workers of a Python tier, which may well wait for something else
_AWAITED = 64  # calls of an asynchronous tier at a time


def make_lane(  # noqa: PLR0913, PLR0917  the parts of a lane
    spec: TierSpec,
    index: int,
    tier: BoundTier,
    clock: Clock,
    service: ServiceTime,
    known: bool,  # noqa: FBT001
    prepare: Callable[[Any], Any] | None,
    calibration: Calibration | None,
    watchdog: Watchdog,
    cores: int,
) -> Lane:
    """Return the lane that ``execution`` says; ``auto`` goes by the measured time."""
    parts = (index, tier, clock, service, prepare, calibration)
    lane: Any = _lane(spec, parts, watchdog, cores, known=known)
    settings = spec.breaker
    if settings is not None:
        window, pause = round(settings.window * 1e9), round(settings.pause * 1e9)
        chance = random.Random().random  # noqa: S311  jitter, not a secret
        breaker = Breaker(settings.rate, settings.minimum, window, pause, chance, threading.Lock())
        if isinstance(lane, (AutoLane, InlineLane)):
            lane.use(breaker)
        else:
            lane.breaker = breaker
    made: Lane = lane
    return made


def _lane(
    spec: TierSpec, parts: tuple[Any, ...], watchdog: Watchdog, cores: int, *, known: bool
) -> Any:
    tier, service = parts[1], parts[3]
    batch = spec.batch
    cap = 1 if batch is None or not tier.batches else batch.max_size
    crew: Any = {
        "workers": workers_of(spec, cores)[0],
        "limit": spec.queue,
        "cap": cap,
        "pad": None if batch is None else batch.pad,
    }
    brought = getattr(tier, "own_lane", None)  # of one that stands in for another
    if brought is not None:
        return brought(*parts, **crew)
    if hasattr(tier, "predict_async"):
        return LoopLane(
            *parts, **crew | {"workers": spec.workers.low if spec.workers else _AWAITED}
        )
    # How long a run takes that has rows of no fixed size, the runs so far do not tell.
    varied = any(None in own.shape for own in tier.inputs)
    if spec.execution == "inline":
        slow = varied or (known and service.eta() >= FAST)
        return InlineLane(*parts, watchdog=watchdog if slow else None, pad=crew["pad"], cap=cap)
    if spec.execution == "auto" and not (varied and tier.can_stop):
        return AutoLane(*parts, known=known, worker=crew)
    return WorkerLane(*parts, **crew)


def foresee(spec: TierSpec, profile: Profile | None, cores: int) -> tuple[str, str]:
    """Say which lane a tier will get, and why, without opening it.

    >>> from cascade.policy import OnnxSpec
    >>> foresee(OnnxSpec(name="a", model="a.onnx", execution="worker"), None, 2)
    ('worker, 1 at a time', 'the policy says so')
    """
    low, high = workers_of(spec, cores)
    crowd = f"{low if low == high else f'{low} to {high}'} at a time"
    if spec.execution != "auto":
        lane = spec.execution
        return lane if lane == "inline" else f"{lane}, {crowd}", "the policy says so"
    if profile is None:
        return f"worker, {crowd}", "not measured yet; inline once it answers in under 100 µs"
    time = profile.overhead + profile.per_row + profile.residual
    measured = f"measured at {time * 1e6:.0f} µs"
    if time * 1e9 < FAST:
        return "inline", f"{measured}: under 100 µs"
    return f"worker, {crowd}", f"{measured}: not under 100 µs"


def workers_of(spec: TierSpec, cores: int) -> tuple[int, int]:
    """Return how few and how many runs of a tier go on at a time, when it is not inline.

    Those that compute in this process share its cores: workers × threads is at most their number.
    """
    threads: int | None = getattr(spec, "threads", None)
    low, high = (1, 1) if spec.workers is None else (spec.workers.low, spec.workers.max)
    if threads is None:
        alone = spec.workers is not None or spec.execution == "process"  # each is a process
        return (low, high) if alone else (_EXTERNAL, _EXTERNAL)
    limit = max(1, cores // min(threads, cores))
    return min(low, limit), min(high, limit)
