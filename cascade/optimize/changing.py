"""Quantise or prune one tier of a policy: make the variants, judge them, say what to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.errors import InputValueError
from cascade.optimize.data import split
from cascade.optimize.lazily import require_onnx
from cascade.optimize.pruning import pruned, why_not_prune
from cascade.optimize.quantizing import CALIBRATION, quantized, why_not_quantize
from cascade.optimize.running import load_models, open_tier, tier_named, whole_model
from cascade.optimize.slimming import Candidate, Slimming, slim

if TYPE_CHECKING:
    from cascade.optimize.data import Data, Parts
    from cascade.optimize.running import Running
    from cascade.optimize.slimming import Variant
    from cascade.policy import Policy

__all__ = ["WAYS", "change_tier"]

WAYS = ("quantize", "prune")
"""How a model can be made smaller."""

_VECTORS = "its answers are vectors, and no gate can tell which of them are as good"
_LEAST = 20  # rows of each part, for anything to be said at all


def change_tier(
    policy: Policy, name: str, data: Data, way: str, *, max_loss: float = 0.01,
    alpha: float = 0.1, seed: int = 0,
) -> Slimming:  # fmt: skip
    """Make a tier's model smaller in one of the :data:`WAYS`; nothing is written.

    ``max_loss`` bounds what the new model may lose against the old one, ``alpha`` the risk that it
    loses more. Of the rows of ``data`` a quarter calibrates, and three eighths are for the gate;
    the rest is left for the certificate. A model that cannot be changed is an outcome, not an
    error: it has the reason as its only candidate.

    Raises:
        InputValueError: there is no such ONNX tier, or the rows cannot be used.
        MissingExtra: the extra ``quantize`` is not installed.
    """
    require_onnx()
    for key, value in (("max_loss", max_loss), ("alpha", alpha)):
        if not 0.0 < value < 1.0:
            raise InputValueError(f"{key}: expected a number between 0 and 1, got {value!r}")
    if seed < 0:
        raise InputValueError(f"seed: expected a whole number from 0 on, got {seed!r}")
    tier_named(policy, name)
    spec, model = load_models(policy)[name]
    model = whole_model(policy, spec, model)
    parts = split(data, seed)
    if parts.learn.n < _LEAST:
        raise InputValueError(f"expected at least {4 * _LEAST} rows, got {data.n}")
    reason = (why_not_quantize if way == "quantize" else why_not_prune)(model)
    if reason is not None:
        only = Candidate(way, f"cannot be done: {reason}")
        return Slimming(name, (only,), None, model, spec.confidence.temperature)
    running = open_tier(spec, model, policy)
    if _answers_vectors(running, parts.learn):
        only = Candidate(way, f"cannot be done: {_VECTORS}")
        return Slimming(name, (only,), None, model, spec.confidence.temperature)
    variants = _variants(running, model, parts, way)
    return slim(policy, spec, model, variants, parts, max_loss=max_loss, alpha=alpha)


def _answers_vectors(running: Running, data: Data) -> bool:
    values, _ = running.answers(data.take([0]))
    return isinstance(values[0], np.ndarray)


def _variants(running: Running, model: bytes, parts: Parts, way: str) -> list[Variant]:
    if way == "quantize":
        few = range(min(parts.learn.n, CALIBRATION))
        return quantized(model, [_feed(running, parts.learn.take([i])) for i in few])
    return pruned(model, _feed(running, parts.learn), _codes(running, parts.learn))


def _feed(running: Running, data: Data) -> dict[str, Any]:
    fed: dict[str, Any] = running.tier.feed(running.cast(data.rows), data.n, batch=True)
    return fed


def _codes(running: Running, data: Data) -> Any:
    """Return the truth as class indices, None where some of it is no class."""
    if data.truth is None:
        return None
    if running.labels is None:
        return data.truth.astype(np.intp) if data.truth.dtype.kind in "iu" else None
    places = {label: at for at, label in enumerate(running.labels)}
    codes = np.array([places.get(label, -1) for label in data.truth.tolist()])
    return None if (codes < 0).any() else codes
