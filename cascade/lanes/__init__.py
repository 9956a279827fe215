"""Lanes: how a tier is executed."""

from cascade.lanes.auto import AutoLane
from cascade.lanes.choose import make_lane
from cascade.lanes.inline import InlineLane
from cascade.lanes.watchdog import Watchdog
from cascade.lanes.worker import WorkerLane

__all__ = ["AutoLane", "InlineLane", "Watchdog", "WorkerLane", "make_lane"]
