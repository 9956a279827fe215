"""``route_many`` is ``route`` over columns: the same facts give the same decisions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cascade
from cascade import Policy, Router
from cascade.errors import CascadeError

confidences = st.one_of(st.floats(0, 1), st.sampled_from([math.nan, 1.5, 0.0, 1.0]))
TIERS = ("small", "middle", "large")


@st.composite
def worlds(draw):
    rows = draw(st.lists(st.tuples(confidences, confidences, confidences), min_size=3, max_size=12))
    escalation = {"thresholds": [draw(st.floats(0, 1)), draw(st.floats(0, 1))]}
    if draw(st.booleans()):
        escalation["abstain_below"] = draw(st.floats(0, 1))
    tree = {
        "version": 1, "name": "p", "deadline": "1h", "escalation": escalation,
        "tiers": [{"name": name, "kind": "external"} for name in TIERS],
        "mode": draw(st.sampled_from(["enforce", "top_only", "first_only"])),
    }  # fmt: skip
    if tree["mode"] != "enforce" and draw(st.booleans()):
        del escalation["thresholds"]
    if draw(st.booleans()):
        cuts = sorted(draw(st.lists(st.floats(0, 1), min_size=1, max_size=2)))
        tree["complexity"] = {"weights": {"length": 0.7}, "intercept": -3, "skip_above": cuts}
    return {
        "policy": Policy.from_dict(tree),
        "rows": rows,
        "broken": draw(st.sets(st.sampled_from(TIERS), max_size=2)),
        "at_least": draw(st.sampled_from([None, *TIERS])),
        "refusing": draw(
            st.dictionaries(st.sampled_from(TIERS), st.sampled_from([1 << 60, -1, -2]))
        ),
    }


def tier_of(i, world):
    def answer(texts):
        if TIERS[i] in world["broken"]:
            raise RuntimeError
        return [(f"{TIERS[i]} {text}", world["rows"][int(text[:3])][i]) for text in texts]

    def columns(texts):
        pairs = answer(texts)
        return cascade.Prediction([v for v, _ in pairs], confidences=[c for _, c in pairs])

    return cascade.tier(columns, returns="prediction")


def told(outcome):
    confidence, disposition = outcome.confidence, outcome.disposition
    if (disposition, outcome.reason) == ("shed", "deadline"):
        disposition = "failed"  # as of a batch's rows that were not reached
    return (
        outcome.value, outcome.tier, confidence, disposition, outcome.reason,
        outcome.covered, outcome.best,
        [(s.tier, s.result, s.reason, s.confidence, s.threshold) for s in outcome.steps],
    )  # fmt: skip


def ask(router, text, at_least):
    try:
        return router.route(text, at_least=at_least)
    except CascadeError as error:
        return error.outcome


@given(worlds())
def test_same_facts_same_decisions(world):
    tiers = {name: tier_of(i, world) for i, name in enumerate(TIERS)}
    texts = [f"{i:03d}" + "x" * (i % 5) for i in range(len(world["rows"]))]
    with Router(world["policy"], tiers=tiers) as router:
        plan = router._service.plan
        for name, eta in world["refusing"].items():
            i = TIERS.index(name)
            plan.lanes[i].eta = plan.etas[i] = lambda rows=1, eta=eta: eta
        one = [ask(router, text, world["at_least"]) for text in texts]
        many = router.route_many(texts, at_least=world["at_least"], deadline="1h")
    assert [told(a) for a in many] == [told(b) for b in one]


def test_columns_agree_with_the_outcomes():
    policy = Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "1s", "cache": {},
            "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
            "escalation": {"thresholds": [0.5]},
        }
    )  # fmt: skip
    runs = []

    def small(batch):
        runs.append(("small", len(batch)))
        return [(int(x), 0.9 if x % 2 else 0.1) for x in batch]

    def large(batch):
        runs.append(("large", len(batch)))
        return [int(x) * 10 for x in batch]

    tiers = {"small": cascade.tier(small, returns="pairs"), "large": large}
    with Router(policy, tiers=tiers) as router:
        many = router.route_many(np.arange(10))
        assert runs == [("small", 10), ("large", 5)]  # one run per tier
        assert many.values.tolist() == [0, 1, 20, 3, 40, 5, 60, 7, 80, 9]
        assert many.tiers.tolist() == ["large", "small"] * 5
        assert [str(d) for d in many.dispositions] == ["accepted"] * 10
        assert many.confidences[1] == 0.9
        assert np.isnan(many.confidences[0])
        assert many[1].confidence == 0.9
        assert many[0].confidence is None
        assert [each.value for each in many[:3]] == [0, 1, 20]
        assert many[-1].value == 9
        with pytest.raises(IndexError):
            many[10]
        assert len(router.route_many([])) == 0
        assert router.statistics().requests == 10
        first = router.route_many(np.arange(4), use_cache=True)
        again = router.route_many(np.arange(4), use_cache=True)
        assert again.values.tolist() == first.values.tolist()
        assert {str(d) for d in again.dispositions} == {"cached"}
        assert (
            router.route_many(np.arange(4), at_least="large", use_cache=True).tiers.tolist()
            == ["large"] * 4
        )


def test_a_deadline_covers_the_whole_call():
    now = [0]

    def slow(batch):
        now[0] += 10_000_000 * len(batch)
        return [(x, 0.1) for x in batch]

    tree = {
        "version": 1, "name": "p", "escalation": {"thresholds": [0.5]},
        "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
    }  # fmt: skip
    tiers = {
        "small": cascade.tier(slow, returns="pairs"),
        "large": cascade.tier(slow, returns="pairs"),
    }
    with Router(Policy.from_dict(tree), tiers=tiers, clock=lambda: now[0]) as router:
        router.route_many(list(range(100)))  # the lanes learn how long a row takes
        many = router.route_many(list(range(1000)), deadline=5.0)
    counts = dict(zip(*np.unique(many.dispositions.astype(str), return_counts=True), strict=True))
    assert set(counts) == {"degraded", "failed"}
    late = many[len(many) - 1]
    assert (late.disposition, late.reason, late.value) == ("failed", "deadline", None)
    assert now[0] < 8_000_000_000
