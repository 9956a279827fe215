"""A certified policy over two external tiers, and the recording that it was fitted on."""

import functools

import attrs
import numpy as np

import cascade
from cascade.policy.settings import LoadSettings


@functools.cache
def fitted(n=6_000, seed=0):
    """Return a policy certified at a loss of 2 %, whose path goes on into brownout."""
    chance = np.random.default_rng(seed)
    sure = np.round(1.0 - chance.random(n) ** 2, 3)
    right = chance.random(n) < sure
    truth = chance.integers(10, size=n)
    other = (truth + chance.integers(1, 10, size=n)) % 10
    recording = {
        "truth": truth.tolist(),
        "small.value": np.where(right, truth, other).tolist(),
        "small.confidence": sure.tolist(),
        "large.value": np.where(chance.random(n) < 0.97, truth, other).tolist(),
        "small.cost": [1.0] * n,
        "large.cost": [10.0] * n,
    }
    return cascade.fit(recording, max_loss=0.02, alpha=0.1, covers="adaptive").policy, recording


def moving(*, spare=False, load=True, brownout=True, deadline=0.2, execution="worker", **more):
    """Return that policy with a ``load:`` block, one worker per tier."""
    policy, recording = fitted()
    settings = LoadSettings(brownout=brownout, **more) if load else None
    tiers = tuple(attrs.evolve(spec, workers=1, execution=execution) for spec in policy.tiers)
    changed = attrs.evolve(
        policy, load=settings, deadline=deadline, tiers=tiers,
        escalation=attrs.evolve(policy.escalation, spare_budget=spare),
    )  # fmt: skip
    return changed, recording
