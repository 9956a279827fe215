"""cascade answers a request with the cheapest model that can be trusted to answer it in time."""

from importlib import import_module
from typing import TYPE_CHECKING

# Loaded on first use (PEP 562): importing costs next to nothing, serving imports what it needs.
# fmt: off
if TYPE_CHECKING:
    from cascade.aio import AsyncRouter
    from cascade.budget import Budget
    from cascade.columnar import Outcomes
    from cascade.errors import (
        Abstained, CannotCertify, CascadeError, DeadlineExceeded, Degraded, ExportError,
        InputTypeError, InputValueError, MissingExtra, ModelIntegrityError, Overloaded, PolicyError,
        RecordingError, TierError, TierOutputError, TierTimeout, TierUnavailable)
    from cascade.estimator import CascadeClassifier
    from cascade.fitting import Fit, Recording, fit
    from cascade.policy import Certificate, Policy, TierSpec
    from cascade.router import Router
    from cascade.simulation import Replay, Simulation, replay, simulate
    from cascade.tiers import tier
    from cascade.outcome import Outcome
    from cascade.types import Disposition, Latency, Mode, OperatingPoint, Prediction, Reason, Step

__all__ = ["Abstained", "AsyncRouter", "Budget", "CannotCertify", "CascadeClassifier",
    "CascadeError", "Certificate", "DeadlineExceeded", "Degraded", "Disposition", "ExportError",
    "Fit", "InputTypeError", "InputValueError", "Latency", "MissingExtra", "Mode",
    "ModelIntegrityError", "OperatingPoint", "Outcome", "Outcomes", "Overloaded", "Policy",
    "PolicyError", "Prediction", "Reason", "Recording", "RecordingError", "Replay", "Router",
    "Simulation", "Step", "TierError", "TierOutputError", "TierSpec", "TierTimeout",
    "TierUnavailable", "fit", "replay", "simulate", "tier"]
__version__ = "0.1.0"
_HOMES = {"AsyncRouter": "aio", "Budget": "budget", "CascadeClassifier": "estimator",
          "Outcome": "outcome", "Outcomes": "columnar", "Prediction": "types", "Reason": "types"}
_HOMES |= dict.fromkeys(["Certificate", "Policy", "TierSpec"], "policy") | {"Router": "router"}
_HOMES |= dict.fromkeys(["Fit", "Recording", "fit"], "fitting") | {"tier": "tiers"}
_HOMES |= dict.fromkeys(["Disposition", "Latency", "Mode", "OperatingPoint", "Step"], "types")
_HOMES |= dict.fromkeys(["Replay", "Simulation", "replay", "simulate"], "simulation")
# fmt: on


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = globals()[name] = getattr(import_module("cascade." + _HOMES.get(name, "errors")), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
