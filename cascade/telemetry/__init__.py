"""Telemetry: frozen snapshots of what was counted, and their Prometheus text."""

from cascade.telemetry.prometheus import prometheus
from cascade.telemetry.statistics import (
    CacheStatistics,
    Health,
    Standing,
    Statistics,
    TierStatistics,
    standing,
    statistics,
)

__all__ = [
    "CacheStatistics",
    "Health",
    "Standing",
    "Statistics",
    "TierStatistics",
    "prometheus",
    "standing",
    "statistics",
]
