"""The entry rule: fitted from what an input shows, inside the proof, and served."""

import json

import attrs
import numpy as np
import pytest

import cascade
from cascade import Policy, PolicyError, Router
from cascade.fitting import redo_test
from cascade.fitting.entry import fit_entry


def table_of(n=9_000, seed=0, *, text=False):
    """Half the inputs are plainly too hard for the small tier, which costs a third of the top."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.5
    truth = rng.integers(0, 2, n)
    right = rng.random(n) < np.where(hard, 0.5, 0.999)
    table = {
        "truth": truth,
        "small.value": np.where(right, truth, 1 - truth),
        "small.confidence": np.clip(np.where(hard, 0.5, 0.97) + rng.normal(0, 0.01, n), 0, 1),
        "large.value": truth,
        "small.cost": np.full(n, 5.0),
        "large.cost": np.full(n, 15.0),
    }
    if text:
        return table | {"input": ["why? " * 9 if h else "yes" for h in hard]}
    return table | {
        "x.size": hard * 3.0 + rng.normal(0, 0.3, n), "x.noise": rng.normal(size=n)
    }  # fmt: skip


@pytest.mark.parametrize("text", [False, True])
def test_hard_inputs_skip_the_small_tier_and_it_pays(text):
    table = table_of(text=text)
    found, without = cascade.fit(table), cascade.fit(table, entry=False)
    assert found.entry is not None
    assert found.cost < without.cost - 1.5
    point = found.certificate.path[found.certificate.certified - 1]
    assert point.skip_above == (found.entry.cut,)
    assert 0.4 < point.escalation[0] < 0.6
    assert "skip small" in found.report()
    assert redo_test(found.policy, table) == []


def test_without_a_gain_there_is_no_rule():
    table = table_of()
    noise = np.random.default_rng(1).normal(size=9_000)
    assert cascade.fit(table | {"x.size": noise}).entry is None
    cheap = table | {"small.cost": np.full(9_000, 0.01)}
    assert cascade.fit(cheap).entry is None


def test_what_is_fitted_is_what_is_served(tmp_path):
    table = table_of(text=True)
    path = cascade.fit(table).save(tmp_path)
    policy = Policy.from_yaml(path, env={})
    replayed = cascade.replay(policy, table)
    pairs = list(zip(table["small.value"], table["small.confidence"], strict=True))
    now = {"row": 0}
    tiers = {
        "small": cascade.tier(lambda _: pairs[now["row"]], returns="pairs", rows="one"),
        "large": cascade.tier(lambda _: 1, rows="one"),
    }

    def ask(router, row):
        now["row"] = row
        return router.route(table["input"][row], deadline=1.0)

    with Router(policy, tiers=tiers) as router:
        served = [ask(router, row) for row in range(100)]
    assert [o.tier for o in served] == list(replayed.tiers[:100])
    skipped = [o for o in served if len(o.steps) == 1 and o.tier == "large"]
    assert 30 < len(skipped) < 70
    assert all(o.covered for o in served)
    assert replayed.mean_cost == pytest.approx(cascade.fit(table).cost, rel=0.02)


def test_another_rule_voids_the_certificate(tmp_path):
    path = cascade.fit(table_of()).save(tmp_path)
    text = path.read_text()
    assert "intercept: -" in text
    path.write_text(text.replace("intercept: -", "intercept: -1"))
    with pytest.raises(PolicyError, match="entry rule differs from the one certified"):
        Policy.from_yaml(path, env={})


def test_a_changed_cut_is_found_by_redoing_the_test(tmp_path):
    table = table_of()
    found = cascade.fit(table)
    path = [attrs.evolve(p, skip_above=(0.999999,)) for p in found.certificate.path]
    moved = found.policy.certified(attrs.evolve(found.certificate, path=path))
    assert redo_test(moved, table)


def test_rules_that_did_not_see_a_row_judge_it():
    rng = np.random.default_rng(0)
    features = {str(i): rng.normal(size=200) for i in range(30)}
    wasted = rng.random(200) < 0.5
    rule, fair = fit_entry(features, wasted)
    inside = rule.complexities(features)
    assert np.corrcoef(fair, wasted)[0, 1] < np.corrcoef(inside, wasted)[0, 1]
    assert fit_entry(features, np.zeros(200, dtype=bool)) is None


def test_weights_are_for_the_features_as_they_come():
    held = cascade.Recording.from_columns(table_of(500))
    features = held.shown
    scaled = {name: 1e3 * column + 7 for name, column in features.items()}
    wasted = held.tiers[0].confidence < 0.8
    one, other = fit_entry(features, wasted)[0], fit_entry(scaled, wasted)[0]
    assert one.complexities(features) == pytest.approx(other.complexities(scaled), abs=1e-4)
    assert json.dumps(dict(one.weights))
