"""The lane that chooses: inline while the tier is known to be fast."""

import time

import pytest

import cascade
from cascade import Policy
from cascade.binding import bind
from cascade.lanes import Watchdog, make_lane
from cascade.load import ServiceTime
from cascade.protocols import InputSpec
from tests.contract.test_lanes import Job


def make(service, known, shape=None, **spec):
    spec = {"name": "it", "kind": "external", **spec}
    policy = Policy.from_dict({"version": 1, "name": "p", "deadline": "9s", "tiers": [spec]})
    target = cascade.tier(lambda x: (x, 0.9), returns="pairs", rows="one")
    (tier,) = bind(policy, {"it": target}, None, {})
    if shape is not None:
        tier.inputs, tier.can_stop = (InputSpec("x", "float32", shape),), True
    clock = time.monotonic_ns
    return make_lane(
        policy.tiers[0], 0, tier, clock, service, known, None, None, Watchdog(clock), 2
    )


@pytest.mark.parametrize(
    ("start", "known", "inline"),
    [(50_000, True, True), (150_000, True, False), (0, False, False)],
    ids=["fast by its profile", "slow by its profile", "unknown"],
)
def test_it_starts_from_the_measured_profile(start, known, inline):
    lane = make(ServiceTime(start), known)
    assert lane.inline is inline
    lane.close()


def test_a_tier_that_proves_fast_comes_inline():
    lane = make(ServiceTime(), known=False)
    while not lane.inline:
        assert lane.call(Job(1)).batch is not None  # by a worker
    assert lane.service.runs >= 16
    assert lane.call(Job(1)).batch is None
    lane.close()


def test_a_tier_that_slows_down_goes_back_and_does_not_flap():
    lane = make(ServiceTime(50_000), known=True)
    for elapsed, inline in ((150_000, True), (250_000, False), (150_000, False), (50_000, True)):
        for _ in range(256):
            lane.service.observe(elapsed)
        assert lane.inline is inline
    lane.close()


def test_a_model_whose_rows_have_no_fixed_size_is_not_believed_to_be_fast():
    fast = {"service": ServiceTime(50_000), "known": True}
    assert make(**fast, shape=(4,)).inline
    assert not make(**fast, shape=(4, None)).inline
    near = make(**fast, shape=(4, None), execution="inline")
    assert near.inline
    assert not near.bare  # it is watched, whatever it took so far


def test_what_the_policy_says_is_done():
    assert make(ServiceTime(10**9), known=True, execution="inline").inline
    lane = make(ServiceTime(1), known=True, execution="worker", workers=3, queue=5)
    assert (lane.inline, lane.workers, lane.limit) == (False, 3, 5)


def test_batching_one_by_one_is_not_done():
    lane = make(ServiceTime(), known=False, execution="worker", batch={"max_size": 8})
    assert lane.cap == 1
