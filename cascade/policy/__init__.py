"""Policies: the configuration, its validation, its schema, its certificate."""

from cascade.policy.certificate import Certificate, PathPoint
from cascade.policy.model import (
    CacheSettings,
    ComplexityRule,
    ConfidenceSettings,
    Escalation,
    ExternalSpec,
    FunctionVersion,
    InputSettings,
    OnnxSpec,
    OutputSettings,
    Policy,
    TierSpec,
)

__all__ = [
    "CacheSettings", "Certificate", "ComplexityRule", "ConfidenceSettings", "Escalation",
    "ExternalSpec", "FunctionVersion", "InputSettings", "OnnxSpec", "OutputSettings", "PathPoint",
    "Policy", "TierSpec",
]  # fmt: skip
