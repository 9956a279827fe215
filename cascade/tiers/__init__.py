"""Tiers: one thin file per kind of model."""

from cascade.tiers.python import FunctionTier, tier

__all__ = ["FunctionTier", "tier"]
