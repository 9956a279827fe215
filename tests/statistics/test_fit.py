"""All of ``cascade.fit`` at once, on samples of a pool whose risk is known.

Whatever it chooses (ladder, score, loss) by looking, the promise must hold: of many fits at most a
share alpha may lose more than the bound on the pool. The long form, ``pytest -m slow``, is 10,000
fits; a correct one breaks at most 1,095 of them but once in a thousand.
"""

import numpy as np
import pytest
from scipy.stats import binom

import cascade
from cascade import CannotCertify, Recording
from cascade.fitting import deciding_tiers
from cascade.fitting.search import Rows

ALPHA, POOL = 0.1, 20_000


def pool(seed=0, tiers=2):
    """Labels that the small tier knows and does not, and rows that only it gets right."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, POOL)
    hard = rng.random(POOL)
    table = {"truth": truth.astype(str)}
    for i, name in enumerate(["small", "middle", "large"] if tiers == 3 else ["small", "large"]):
        top = name == "large"
        skill = np.full(POOL, 0.96) if top else 1 - hard * (0.7 - 0.25 * i) * (truth > 1)
        right = rng.random(POOL) < skill
        said = np.where(right, truth, (truth + rng.integers(1, 5, POOL)) % 5)
        table[f"{name}.value"] = said.astype(str)
        table[f"{name}.confidence"] = np.clip(skill + rng.normal(0, 0.1, POOL), 0, 1)
        table[f"{name}.cost"] = np.full(POOL, 20.0 if top else 1.0 + 3.0 * i)
    return Recording.from_columns(table)


def loses(found, whole):
    """The fitted cascade's loss on the pool, by the loss that it is certified for."""
    tiers = [whole.names.index(spec.name) for spec in found.policy.tiers]
    rows = Rows(whole, whole.right(), None)
    tables = {whole.names.index(name): t for name, t in found.policy.calibrations.items()}
    deciding = deciding_tiers(rows.scores(found.candidate, tables), found.thresholds)
    lost = rows.losses(found.candidate.tiers, found.candidate.loss).astype(float)
    padded = np.column_stack([lost, np.zeros(len(lost))])
    assert padded.shape[1] == len(tiers)
    return padded[np.arange(len(lost)), deciding].mean()


def broken(whole, n, max_loss, repeats, **settings):
    rng = np.random.default_rng(7)
    count = made = 0
    for seed in range(repeats):
        sample = whole.take(rng.integers(0, whole.n, n))
        try:
            found = cascade.fit(sample, max_loss=max_loss, alpha=ALPHA, seed=seed, **settings)
        except CannotCertify:
            continue
        made += 1
        count += loses(found, whole) > max_loss
    return count, made


CASES = [
    ({}, 2, 2_000, 0.02),
    ({}, 3, 2_000, 0.05),
    ({"loss": "net", "score": "by_label"}, 2, 2_000, 0.02),
    ({"loss": "net", "score": "plain"}, 2, 500, 0.05),
    ({"loss": "gross", "score": "plain"}, 2, 500, 0.05),
    ({"loss": "gross", "score": "learned"}, 2, 1_000, 0.05),
]


@pytest.mark.parametrize(("settings", "tiers", "n", "max_loss"), CASES)
def test_it_keeps_its_promise(settings, tiers, n, max_loss):
    repeats = 30
    count, made = broken(pool(tiers=tiers), n, max_loss, repeats, **settings)
    assert made > repeats // 2
    assert count <= binom.isf(1e-3, repeats, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "tiers", "n", "max_loss"), CASES)
def test_it_keeps_its_promise_ten_thousand_times(settings, tiers, n, max_loss):
    count, _ = broken(pool(tiers=tiers), n, max_loss, 10_000, **settings)
    assert count <= 1_095
