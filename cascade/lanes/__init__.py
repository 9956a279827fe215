"""Lanes: how a tier is executed."""

from cascade.lanes.inline import InlineLane

__all__ = ["InlineLane"]
