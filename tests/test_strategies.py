"""The strategies draw what is valid, and what a decision must survive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cascade
from cascade import Policy
from cascade.decide import Call, Decision, Ladder
from cascade.fitting.recording import Recording
from cascade.strategies import facts, policies, recordings
from cascade.testing import recorded, router_for


@given(policies())
def test_policies_are_valid_and_round(policy):
    assert Policy.from_dict(policy.to_dict()) == policy


@pytest.mark.parametrize("max_tiers", [0, 1, 5])
def test_more_or_fewer_tiers_than_there_are_names_for_are_refused(max_tiers):
    with pytest.raises(ValueError, match="max_tiers: expected 2 to 4"):
        policies(max_tiers=max_tiers)


@pytest.mark.parametrize("tiers", ["ab", [], ["a", "a"]])
def test_tiers_must_be_different_names(tiers):
    with pytest.raises(ValueError, match="tiers: expected a list of different names"):
        policies(tiers)


@given(recordings(("a", "b", "c")))
def test_recordings_can_be_read(table):
    assert Recording.of(table).names == ("a", "b", "c")


@given(policies(["small", "large"]), recordings())
def test_a_router_and_a_replay_agree(policy, table):
    policy = Policy.from_dict({k: v for k, v in policy.to_dict().items() if k != "complexity"})
    replayed = cascade.replay(policy, table)
    with router_for(policy, **recorded(table)) as router:
        served = [router.route(i, deadline=30.0, use_cache=False) for i in range(replayed.n)]
    assert [outcome.tier for outcome in served] == list(replayed.tiers)
    assert [str(outcome.disposition) for outcome in served] == list(replayed.ends)


@given(policies(["small", "large"]), recordings())
def test_what_is_drawn_fits_together(policy, table):
    """An entry rule too, by the lengths of the recording; and no real time passes."""
    replayed = cascade.replay(policy, table)
    with router_for(policy, **recorded(table)) as router:
        asked = [{"length": length} for length in table["x.length"]]
        served = [router.route(x, deadline=30.0, use_cache=False) for x in asked]
    assert [outcome.tier for outcome in served] == list(replayed.tiers)
    called = [[step.tier for step in outcome.steps] for outcome in served]
    for i, (outcome, names) in enumerate(zip(served, called, strict=True)):
        taken = sum(table[f"{name}.seconds"][i] for name in names)
        assert outcome.latency.total == pytest.approx(taken, abs=1e-6)


@given(policies(min_deadline=3.0))
def test_deadlines_may_be_drawn_long_enough(policy):
    assert policy.deadline >= 3.0


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_the_shortest_deadline_is_a_time(wrong):
    with pytest.raises(ValueError, match="min_deadline: must be positive"):
        policies(min_deadline=wrong)


@given(policies(), st.data())
def test_whatever_the_lanes_say_a_decision_ends(policy, data):
    names = [spec.name for spec in policy.tiers]
    decision = Decision(Ladder(tuple(names), policy.escalation.abstain_below))
    etas = [lambda: 0] * len(names)
    move = decision.start(policy.point, 0.0, 0, 10**12, etas)
    for _ in range(2 * len(names) + 1):
        if type(move) is not Call:
            break
        move = decision.step(data.draw(facts(move.tier)), 0, etas)
    assert type(move) is not Call
