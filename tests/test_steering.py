"""Steering, live: routers whose operating point follows the load, in virtual time."""

import logging

import attrs
import pytest

import cascade
from cascade import PolicyError, Router
from cascade.testing import recorded, router_for
from cascade.virtual import VirtualClock
from tests.certified import fitted, moving


class Live:
    """A router over recorded tiers, with a clock that is set by hand."""

    def __init__(self, **settings):
        self.policy, recording = moving(execution="inline", **settings)
        self.clock = VirtualClock()
        names = [spec.name for spec in self.policy.tiers]
        values = {name: recording[f"{name}.value"] for name in names}
        sure = recording["small.confidence"]
        self.router = Router(
            self.policy,
            clock=self.clock,
            tiers={
                "small": cascade.tier(
                    lambda i: (values["small"][int(i)], sure[int(i)]), returns="pairs", rows="one",
                    version=self.policy.tiers[0].version,
                ),
                "large": cascade.tier(
                    lambda i: values["large"][int(i)], rows="one",
                    version=self.policy.tiers[1].version,
                ),
            },
        )  # fmt: skip
        self.router.warmup()

    def serve(self, n, gap):
        """Route n requests, one per ``gap`` seconds."""
        outcomes = []
        for i in range(n):
            self.clock.advance(gap)
            outcomes.append(self.router.route(i % 6_000, use_cache=False))
        return outcomes


def test_the_point_in_force_stands_in_outcomes_statistics_and_metrics(caplog):
    live = Live()
    with live.router as router, caplog.at_level(logging.INFO, "cascade"):
        cheapest = live.policy.point.index
        assert live.serve(1, 0.01)[0].point == cheapest
        outcomes = live.serve(50, 0.1)  # hardly any load: 5 s of it
        moves = router.statistics().moves
        assert [move.before for move in moves] == [cheapest]
        assert outcomes[-1].point == moves[-1].after == router.statistics().point < cheapest
        assert f"cascade_point_index {moves[-1].after}" in router.metrics()
        assert outcomes[-1].to_dict()["point"] == moves[-1].after
        assert any(str(moves[-1]) in record.getMessage() for record in caplog.records)
        assert all(one.covered for one in outcomes)


def test_of_two_threads_that_are_about_to_look_at_the_load_one_does():
    live = Live()
    with live.router as router:
        live.serve(2, 10.0)
        steering = router._service.plan.steering
        seen, now = steering.latest, live.clock()
        steering._look(now)
        assert steering.latest is seen
        steering._look(now + 10**10)
        assert steering.latest is not seen


def test_the_load_can_be_read():
    live = Live()
    with live.router as router:
        live.serve(40, 0.05)
        load = router.load()
        assert load.rate == pytest.approx(20.0, rel=0.1)
        assert [tier.tier for tier in load.tiers] == ["small", "large"]
        assert all(tier.queued == tier.zombies == 0 for tier in load.tiers)
        assert not any(tier.broken for tier in load.tiers)


def test_who_reads_the_load_does_not_cut_the_controller_s_interval_short():
    """What came right after the look was a rate of its own, and a move was made by it."""
    live = Live()
    with live.router as router:
        live.serve(99, 0.01)
        assert router.load().seconds == pytest.approx(0.99)  # nothing was looked at yet
        live.serve(1, 0.01)
        seen = router.load()
        assert (seen.seconds, seen.rate) == (pytest.approx(1.0), pytest.approx(100.0))


def test_the_load_can_be_read_without_a_load_block():
    policy = attrs.evolve(moving()[0], load=None)
    with router_for(policy, **recorded(fitted()[1])) as router:
        router.load()
        for i in range(5):
            router.route(i)
        assert router.load().rate > 0


def test_a_swap_begins_anew_at_the_cheapest_certified_point():
    live = Live()
    with live.router as router:
        live.serve(60, 0.1)
        assert router.statistics().moves
        router.swap(attrs.evolve(live.policy, deadline=0.3))
        assert router.statistics().moves == ()
        assert router.statistics().point == live.policy.point.index


def test_load_needs_a_path_to_move_along():
    tree = {
        "version": 1, "name": "p", "deadline": "1s",
        "tiers": [{"name": "a", "kind": "external"}, {"name": "b", "kind": "external"}],
        "escalation": {"thresholds": [0.5], "spare_budget": True}, "load": {"brownout": True},
    }  # fmt: skip
    with pytest.raises(PolicyError) as caught:
        cascade.Policy.from_dict(tree)
    assert [issue.path for issue in caught.value.issues] == ["load", "escalation.spare_budget"]
    assert "needs escalation.certificate" in str(caught.value)


def test_a_certificate_for_one_fixed_point_lets_load_move_only_into_brownout():
    policy, _ = moving()
    fixed = attrs.evolve(policy.certificate, covers="fixed_point")
    attrs.evolve(policy, certificate=fixed)
    with pytest.raises(PolicyError, match="one fixed point"):
        attrs.evolve(policy, certificate=fixed, load=attrs.evolve(policy.load, brownout=False))
    bare = attrs.evolve(
        policy.certificate,
        path=tuple(attrs.evolve(point, escalation=()) for point in policy.certificate.path),
    )
    with pytest.raises(PolicyError, match="fit it again"):
        attrs.evolve(policy, certificate=bare)
