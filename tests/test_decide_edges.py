"""The decision where it is close: exact fits, orders of choice, and those who take over."""

import pytest

from cascade.decide import Decision, Ladder
from cascade.facts import Failed, Refused, Replied
from cascade.types import OperatingPoint, Reason
from tests.test_decide import BREAKER, CERTIFIED, FULL, NAMES, begin, ends, etas, reply

LATER = 1_000


def entering(*times, entry=1, now=0, until=10, **more):
    """Begin above the first tier, as a hard request does."""
    point = OperatingPoint(0, (0.8, 0.9), (0.5,) * entry, certified=True)
    decision = Decision(Ladder(NAMES), **more)
    return decision, decision.start(point, 1.0, now, until, etas(*times))


# -- time ----------------------------------------------------------------------------------------


def test_what_takes_exactly_the_time_left_fits():
    _, move = begin(until=10, times=(10, 10, 10))
    assert move.tier == 0
    decision, _ = begin(until=10, times=(1, 9, 9))
    assert decision.step(reply(0, 0.5), 1, etas(1, 9, 9)).tier == 1


def test_time_is_counted_from_now():
    decision = Decision(Ladder(NAMES))
    ends(decision.start(CERTIFIED, 0.0, 60, 100, etas(50, 50, 50)), "shed", "deadline")
    decision, _ = begin(until=100)
    ends(decision.step(reply(0, 0.5), 60, etas(1, 50, 50)), "degraded", "deadline")


def test_a_refusal_says_what_was_expected_and_what_was_left():
    decision, _ = begin(until=100)
    decision.step(reply(0, 0.5), 60, etas(1, 50, FULL))
    assert decision.steps[1:] == (
        (1, "refused", Reason.DEADLINE, None, None, 50, 40, 60, 60, 60, 60, 0, None),
        (2, "refused", Reason.OVERLOAD, None, None, FULL, 40, 60, 60, 60, 60, 0, None),
    )
    assert decision.refused == 1


def test_the_first_tier_that_refused_is_remembered():
    decision, move = begin(times=(BREAKER, FULL, 1))
    assert (move.tier, decision.refused) == (2, 0)


# -- which tier ----------------------------------------------------------------------------------


def test_an_entry_tier_that_is_too_slow_is_replaced_from_below_first():
    decision, move = entering(1, 50, 1)
    assert move.tier == 0
    ends(decision.step(reply(0, 0.99), 1, etas(1, 50, 1)), "degraded", "deadline")


def test_a_tier_above_is_heard_as_ever_once_the_cheaper_one_has_failed():
    times = etas(1, 50, 1, 1)
    point = OperatingPoint(0, (0.8, 0.9, 0.9), (0.5,), certified=True)
    decision = Decision(Ladder((*NAMES, "largest")))
    assert decision.start(point, 1.0, 0, 10, times).tier == 0  # the entry tier is too slow
    assert decision.step(Failed(0, RuntimeError(), 0, 0, 1), 1, times).tier == 2
    ends(decision.step(reply(2, 0.99), 2, times), "accepted", "confident")


def test_an_entry_tier_that_is_down_is_replaced_from_above_first():
    _, move = entering(1, BREAKER, 1)
    assert move.tier == 2
    _, move = entering(1, BREAKER, 50)
    assert move.tier == 0


def test_every_tier_below_the_entry_is_tried_down_to_the_floor():
    _, move = entering(1, 50, 50, entry=2)
    assert move.tier == 0
    decision, move = entering(1, 50, 50, entry=2, floor=1)
    ends(move, "shed", "deadline")
    assert [step[0] for step in decision.steps] == [2, 1]


def test_a_threshold_of_one_can_be_reached():
    decision, _ = begin(OperatingPoint(0, (0.8, 1.0), (), certified=True))
    assert decision.step(reply(0, 0.5), 1, etas(1, 1, 1)).tier == 1
    ends(decision.step(reply(1, 1.0), 2, etas(1, 1, 1)), "accepted", "confident")


def test_first_only_asks_the_first_however_hard_the_request():
    point = OperatingPoint(0, (2.0, 0.9), (0.5,), certified=True)
    _, move = begin(point, hard=1.0, first_only=True)
    assert move.tier == 0


def test_first_only_goes_on_to_the_next_whatever_the_thresholds():
    decision, _ = begin(OperatingPoint(0, (2.0, 2.0)), first_only=True)
    assert decision.step(Failed(0, OSError(), 0, 0, 1), 1, etas(1, 1, 1)).tier == 1
    ends(decision.step(reply(1, 0.0), 2, etas(1, 1, 1)), "degraded", "mode")


# -- which end -----------------------------------------------------------------------------------


def test_abstention_begins_below_its_limit_and_is_for_answers_nobody_accepts():
    decision, _ = begin(abstain_below=0.3, floor=2)
    ends(decision.step(reply(2, 0.3), 1, etas(1, 1, 1)), "accepted", "top")
    decision, _ = begin(OperatingPoint(0, (0.2, 0.9)), abstain_below=0.3)
    ends(decision.step(reply(0, 0.25), 1, etas(1, 1, 1)), "accepted", "confident")


def test_the_first_thing_in_the_way_is_the_reason():
    decision, _ = begin()
    assert decision.step(reply(0, 0.5), 1, etas(1, FULL, 1)).tier == 2
    failed = Failed(2, ValueError("no"), 1, 1, 2)
    ends(decision.step(failed, 2, etas(1, FULL, 1)), "degraded", "overload")


def test_in_brownout_exactly_the_promised_threshold_would_have_been_accepted():
    higher = OperatingPoint(1, (0.85, 0.3), promised=CERTIFIED)
    decision, _ = begin(higher)
    assert decision.step(reply(0, 0.8), 1, etas(1, 1, 1)).tier == 1
    end = ends(decision.step(reply(1, 0.95), 2, etas(1, 1, 1)), "accepted", "confident")
    assert not end.covered


@pytest.mark.parametrize("trouble", ["refused", "failed"])
def test_in_brownout_a_tier_that_could_not_be_heard_leaves_nothing_covered(trouble):
    lower = OperatingPoint(1, (0.3, 0.3), promised=CERTIFIED)
    if trouble == "refused":
        decision, move = begin(lower, times=(BREAKER, 1, 1))
    else:
        decision, _ = begin(lower)
        move = decision.step(Failed(0, ValueError("no"), 0, 0, 1), 1, etas(1, 1, 1))
    assert move.tier == 1
    end = ends(decision.step(reply(1, 0.95), 2, etas(1, 1, 1)), "accepted", "confident")
    assert not end.covered


# -- taking over ---------------------------------------------------------------------------------


def taken_over(leader, *times, **ladder):
    follower = Decision(Ladder(NAMES, **ladder))
    return follower, follower.resume(leader, 5, LATER, etas(*times))


def test_who_has_more_time_than_one_who_was_shed_begins_anew():
    leader, move = begin(until=10, times=(50, 50, 50))
    ends(move, "shed", "deadline")
    follower, move = taken_over(leader, 50, 50, 50)
    assert move.tier == 0
    end = ends(follower.step(reply(0, 0.9), 60, etas(50, 50, 50)), "accepted", "confident")
    assert end.covered


def test_first_only_is_taken_over_at_the_first_whatever_its_threshold():
    point = OperatingPoint(0, (2.0, 0.9), (), certified=True)
    leader, _ = begin(point, until=10, times=(50, 50, 50), first_only=True)
    assert taken_over(leader, 50, 50, 50, first_only=True)[1].tier == 0


def test_with_an_answer_a_follower_looks_above_it_alone():
    leader, move = begin(until=10, times=(BREAKER, 1, 50))
    assert move.tier == 1
    ends(leader.step(reply(1, 0.5), 5, etas(BREAKER, 1, 50)), "degraded", "breaker")
    assert taken_over(leader, 1, 1, 50)[1].tier == 2


def test_the_fault_of_a_tier_that_another_asked_is_no_overload():
    leader, _ = begin(until=10)
    fault = ValueError("no")
    leader.step(Failed(0, fault, 0, 0, 1), 1, etas(1, 50, 50))
    follower, move = taken_over(leader, 1, LATER, LATER)
    ends(move, "failed", "fault")
    assert follower.error is fault


def test_a_follower_may_ask_who_refused_the_leader():
    leader, _ = begin(until=10)
    assert leader.step(reply(0, 0.5), 1, etas(1, 1, 50)).tier == 1
    ends(leader.step(Refused(1, Reason.OVERLOAD, 2), 2, etas(1, 1, 50)), "degraded", "overload")
    assert taken_over(leader, 1, 1, 50)[1].tier == 1


def waits_for(leader):
    """Take over while the leader's call is under way."""
    heir = Decision(Ladder(leader._ladder.tiers))
    heir.adopt(leader, LATER)
    return heir


def test_who_takes_over_a_forced_call_asks_the_entry_tier_once_there_is_an_answer():
    leader, move = entering(1, 50, 1)
    assert move.tier == 0
    heir = waits_for(leader)
    assert heir.step(reply(0, 0.99), 20, etas(1, 50, 1)).tier == 1
    assert ends(heir.step(reply(1, 0.95), 70, etas(1, 50, 1)), "accepted", "confident").covered
    heir = waits_for(leader)
    end = ends(heir.step(reply(0, 0.99), 20, etas(1, LATER, LATER)), "degraded", "deadline")
    assert (end.hit, heir.best.value) == (None, "from small")
    assert [step[1] for step in heir.steps] == ["forced", "refused", "refused"]


def test_with_a_forced_answer_a_follower_goes_on_at_the_entry_tier():
    leader, _ = entering(1, 50, 50, entry=2)
    ends(leader.step(reply(0, 0.99), 5, etas(1, 50, 50)), "degraded", "deadline")
    assert taken_over(leader, 1, 1, 50)[1].tier == 2


def test_who_takes_over_a_forced_call_that_fails_may_ask_who_refused():
    leader, _ = entering(1, 50, 50)
    heir = waits_for(leader)
    failed = Failed(0, ValueError("no"), 0, 0, 1)
    assert heir.step(failed, 20, etas(1, 50, 50)).tier == 1


@pytest.mark.parametrize("heirs", [1, 2])
@pytest.mark.parametrize("pending", [True, False])
def test_above_a_tier_that_refused_the_leader_nothing_is_covered(pending, heirs):
    times, names = etas(1, FULL, 1, 90, 90), (*NAMES, "larger", "largest")
    decision = Decision(Ladder(names))
    point = OperatingPoint(0, (0.8, 0.9, 0.9, 0.9), (), certified=True)
    decision.start(point, 0.0, 0, 10, times)
    assert decision.step(reply(0, 0.5), 1, times).tier == 2
    tier = 2
    if not pending:
        ends(decision.step(reply(2, 0.5), 2, times), "degraded", "overload")
        leader, tier = decision, 3
        decision = Decision(Ladder(names))
        assert decision.resume(leader, 3, LATER, times).tier == 3
    for _ in range(heirs):
        leader, decision = decision, Decision(Ladder(names))
        decision.adopt(leader, LATER)
    end = decision.step(Replied(tier, "it", 0.95, 0, 0, 20), 20, times)
    assert not ends(end, "accepted", "confident").covered


def test_in_brownout_what_the_promise_accepts_below_the_one_who_took_over_is_not_covered():
    higher = OperatingPoint(1, (0.85, 0.3), promised=CERTIFIED)
    leader, _ = begin(higher)
    assert leader.step(reply(0, 0.8), 1, etas(1, 1, 1)).tier == 1
    end = waits_for(leader).step(reply(1, 0.95), 2, etas(1, 1, 1))
    assert not ends(end, "accepted", "confident").covered


def test_a_follower_pays_from_the_purse_of_the_flight_and_the_floor_is_free():
    class Empty:
        def take(self):
            return 0

    leader, _ = begin(until=10, times=(50, 50, 50))
    leader.purse = Empty()
    follower, move = taken_over(leader, 50, 50, 50)
    assert move.tier == 0
    ends(follower.step(reply(0, 0.5), 60, etas(50, 50, 50)), "degraded", "allowance")


def test_what_takes_no_time_fits_even_at_the_deadline():
    decision = Decision(Ladder(NAMES))
    assert decision.start(CERTIFIED, 0.0, 100, 100, etas(0, 0, 0)).tier == 0
    assert decision.step(reply(0, 0.5), 100, etas(0, 0, 0)).tier == 1


def test_after_the_deadline_nothing_is_left():
    decision, _ = begin(until=100)
    ends(decision.step(reply(0, 0.5), 130, etas(1, 1, 1)), "degraded", "deadline")
    assert [step[6] for step in decision.steps[1:]] == [0, 0]
