"""Policies: the configuration, its validation, its schema, its certificate."""

from cascade.policy.certificate import Certificate, PathPoint
from cascade.policy.model import Policy
from cascade.policy.settings import (
    AllowanceSettings,
    CacheSettings,
    ComplexityRule,
    ConfidenceSettings,
    Escalation,
    ExternalSpec,
    FunctionVersion,
    InputSettings,
    LoadSettings,
    OnnxSpec,
    OutputSettings,
    TierSpec,
    WorkerSettings,
)

__all__ = [
    "AllowanceSettings", "CacheSettings", "Certificate", "ComplexityRule", "ConfidenceSettings",
    "Escalation", "ExternalSpec", "FunctionVersion", "InputSettings", "LoadSettings", "OnnxSpec",
    "OutputSettings", "PathPoint", "Policy", "TierSpec", "WorkerSettings",
]  # fmt: skip
