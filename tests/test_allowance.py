"""Allowances: what a flood of escalations may cost, and whom."""

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cascade
from cascade import Policy, PolicyError, Router
from cascade.allowance import Allowance
from cascade.policy.settings import BreakerSettings
from cascade.simulation import Arrivals, simulate

TENANTS = st.sampled_from(["a", "b", "c", None])


@given(
    st.lists(st.tuples(TENANTS, st.booleans()), max_size=300),
    st.floats(0, 1), st.floats(0, 1), st.integers(1, 50),
)  # fmt: skip
def test_what_is_spent_is_bounded_per_tenant_and_overall(requests, overall, per_tenant, burst):
    allowance, spent = Allowance(overall, per_tenant, burst), {}
    for tenant, hard in requests:
        purse = allowance.earn(tenant)
        if hard:
            spent[tenant] = spent.get(tenant, 0) + purse.take()
    asked = {tenant: sum(t == tenant for t, _ in requests) for tenant in spent}
    assert sum(spent.values()) <= overall * len(requests) + allowance.limit + 1e-6
    for tenant, count in spent.items():
        assert count <= per_tenant * asked[tenant] + burst + 1e-6


def test_who_saves_may_use_the_reserve_and_who_floods_may_not():
    allowance = Allowance(overall=0.0, per_tenant=1.0, burst=10)
    taken = sum(allowance.earn("flood").take() for _ in range(500))
    assert taken == 50  # half of the overall bucket
    for _ in range(10):
        thrifty = allowance.earn("thrifty")
    assert thrifty.take() == 1


def test_without_a_share_per_tenant_the_overall_one_is_all_there_is():
    allowance = Allowance(overall=0.5, per_tenant=None, burst=10)
    taken = sum(allowance.earn(f"tenant {i % 3}").take() for i in range(1_000))
    assert 490 <= taken <= 500 + allowance.limit


def test_a_hundred_thousand_tenants_take_bounded_memory_and_begin_with_little():
    allowance = Allowance(overall=0.3, per_tenant=0.5, burst=20)
    spent = sum(allowance.earn(f"tenant {i}").take(20) for i in range(100_000))
    assert len(allowance) == 10_000
    assert spent <= 0.3 * 100_000 + allowance.limit


@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))])
def test_a_flood_costs_what_was_set_and_takes_nothing_from_others(seed):
    n = 20_000
    chance = np.random.default_rng(seed)
    attack = chance.random(n) < 0.3
    tenants = np.array(["x", "y", "z"], dtype=object)[chance.integers(3, size=n)]
    tenants[attack] = "attacker"
    table = {
        "truth": ["a"] * n, "small.value": ["a"] * n, "large.value": ["a"] * n,
        "small.confidence": np.where(attack, 0.0, 0.2 + chance.random(n)).clip(0, 1).tolist(),
    }  # fmt: skip
    found = simulate(
        policy_of(overall=0.6, per_tenant=0.5), table,
        Arrivals(np.arange(n) * 0.1, tenants=tenants),
        seconds={"small": "1ms", "large": "10ms"},
    )  # fmt: skip
    forced = np.array([str(end.reason) == "allowance" for end in found.log.ends])
    assert forced[~attack].mean() <= 0.01  # of whom three in ten escalate
    assert forced[attack].mean() == pytest.approx(0.5, abs=0.02)
    assert found.calls["large"] <= 0.6
    assert found.baselines["static"].calls["large"] == pytest.approx(0.3 + 0.7 * 0.3, abs=0.02)


def policy_of(**allowance):
    return Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "1s",
            "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
            "escalation": {"thresholds": [0.5], "allowance": allowance},
        }
    )  # fmt: skip


TIERS = {
    "small": cascade.tier(lambda x: (f"small {x}", 0.1), returns="pairs", rows="one"),
    "large": cascade.tier(lambda x: f"large {x}", rows="one"),
}


def test_a_router_refuses_escalations_beyond_it_and_says_why():
    with Router(policy_of(per_tenant=0.0, burst=4), tiers=TIERS) as router:
        flood = [router.route(str(i), tenant="a") for i in range(3)]
        assert [one.tier for one in flood] == ["large", "small", "small"]
        assert (flood[1].disposition, flood[1].reason) == ("degraded", "allowance")
        assert not flood[1].covered
        assert "allowance" in flood[1].explain()
        assert router.route("x", tenant="b").tier == "large"
        assert router.route("y", tenant="a", at_least="large").tier == "large"  # not an escalation


def test_a_batch_pays_for_its_rows():
    with Router(policy_of(per_tenant=0.5, burst=4), tiers=TIERS) as router:
        many = router.route_many([str(i) for i in range(20)], tenant="a")
        assert many.tiers.tolist().count("large") == 10  # half of them
        assert {str(why) for why in many.reasons} == {"top", "allowance"}
        assert (
            router.route_many(["x", "y", "z"], tenant="a", at_least="large").tiers.tolist()
            == ["large"] * 3
        )


def test_top_only_is_exempt():
    with Router(policy_of(per_tenant=0.0, burst=1), tiers=TIERS) as router:
        router.set_mode("top_only")
        assert [router.route(str(i)).tier for i in range(5)] == ["large"] * 5


def test_a_bare_percentage_is_refused_with_what_was_expected():
    with pytest.raises(PolicyError, match=r"escalation\.allowance"):
        policy_of(per_tenent=0.5)
    with pytest.raises(PolicyError, match="fraction"):
        policy_of(overall=7)


def test_a_tier_between_floor_and_entry_is_paid_for_by_rows_as_by_one():
    tree = {
        "version": 1, "name": "p", "deadline": "1s",
        "tiers": [{"name": name, "kind": "external"} for name in ("small", "middle", "large")],
        "escalation": {"thresholds": [0.5, 0.5], "allowance": {"per_tenant": 0.0, "burst": 1}},
        "complexity": {"weights": {"length": 1.0}, "skip_above": [0.5, 0.5]},
    }  # fmt: skip
    with Router(Policy.from_dict(tree), tiers=TIERS | {"middle": TIERS["small"]}) as router:
        one, (row,) = router.route("hard"), router.route_many(["hard"])
    for found in (one, row):
        assert (found.tier, str(found.reason)) == ("small", "allowance")
        assert [(step.tier, step.result) for step in found.steps] == [
            ("large", "refused"), ("middle", "refused"), ("small", "forced"),
        ]  # fmt: skip


def test_rows_that_a_lane_refuses_are_not_paid_for():
    def broken(text):
        raise OSError

    policy = policy_of(overall=0.0, burst=1)
    breaker = BreakerSettings(minimum=1, pause=1_000.0)
    tiers = (policy.tiers[0], attrs.evolve(policy.tiers[1], breaker=breaker))
    bound = TIERS | {"large": cascade.tier(broken, rows="one")}
    with Router(attrs.evolve(policy, tiers=tiers), tiers=bound) as router:
        router.route("opens it")
        saved = router._service.plan.allowance.tokens
        for found in (router.route_many(["x"] * 20), [router.route("x")]):
            assert {(one.tier, str(one.reason)) for one in found} == {("small", "breaker")}
            assert router._service.plan.allowance.tokens == saved == 9.0
