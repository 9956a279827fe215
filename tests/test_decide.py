"""The rules of the decision, one by one, driven by hand."""

import math

import pytest

from cascade.decide import (
    Call,
    Decision,
    Finish,
    Ladder,
)
from cascade.facts import Failed, Refused, Replied, TimedOut
from cascade.types import OperatingPoint, Reason

NAMES = ("small", "middle", "large")
CERTIFIED = OperatingPoint(0, (0.8, 0.9), (), certified=True)
BREAKER, FULL = -1, -2


def etas(*times):
    return [lambda time=time: time for time in times]


def begin(point=CERTIFIED, *, floor=0, hard=0.0, until=100, times=(1, 1, 1), **ladder):
    decision = Decision(Ladder(NAMES, **ladder), floor)
    return decision, decision.start(point, hard, 0, until, etas(*times))


def reply(tier, confidence, **more):
    return Replied(tier, f"from {NAMES[tier]}", confidence, 0, 0, 1, **more)


def ends(move, disposition, reason):
    assert isinstance(move, Finish)
    assert (move.disposition, move.reason) == (disposition, reason)
    return move


def test_the_first_tier_goes_first_and_is_accepted_at_its_threshold():
    decision, move = begin()
    assert isinstance(move, Call)
    assert (move.tier, decision.until) == (0, 100)
    end = ends(decision.step(reply(0, 0.8), 1, etas(1, 1, 1)), "accepted", "confident")
    assert end.covered
    assert decision.best.value == "from small"


@pytest.mark.parametrize("confidence", [0.0, 0.5, math.nextafter(0.8, 0)])
def test_below_the_threshold_it_escalates_to_the_nearest_tier_above(confidence):
    decision, _ = begin()
    assert decision.step(reply(0, confidence), 1, etas(1, 1, 1)).tier == 1


@pytest.mark.parametrize("confidence", [math.nan, math.inf, -math.inf, -0.1, 1.1, None])
def test_a_confidence_that_is_none_is_a_fault_and_escalates(confidence):
    decision, _ = begin()
    move = decision.step(reply(0, confidence), 1, etas(1, 1, 1))
    assert move.tier == 1
    end = ends(decision.step(reply(1, 0.95), 2, etas(1, 1, 1)), "accepted", "confident")
    assert not end.covered  # the certified rule would have heard the small tier
    assert [step[1] for step in decision.steps] == ["failed", "accepted"]


def test_the_top_tier_is_accepted_whatever_its_confidence():
    for confidence in (None, 0.0, 1.0):
        decision, _ = begin(floor=2)
        end = ends(decision.step(reply(2, confidence), 1, etas(1, 1, 1)), "accepted", "top")
        assert end.covered


def test_the_top_tier_is_not_accepted_with_nan():
    decision, _ = begin(floor=2)
    ends(decision.step(reply(2, math.nan), 1, etas(1, 1, 1)), "failed", "fault")


def test_an_uncertified_point_covers_only_the_top_tier():
    point = OperatingPoint(0, (0.8, 0.9))
    decision, _ = begin(point)
    assert not decision.step(reply(0, 0.9), 1, etas(1, 1, 1)).covered
    decision, _ = begin(point, floor=2)
    assert decision.step(reply(2, 0.1), 1, etas(1, 1, 1)).covered


def test_another_version_than_the_policys_is_not_covered():
    decision, _ = begin()
    assert not decision.step(reply(0, 0.9, known=False), 1, etas(1, 1, 1)).covered


@pytest.mark.parametrize(("hard", "tier"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.89, 1), (0.9, 2)])
def test_complexity_chooses_the_entry_tier(hard, tier):
    point = OperatingPoint(0, (0.8, 0.9), (0.5, 0.9), certified=True)
    decision, move = begin(point, hard=hard)
    assert move.tier == tier
    end = decision.step(reply(tier, 0.95), 1, etas(1, 1, 1))
    assert end.covered


def test_a_tier_that_could_never_be_accepted_is_not_asked():
    decision, move = begin(OperatingPoint(0, (2.0, 0.9), (), certified=True))
    assert move.tier == 1
    assert decision.step(reply(1, 0.95), 1, etas(1, 1, 1)).covered
    decision, move = begin(OperatingPoint(0, (0.5, 2.0), (), certified=True))
    assert decision.step(reply(0, 0.1), 1, etas(1, 1, 1)).tier == 2


def test_an_entry_tier_too_slow_is_replaced_by_the_nearest_cheaper_one():
    point = OperatingPoint(0, (0.8, 0.9), (0.1, 0.1), certified=True)
    decision, move = begin(point, hard=1.0, until=10, times=(1, 5, 50))
    assert move.tier == 1
    end = ends(decision.step(reply(1, 0.99), 5, etas(1, 5, 50)), "degraded", "deadline")
    assert not end.covered


def test_a_floor_is_never_undercut():
    decision, move = begin(floor=1, until=10, times=(1, 50, 50))
    ends(move, "shed", "deadline")
    assert [step[0] for step in decision.steps] == [1, 2]


def test_an_entry_tier_that_is_too_slow_is_overtaken_rather_than_shed():
    decision, move = begin(until=10, times=(50, 50, 5))
    assert move.tier == 2
    end = ends(decision.step(reply(2, None), 5, etas(50, 50, 5)), "accepted", "top")
    assert end.covered
    decision, move = begin(until=10, times=(50, 5, 5))
    end = ends(decision.step(reply(1, 0.95), 5, etas(50, 5, 5)), "accepted", "confident")
    assert not end.covered  # the certified rule would have heard the small tier


def test_shed_before_any_model_runs():
    _, move = begin(until=10, times=(50, 50, 50))
    ends(move, "shed", "deadline")
    _, move = begin(until=10, times=(FULL, FULL, FULL))
    ends(move, "shed", "overload")


def test_an_entry_tier_that_is_down_is_replaced_by_one_above():
    decision, move = begin(times=(BREAKER, 1, 1))
    assert move.tier == 1
    end = ends(decision.step(reply(1, 0.95), 1, etas(1, 1, 1)), "accepted", "confident")
    assert not end.covered


@pytest.mark.parametrize(
    ("eta", "reason"),
    [(500, "deadline"), (BREAKER, "breaker"), (FULL, "overload"), (-3, "allowance"), (-4, "fault")],
)
def test_degraded_with_the_reason_when_nothing_above_fits(eta, reason):
    decision, _ = begin()
    end = ends(decision.step(reply(0, 0.5), 1, etas(1, eta, eta)), "degraded", reason)
    assert decision.best.value == "from small"
    assert not end.covered


def test_abstains_instead_when_the_best_answer_is_too_unsure():
    decision, _ = begin(abstain_below=0.3)
    ends(decision.step(reply(0, 0.2), 1, etas(1, 500, 500)), "abstained", "unsure")
    decision, _ = begin(abstain_below=0.3)
    ends(decision.step(reply(0, 0.4), 1, etas(1, 500, 500)), "degraded", "deadline")
    decision, _ = begin(abstain_below=0.3, floor=2)
    ends(decision.step(reply(2, 0.2), 1, etas(1, 1, 1)), "abstained", "unsure")


def test_a_failed_tier_escalates_and_a_failed_top_falls_back():
    decision, _ = begin()
    error = ValueError("no")
    assert decision.step(reply(0, 0.5), 1, etas(1, 1, 1)).tier == 1
    assert decision.step(Failed(1, error, 1, 1, 2), 2, etas(1, 1, 1)).tier == 2
    ends(decision.step(Failed(2, error, 2, 2, 3), 3, etas(1, 1, 1)), "degraded", "fault")
    assert decision.best.value == "from small"


def test_when_every_tier_fails_the_last_error_is_the_answer():
    decision, _ = begin()
    errors = [ValueError(str(i)) for i in range(3)]
    for tier in range(3):
        move = decision.step(Failed(tier, errors[tier], 0, 0, 1), 1, etas(1, 1, 1))
    ends(move, "failed", "fault")
    assert decision.error is errors[2]


def test_expired_with_and_without_an_answer():
    decision, _ = begin()
    ends(decision.step(TimedOut(0, 0, 0, 100), 100, etas(1, 1, 1)), "failed", "deadline")
    decision, _ = begin()
    decision.step(reply(0, 0.5), 1, etas(1, 1, 1))
    ends(decision.step(TimedOut(1, 1, 1, 100), 100, etas(1, 1, 1)), "degraded", "deadline")


def test_a_lane_may_refuse_after_a_positive_eta():
    decision, _ = begin()
    decision.step(reply(0, 0.5), 1, etas(1, 1, 1))
    assert decision.step(Refused(1, Reason.OVERLOAD, 1), 1, etas(1, 1, 1)).tier == 2
    move = decision.step(Refused(2, Reason.BREAKER, 1), 1, etas(1, 1, 1))
    ends(move, "degraded", "overload")
    assert decision.refused == 1


def test_first_only_takes_what_the_first_tier_says():
    decision, _ = begin(first_only=True)
    ends(decision.step(reply(0, 0.01), 1, etas(1, 1, 1)), "degraded", "mode")


def test_costs_add_up():
    decision, _ = begin()
    decision.step(reply(0, 0.5, cost=1.0), 1, etas(1, 1, 1))
    decision.step(reply(1, 0.95, cost=2.5), 2, etas(1, 1, 1))
    assert decision.cost == 3.5


def test_a_follower_goes_on_where_the_leader_stopped():
    decision, _ = begin(until=10)
    ends(decision.step(reply(0, 0.5), 5, etas(1, 50, 90)), "degraded", "deadline")
    follower = Decision(Ladder(NAMES))
    assert follower.resume(decision, 5, 1000, etas(1, 50, 90)).tier == 1
    assert follower.best is decision.best
    assert follower.step(reply(1, 0.95), 60, etas(1, 50, 90)).covered


# -- brownout ------------------------------------------------------------------------------------


BROWNOUT = OperatingPoint(1, (0.3, 0.9), promised=CERTIFIED)


def test_in_brownout_what_the_promise_would_have_escalated_is_a_forced_accept():
    decision, _ = begin(BROWNOUT)
    end = ends(decision.step(reply(0, 0.5), 1, etas(1, 1, 1)), "degraded", "load")
    assert not end.covered
    assert (end.hit, decision.best.value) == (None, "from small")  # never cached


def test_in_brownout_what_the_promise_accepts_too_is_covered():
    decision, _ = begin(BROWNOUT)
    end = ends(decision.step(reply(0, 0.8), 1, etas(1, 1, 1)), "accepted", "confident")
    assert end.covered


def test_in_brownout_the_least_sure_still_escalate():
    decision, _ = begin(BROWNOUT)
    assert decision.step(reply(0, 0.2), 1, etas(1, 1, 1)).tier == 1
    end = ends(decision.step(reply(1, 0.95), 2, etas(1, 1, 1)), "accepted", "confident")
    assert end.covered  # the certified rule would have gone the same way


def test_in_brownout_another_way_up_is_not_covered():
    higher = OperatingPoint(1, (0.85, 0.3), promised=CERTIFIED)  # not a lower one everywhere
    decision, _ = begin(higher)
    assert decision.step(reply(0, 0.82), 1, etas(1, 1, 1)).tier == 1  # certified: accepted
    end = ends(decision.step(reply(1, 0.95), 2, etas(1, 1, 1)), "accepted", "confident")
    assert not end.covered


def test_in_brownout_abstention_and_other_entry_rules_still_hold():
    skipping = OperatingPoint(1, (0.3, 0.3), (0.5,), promised=CERTIFIED)
    decision, _ = begin(skipping, abstain_below=0.1)
    end = ends(decision.step(reply(0, 0.8), 1, etas(1, 1, 1)), "accepted", "confident")
    assert not end.covered  # complexity might have sent it elsewhere
    decision, _ = begin(BROWNOUT, abstain_below=0.1)
    ends(decision.step(reply(0, 0.5), 1, etas(1, 1, 1)), "degraded", "load")


# -- an allowance for what lies above the floor --------------------------------------------------


class Purse:
    """Pays so many times."""

    def __init__(self, left):
        self.left = left

    def take(self):
        self.left -= 1
        return int(self.left >= 0)


def entering_above(left, **more):
    point = OperatingPoint(0, (0.8, 0.9), (0.5,), certified=True)
    decision = Decision(Ladder(NAMES), **more)
    decision.purse = Purse(left)
    return decision, decision.start(point, 1.0, 0, 100, etas(1, 1, 1))


def test_who_cannot_pay_for_the_entry_tier_begins_below_it():
    decision, move = entering_above(0)
    assert move.tier == 0
    end = ends(decision.step(reply(0, 0.95), 1, etas(1, 1, 1)), "degraded", "allowance")
    assert not end.covered
    assert (decision.refused, decision.steps[0][:3]) == (1, (1, "refused", "allowance"))


def test_the_entry_tier_is_paid_for_once():
    decision, move = entering_above(2)
    assert (move.tier, decision.purse.left) == (1, 1)
    assert decision.step(reply(1, 0.5), 1, etas(1, 1, 1)).tier == 2
    assert decision.purse.left == 0


def test_the_floor_itself_costs_nothing():
    decision, move = entering_above(0, floor=1)
    assert (move.tier, decision.purse.left) == (1, 0)
    ends(decision.step(reply(1, 0.5), 1, etas(1, 1, 1)), "degraded", "allowance")


def test_from_a_floor_on_only_the_top_tiers_answer_is_covered():
    """The certified rule might have answered below."""
    decision, move = begin(floor=1)
    assert move.tier == 1
    assert not ends(
        decision.step(reply(1, 0.95), 1, etas(1, 1, 1)), "accepted", "confident"
    ).covered
    decision, _ = begin(floor=1)
    decision.step(reply(1, 0.5), 1, etas(1, 1, 1))
    assert ends(decision.step(reply(2, None), 2, etas(1, 1, 1)), "accepted", "top").covered
