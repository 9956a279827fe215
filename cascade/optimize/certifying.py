"""Certify a policy anew after one of its models changed, or say why that takes something else."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

import cascade
from cascade.fitting.certify import cannot_certify, certificate_of, fixed_sequence_test
from cascade.fitting.losses import LOSSES, loss_table
from cascade.fitting.paths import learned_path, two_tier_path
from cascade.optimize.running import open_tier
from cascade.optimize.timing import interleave
from cascade.policy.certificate import Certificate, PathPoint
from cascade.policy.digest import tier_digest
from cascade.types import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from cascade.errors import CannotCertify
    from cascade.optimize.data import Data, Parts
    from cascade.optimize.running import Running
    from cascade.policy import Policy

    Array = npt.NDArray[Any]

__all__ = ["certify_anew", "strictest", "why_not_certify"]

_ROUNDS = 5


def why_not_certify(policy: Policy, old: Certificate, data: Data) -> str | None:
    """Say why rows cannot renew this certificate; None when they can."""
    external = [repr(spec.name) for spec in policy.tiers if spec.kind != "onnx"][:1]
    reasons = (
        (external, f"tier {''.join(external)} is bound in Python and cannot be run from here"),
        (old.loss not in LOSSES, f"its loss is {old.loss!r}, which needs a recording"),
        (
            old.loss == "gross" and data.truth is None,
            "it bounds the gross loss, which needs the truth (y in DATA)",
        ),
        (policy.postprocess, "answers pass through a function in Python (postprocess)"),
        (
            policy.calibrations,
            "its scores are calibrated by tables, which have to be fitted anew",
        ),
        (
            policy.complexity,
            "it was tested with an entry rule, which has to be fitted with it",
        ),
    )
    return next((reason for holds, reason in reasons if holds), None)


def certify_anew(
    policy: Policy, old: Certificate, parts: Parts, models: Mapping[str, bytes]
) -> tuple[Certificate, CannotCertify | None]:
    """Test thresholds anew, for the promise of ``old``, on rows that had no say in anything else.

    ``models`` holds the bytes per tier. With three tiers or more the path is learned on the other
    parts. Returns the certificate, and the problem if nothing beyond 'always escalate' holds.
    """
    specs: Any = policy.tiers  # ONNX all of them: why_not_certify
    tiers = [open_tier(spec, models[spec.name], policy) for spec in specs]
    test = parts.certify
    confidences, losses = _table(tiers, test, old.loss)
    costs = _costs(tiers, test)
    if len(tiers) == 2:
        path = two_tier_path(confidences)
    else:
        seen = [_table(tiers, part, old.loss) for part in (parts.learn, parts.choose)]
        known = [np.concatenate(columns) for columns in zip(*seen, strict=True)]
        path = learned_path(known[0], known[1], costs, old.max_loss, old.alpha)
    tested = fixed_sequence_test(path, confidences, losses, max_loss=old.max_loss, alpha=old.alpha)
    digests = {spec.name: tier_digest(policy, spec) for spec in policy.tiers}
    facts: dict[str, Any] = {
        "digests": {**digests, "data": _digest(test)},
        "created": dt.datetime.now(dt.UTC).date().isoformat(),
        "versions": {"cascade": cascade.__version__, "numpy": np.__version__},
        "note": "certified anew after a model changed, one row at a time",
    }
    made = certificate_of(tested, old.tiers, loss=old.loss, costs=costs, **facts)
    return made, cannot_certify(tested)


def strictest(policy: Policy, old: Certificate) -> Certificate:
    """Return what still holds when a model has changed and nothing was tested: always escalate."""
    calls = (0.0,) * (len(old.tiers) - 1) + (1.0,)
    point = PathPoint(
        thresholds=(NEVER,) * (len(old.tiers) - 1), losses=0, p_value=0.0, escalation=calls
    )
    digests = {spec.name: tier_digest(policy, spec) for spec in policy.tiers}
    return attrs.evolve(
        old, path=(point,), certified=1, digests=digests, seed=None, fractions=None,
        note="void: a model changed after the test; only 'always escalate' holds",
    )  # fmt: skip


def _table(tiers: list[Running], data: Data, loss: str) -> tuple[Array, Array]:
    """Return confidences and losses of the tiers below the top, (n, K-1) each."""
    answers = [tier.answers(data) for tier in tiers]
    losses = loss_table(loss, [values for values, _ in answers], data.truth)
    return np.column_stack([sure for _, sure in answers[:-1]]), losses


def _costs(tiers: list[Running], data: Data) -> list[float]:
    found = interleave({tier.spec.name: tier.single(data) for tier in tiers}, _ROUNDS)
    return [float(np.median(found[tier.spec.name])) for tier in tiers]


def _digest(data: Data) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, column in sorted(data.columns.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(column).tobytes())
    if data.truth is not None:
        digest.update(repr(data.truth.tolist()).encode())
    return digest.hexdigest()
