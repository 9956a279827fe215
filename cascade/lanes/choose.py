"""Which lane a tier gets: what its policy says, or what its measured time does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.lanes.auto import FAST, AutoLane
from cascade.lanes.inline import InlineLane
from cascade.lanes.loop import LoopLane
from cascade.lanes.worker import WorkerLane

if TYPE_CHECKING:
    from collections.abc import Callable

    from cascade.calibration import Calibration
    from cascade.lanes.watchdog import Watchdog
    from cascade.load import ServiceTime
    from cascade.policy.model import TierSpec
    from cascade.protocols import BoundTier, Clock, Lane

__all__ = ["make_lane", "workers_of"]

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
    batch = spec.batch
    cap = 1 if batch is None or not tier.batches else batch.max_size
    crew: Any = {
        "workers": workers_of(spec, cores),
        "limit": spec.queue,
        "cap": cap,
        "pad": None if batch is None else batch.pad,
    }
    if hasattr(tier, "predict_async"):
        return LoopLane(*parts, **crew | {"workers": spec.workers or _AWAITED})
    if spec.execution == "inline":
        slow = known and service.eta() >= FAST
        return InlineLane(*parts, watchdog=watchdog if slow else None, pad=crew["pad"], cap=cap)
    if spec.execution == "auto":
        return AutoLane(*parts, known=known, worker=crew)
    return WorkerLane(*parts, **crew)


def workers_of(spec: TierSpec, cores: int) -> int:
    """Return how many runs of a tier go on at a time, when it is not inline.

    Those that compute in this process share its cores: workers × threads is at most their number.
    """
    threads: int | None = getattr(spec, "threads", None)
    if threads is None:
        return spec.workers or _EXTERNAL
    return max(1, min(spec.workers or 1, cores // min(threads, cores)))
