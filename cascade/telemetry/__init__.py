"""Telemetry: frozen snapshots of what was counted, and their Prometheus text."""

from cascade.telemetry.prometheus import prometheus
from cascade.telemetry.statistics import (
    CacheStatistics,
    Health,
    Statistics,
    TierStatistics,
    statistics,
)

__all__ = [
    "CacheStatistics",
    "Health",
    "Statistics",
    "TierStatistics",
    "prometheus",
    "statistics",
]
