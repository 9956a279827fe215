"""The learned score: fitted without leaking, applied alike to a row and to rows, and served."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cascade
from cascade import Policy, Router
from cascade.calibration import ByLabel, Learned, calibration_of
from cascade.fitting import redo_test
from cascade.fitting.learned import cross_fitted_score, fit_learned


def table_of(n=9_000, seed=0):
    """The small tier is right on short texts, whatever its confidence says."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, 20, n)
    truth = rng.integers(0, 2, n)
    right = rng.random(n) < np.where(words < 10, 0.999, 0.6)
    return {
        "truth": truth,
        "small.value": np.where(right, truth, 1 - truth),
        "small.confidence": rng.uniform(0.5, 1.0, n),
        "large.value": truth,
        "small.cost": np.full(n, 0.1),
        "large.cost": np.full(n, 10.0),
        "input": ["word " * count for count in words],
    }


def test_what_the_input_shows_is_used():
    found = cascade.fit(table_of(), entry=False)
    assert found.candidate.score == "learned"
    assert found.saves > 0.35
    assert "what the input shows" in found.report()
    assert redo_test(found.policy, table_of()) == []


def test_what_is_fitted_is_what_is_served(tmp_path):
    table = table_of()
    policy = Policy.from_yaml(cascade.fit(table, entry=False).save(tmp_path), env={})
    rows = list(range(150))
    said = {
        text: (int(table["small.value"][i]), float(table["small.confidence"][i]))
        for i, text in ((i, f"{table['input'][i]}") for i in reversed(rows))
    }
    chosen = {text: i for i, text in ((i, table["input"][i]) for i in reversed(rows))}
    texts = list(chosen)
    tiers = {
        "small": cascade.tier(lambda xs: [said[x] for x in xs], returns="pairs"),
        "large": lambda xs: [1 for _ in xs],
    }
    with Router(policy, tiers=tiers) as router:
        one = [router.route(text, deadline=1.0) for text in texts]
        many = router.route_many(texts)
    replayed = cascade.replay(policy, table)
    assert (
        [o.tier for o in one] == many.tiers.tolist() == [replayed.tiers[chosen[t]] for t in texts]
    )
    assert {o.tier for o in one} == {"small", "large"}
    assert [o.steps[0].confidence for o in one] == pytest.approx(
        [policy.calibrations["small"].one(*said[text], text) for text in texts]
    )


def test_without_any_confidence_the_input_may_do(tmp_path):
    table = table_of()
    del table["small.confidence"]
    found = cascade.fit(table, entry=False)
    assert found.candidate.score == "learned"
    assert found.saves > 0.35
    policy = Policy.from_yaml(found.save(tmp_path), env={})
    tiers = {"small": lambda xs: [0 for _ in xs], "large": lambda xs: [1 for _ in xs]}
    texts = ["word " * 3, "word " * 18] * 2
    with Router(policy, tiers=tiers) as router:
        assert [router.route(text, deadline=1.0).tier for text in texts] == ["small", "large"] * 2
        assert router.route_many(texts).tiers.tolist() == ["small", "large"] * 2
    shares = cascade.replay(policy, table).calls
    assert 0.4 < shares["large"] < 0.7


def test_noise_is_not_learned_where_it_is_judged():
    rng = np.random.default_rng(0)
    features = {str(i): rng.normal(size=150) for i in range(40)}
    values, sure = np.array(["a"] * 150), rng.random(150)
    lost = (rng.random(150) < 0.5).astype(float)
    inside = fit_learned(values, sure, lost, features).rows(values, sure, features)
    fair = cross_fitted_score(values, sure, lost, features)
    assert np.corrcoef(inside, lost)[0, 1] < -0.4
    assert np.corrcoef(fair, lost)[0, 1] > -0.2


def test_without_losses_it_is_the_confidence():
    score = fit_learned(np.array(["a", "b"]), np.array([0.2, 0.9]), np.zeros(2), {})
    assert score.one("a", 0.2) == pytest.approx(0.2)


SCORE = Learned(0.3, 0.8, {"a": 1.0, "7": -2.0}, {"length": -0.1, "digits": 0.5})


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "7", "eel"]), st.floats(0, 1), st.text(max_size=20)),
        min_size=1,
    )
)
def test_a_row_and_rows_say_the_same(answers):
    values, confidences, texts = zip(*answers, strict=True)
    together = SCORE.rows(np.array(values), np.array(confidences), list(texts))
    alone = [SCORE.one(*answer) for answer in answers]
    assert together.tolist() == pytest.approx(alone)


def test_numbers_in_a_dict_are_features_too():
    score = Learned(0.0, 0.0, {}, {"x": 1.0})
    assert score.one("any", 0.5, {"x": 0.0}) == 0.5
    columns = score.rows(np.array(["a", "b"]), np.array([0.5, 0.5]), {"x": np.array([0.0, 0.0])})
    assert columns.tolist() == [0.5, 0.5]


def test_faults_stay_faults():
    assert SCORE.one("a", None, "") is None
    assert np.isnan(SCORE.one("a", np.nan, ""))
    assert np.isnan(SCORE.rows(np.array(["a"]), np.array([np.nan]), [""])).all()


def test_either_kind_is_read_back():
    for kind in (SCORE, ByLabel([0, 1], {"a": [0.1, 0.2]}, [0.3, 0.4])):
        again = calibration_of(json.loads(json.dumps(kind.to_dict())))
        assert type(again) is type(kind)
        assert again.to_dict() == kind.to_dict()
    with pytest.raises(ValueError, match="finite"):
        Learned(float("nan"), 1.0)


def test_by_label_alone_no_input_is_looked_at():
    score = Learned(0.0, 1.0, {"a": 1.0})
    values, sure = np.array(["a", "b"]), np.array([0.5, 0.5])
    together = score.rows(values, sure, ["text", "other"])
    assert together[0] > together[1] == pytest.approx(0.5)
    assert score.one("a", 0.5, "text") == pytest.approx(together[0])
