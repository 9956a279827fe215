"""cascade answers a request with the cheapest model that can be trusted to answer it in time.

The public names are loaded on first use (PEP 562), so that ``import cascade`` costs next to
nothing and serving never imports what only training needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# One name a line would make three screens of two short lists.
# fmt: off
if TYPE_CHECKING:
    from cascade.budget import Budget
    from cascade.columnar import Outcomes
    from cascade.errors import (
        Abstained, CannotCertify, CascadeError, DeadlineExceeded, Degraded, ExportError,
        InputTypeError, InputValueError, MissingExtra, ModelIntegrityError, Overloaded,
        PolicyError, TierError, TierOutputError, TierTimeout, TierUnavailable)
    from cascade.estimator import CascadeClassifier
    from cascade.policy import Certificate, Policy, TierSpec
    from cascade.router import Router
    from cascade.tiers import tier
    from cascade.types import (
        Disposition, Latency, Mode, OperatingPoint, Outcome, Prediction, Reason, Step)

__all__ = [
    "Abstained", "Budget", "CannotCertify", "CascadeClassifier", "CascadeError", "Certificate",
    "DeadlineExceeded", "Degraded", "Disposition", "ExportError", "InputTypeError",
    "InputValueError", "Latency", "MissingExtra", "Mode", "ModelIntegrityError", "OperatingPoint",
    "Outcome", "Outcomes", "Overloaded", "Policy", "PolicyError", "Prediction", "Reason", "Router",
    "Step", "TierError", "TierOutputError", "TierSpec", "TierTimeout", "TierUnavailable", "tier"]
# fmt: on

__version__ = "0.1.0"

_HOMES = {"Budget": "budget", "CascadeClassifier": "estimator", "Certificate": "policy"}
_HOMES |= {"Outcomes": "columnar", "Policy": "policy", "Router": "router", "TierSpec": "policy"}
_HOMES |= dict.fromkeys(["Disposition", "Latency", "Mode", "OperatingPoint", "Outcome"], "types")
_HOMES |= {"Prediction": "types", "Reason": "types", "Step": "types", "tier": "tiers"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = globals()[name] = getattr(import_module("cascade." + _HOMES.get(name, "errors")), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
