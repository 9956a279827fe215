"""What every kind of tier owes its lane, whatever it is made of."""

import time

import numpy as np
import pytest

import cascade
from cascade import Policy, Prediction
from cascade.binding import bind
from cascade.errors import TierError
from cascade.facts import Failed, Replied
from cascade.lanes import InlineLane
from tests.benchmarks.models import perceptron

N = 5
ROWS = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)


class Job:
    """A request as a lane sees it."""

    tenant, metadata, until = None, {}, 2**62

    def __init__(self, row):
        self.row = row

    def remaining(self):
        return 1.0

    def cancelled(self):
        return False


def probabilities(rows):
    rows = np.asarray(rows, dtype=np.float64)[:, :3]
    weights = np.exp(rows - rows.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


class Predictor:
    version = "1"

    def predict(self, batch, context):
        assert context.remaining() > 0
        assert not context.cancelled()
        return Prediction(probabilities=probabilities(batch), version="1", costs=[2.0] * len(batch))


def pair(row):
    (found,) = probabilities(row[None])
    return int(found.argmax()), float(found.max())


TIERS = {
    "onnx": None,
    "object": Predictor(),
    "probabilities": cascade.tier(probabilities, returns="probabilities"),
    "pairs, batch": cascade.tier(lambda rows: [pair(row) for row in rows], returns="pairs"),
    "pairs, one": cascade.tier(pair, returns="pairs", rows="one"),
    "with context": cascade.tier(
        lambda rows, context: probabilities(rows) if context.remaining() else None,
        returns="probabilities",
        context=True,
    ),
}


@pytest.fixture(params=TIERS)
def bound(request, tmp_path):
    target = TIERS[request.param]
    spec = {"name": "it", "kind": "external", "version": "1"}
    if target is None:
        perceptron(tmp_path / "m.onnx", [4, 3], 0)
        spec = {"name": "it", "kind": "onnx", "model": "m.onnx"}
    policy = Policy.from_dict({"version": 1, "name": "p", "deadline": "1s", "tiers": [spec]})
    (tier,) = bind(policy, {} if target is None else {"it": target}, tmp_path, {})
    tier.open()
    yield tier
    tier.close()


def test_a_row_and_a_batch_say_the_same(bound):
    lane = InlineLane(0, bound, time.monotonic_ns)
    reply = lane.call_rows(ROWS, N, Job(None))
    assert (len(reply.values), len(reply.confidences)) == (N, N)
    assert reply.started <= reply.finished
    for row, value, confidence in zip(ROWS, reply.values, reply.confidences, strict=True):
        one = lane.call(Job(row))
        assert one.value == value
        assert one.confidence == pytest.approx(confidence, abs=1e-6)
        assert 0 <= one.confidence <= 1
        assert type(one.value) is int
        assert one.known is reply.known is True


def test_a_call_completes_with_one_fact_in_time_order(bound):
    lane, facts = InlineLane(3, bound, time.monotonic_ns), []
    lane.submit(Job(ROWS[0]), facts.append)
    (fact,) = facts
    assert isinstance(fact, Replied)
    assert fact.tier == 3
    assert fact.submitted <= fact.started <= fact.finished


def test_opening_twice_is_opening_once(bound):
    before = bound.read(bound.run(Job(ROWS[0])))
    bound.open()
    assert bound.read(bound.run(Job(ROWS[0]))) == before


def test_what_a_tier_cannot_take_is_a_fault_of_its_own(bound):
    fact = InlineLane(0, bound, time.monotonic_ns).call(Job("no row at all"))
    assert isinstance(fact, Failed)
    assert isinstance(fact.error, TierError)
    assert fact.error.tier == "it"
    assert "no row at all" not in str(fact.error)


def test_a_tier_that_is_not_silent_can_be_asked_for_its_remarks(bound):
    if not bound.silent:  # a silent one is never asked
        known, cost = bound.remarks(bound.run(Job(ROWS[0])))
        assert known
        assert cost in {None, 2.0}


def test_costs_and_versions_are_passed_on():
    policy = Policy.from_dict(
        {"version": 1, "name": "p", "deadline": "1s",
         "tiers": [{"name": "it", "kind": "external", "version": "1"}]}
    )  # fmt: skip

    class Other(Predictor):
        version = None

        def predict(self, batch, context):
            made = super().predict(batch, context)
            made.version = "2"
            return made

    with cascade.Router(policy, tiers={"it": Other()}) as router:
        one, many = router.route(ROWS[0]), router.route_many(ROWS)
    assert (one.cost, one.covered) == (2.0, False)
    assert not many.covered.any()
