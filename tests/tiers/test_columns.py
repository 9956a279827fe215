"""What a Python tier returned: one rule for a row and for a batch of what is an answer."""

import asyncio
import math

import numpy as np
import pytest

import cascade
from cascade import AsyncRouter, Policy, Prediction, Router, TierOutputError
from cascade.calibration import Learned
from cascade.lanes import InlineLane
from cascade.policy.settings import ExternalSpec
from cascade.testing import VirtualClock
from cascade.tiers.python import PythonTier

NAN = math.nan
ROWS = ["x", "y", "z", "w"]
POLICY = Policy.from_dict(
    {
        "version": 1,
        "name": "p",
        "deadline": "9s",
        "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
        "escalation": {"thresholds": [0.8]},
        "cache": {},
    }
)
SURE = cascade.tier(lambda x: ("sure", 0.9), returns="pairs", rows="one")


async def awaited(x):
    return x


class Says:
    """A tier that predicts what it was told; a function is given the number of rows."""

    def __init__(self, **columns):
        self.columns = columns

    def predict(self, batch, context):
        n = len(batch)
        return Prediction(**{k: v(n) if callable(v) else v for k, v in self.columns.items()})


def one(answer):
    return cascade.tier(lambda x: answer(), returns="pairs", rows="one")


def many(answer):
    return cascade.tier(lambda xs: [answer() for _ in xs], returns="pairs")


def whole(answer):
    return cascade.tier(answer, returns="pairs")


def sure(values):
    return Says(values=values, confidences=lambda n: [0.9] * n)


NO_ANSWERS = [
    (one(lambda: ("a", "0.9")), "confidence: expected a number, got str"),
    (many(lambda: ("a", "0.9")), "confidence: expected a number, got str"),
    (
        Says(values=lambda n: ["a"] * n, confidences=lambda n: ["0.9"] * n),
        "confidences: expected 1",
    ),
    (
        Says(values=lambda n: ["a"] * n, margins=lambda n: ["0.9"] * n),
        "margins: expected 1",
    ),
    (one(lambda: ("a", None)), "confidence: expected a number, got NoneType"),
    (Says(values=lambda n: ["a"] * n, confidences=lambda n: [None] * n), r"number in \[0, 1\]"),
    (one(lambda: (NAN, 0.9)), "the value is NaN"),
    (many(lambda: (np.float32("nan"), 0.9)), "the value is NaN"),
    (sure(lambda n: np.full(n, NAN)), "the value is NaN"),
    (sure(lambda n: np.full((n, 2), NAN)), "the value holds NaN"),
    (one(lambda: ((i for i in "ab"), 0.9)), "the value is a generator; cascade does not stream"),
    (many(lambda: (iter([1]), 0.9)), "the value is a list_iterator; cascade does not stream"),
    (many(lambda: (awaited(1), 0.9)), "the value is a coroutine; a tier that is awaited"),
    (one(lambda: "ab"), r"expects \(value, confidence\) for each row, got a str"),
    (many(lambda: "ab"), r"expects \(value, confidence\) for each row, got a str"),
    (one(lambda: ("a", 0.9, 1)), "for each row, got a tuple of 3"),
    (many(lambda: ("a", 0.9, 1)), "for each row, got a tuple of 3"),
    (one(lambda: iter([1])), "what it returned is a list_iterator"),
    (whole(lambda xs: ((x, 0.9) for x in xs)), "what it returned is a generator"),
    (whole(lambda xs: map(str, xs)), "what it returned is a map; cascade does not stream"),
    (whole(lambda xs: awaited(xs[0])), "what it returned is a coroutine"),
    (sure(lambda n: "a" * n), "values: expected 1 of them, got a str"),
    (sure(lambda n: {"a": 1}), "values: expected 1 of them, got a dict"),
    (sure(lambda n: iter([1] * n)), "values: expected 1 of them, got a list_iterator"),
    (sure(lambda n: np.array(1.0)), "values: expected 1 of them, got a ndarray"),
    (Says(probabilities=[[0.5, 0.5], [1.0]]), "a .1, classes. matrix of numbers"),
    (Says(probabilities=lambda n: [["0.5", "0.5"]] * n), "a .1, classes. matrix of numbers"),
]


@pytest.mark.parametrize(("tier", "words"), NO_ANSWERS)
def test_what_is_no_answer_escalates_alone_and_in_a_batch_and_is_never_cached(tier, words):
    with Router(POLICY, tiers={"small": tier, "large": SURE}, env={}) as router:
        outcome = router.route("x")
        assert (outcome.tier, outcome.steps[0].result) == ("large", "failed")
        rows = router.route_many(ROWS)
        assert rows.tiers.tolist() == ["large"] * 4
        assert {row.steps[0].result for row in rows} == {"failed"}
        assert router.statistics().tiers["small"].results == {"failed": 5}


@pytest.mark.parametrize(("tier", "words"), NO_ANSWERS)
def test_what_is_no_answer_of_the_top_tier_says_why(tier, words):
    with Router(POLICY, tiers={"small": SURE, "large": tier}, env={}) as router:
        for _ in range(2):
            with pytest.raises(TierOutputError, match=words):
                router.route("x", at_least="large")
        rows = router.route_many(ROWS, at_least="large", use_cache=True)
        assert set(rows.dispositions) == {"failed"}
        statistics = router.statistics()
        assert statistics.tiers["large"].results == {"failed": 6}
        assert statistics.cache.entries == 0


@pytest.mark.parametrize("values", [[1.0, NAN, 2.0, 3.0], np.array([1.0, NAN, 2.0, 3.0])])
def test_one_faulty_value_of_a_batch_is_not_anothers(values):
    for tier in (Says(values=values), Says(values=values, confidences=[0.9] * 4)):
        with Router(POLICY, tiers={"small": SURE, "large": tier}, env={}) as router:
            rows = router.route_many(ROWS, at_least="large")
            found = [(str(row.disposition), row.value) for row in rows]
            sound = [("accepted", value) for value in (1.0, 2.0, 3.0)]
            assert found == [sound[0], ("failed", None), *sound[1:]]


def test_one_faulty_value_of_those_that_wait_together_is_not_anothers():
    def halves(xs):
        return np.array([NAN if x == "y" else 0.5 for x in xs])

    tiers = [{"name": "large", "kind": "external", "batch": {"max_size": 8}, "execution": "inline"}]
    policy = Policy.from_dict({"version": 1, "name": "p", "deadline": "9s", "tiers": tiers})

    async def main():
        async with AsyncRouter(policy, tiers={"large": halves}, env={}) as router:
            asked = (router.route(x) for x in ROWS * 4)
            return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(main())
    for x, outcome in zip(ROWS * 4, found, strict=True):
        assert isinstance(outcome, TierOutputError) if x == "y" else outcome.value == 0.5


@pytest.mark.parametrize("confidence", [0.9, np.float32(0.9), np.array(0.9), 1, True])
def test_whatever_is_a_number_is_a_confidence(confidence):
    for how in (one, many):
        with Router(
            POLICY, tiers={"small": how(lambda: ("a", confidence)), "large": SURE}, env={}
        ) as router:
            assert router.route("x").tier == "small"
            assert router.route_many(ROWS).tiers.tolist() == ["small"] * 4


@pytest.mark.parametrize("costs", [[], 5, ["1"], [NAN], [None]])
def test_a_cost_is_a_number(costs):
    tier = Says(values=lambda n: ["a"] * n, costs=costs)
    with Router(POLICY, tiers={"small": SURE, "large": tier}, env={}) as router:
        with pytest.raises(TierOutputError, match=r"costs: expected a (finite )?number"):
            router.route("x", at_least="large")


def test_a_score_that_needs_no_confidence_does_not_make_a_faulty_value_sound():
    tier = PythonTier(ExternalSpec(name="a"), Says(values=[1.0, NAN]), None)
    lane = InlineLane(0, tier, VirtualClock(), calibration=Learned(0.0, 0.0))
    reply = lane.call_rows(["x", "y"], 2, None)
    assert np.isnan(reply.confidences).tolist() == [False, True]
