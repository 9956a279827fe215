"""Flights: what each waiting caller gets when the leader stops."""

import pytest

from cascade.decide import Decision, Finish, Ladder, Replied
from cascade.flight import Flight, Follower, Landing, Lead, land
from cascade.types import Disposition, Reason

NOW = 1_000
ANSWER = Replied(0, "cat", 0.5, 0, 0, 1)
DECISION = Decision(Ladder(("small", "large")))


def finish(disposition, reason, answer=ANSWER):
    return Finish(Disposition(disposition), Reason(reason), covered=False, answer=answer)


def flight_of(*untils):
    flight, woken = Flight(DECISION), []
    for until in untils:
        flight.join(Follower(until, lambda until=until: woken.append(until)))
    return flight, list(flight.followers or ()), woken


def test_joining_and_leaving():
    flight, (first, second), _ = flight_of(1, 2)
    flight.leave(first)
    flight.leave(first)
    assert flight.followers == [second]
    Flight().leave(first)


def test_waking_gives_the_verdict_and_then_the_signal():
    seen = []
    follower = Follower(1, lambda: seen.append(follower.verdict))
    verdict = Lead(None)
    follower.wake(verdict)
    assert seen == [verdict]


def test_nobody_waits():
    landing = land(Flight(), finish("accepted", "confident"), DECISION, NOW, -1)
    assert (list(landing.verdicts), landing.aloft) == ([], False)


@pytest.mark.parametrize("need", [-1, 0, 50])
@pytest.mark.parametrize("end", [("accepted", "top"), ("failed", "fault")])
def test_an_accepted_answer_and_a_fault_are_shared_by_all(end, need):
    flight, waiting, woken = flight_of(NOW + 10, NOW + 1_000)
    verdict = finish(*end, answer=None)
    landing = land(flight, verdict, DECISION, NOW, need)
    assert landing.verdicts == [(follower, verdict) for follower in waiting]
    assert not landing.aloft
    assert flight.followers is None
    assert not woken  # the driver wakes, after it let go of its lock


@pytest.mark.parametrize(
    "end", [("degraded", "deadline"), ("shed", "deadline"), ("shed", "overload"),
            ("failed", "deadline"), ("abstained", "unsure")],
)  # fmt: skip
def test_those_with_the_time_for_the_refused_step_go_on(end):
    flight, (late, exact, long), _ = flight_of(NOW + 49, NOW + 50, NOW + 500)
    verdict = finish(*end)
    landing = land(flight, verdict, DECISION, NOW, need=50)
    assert isinstance(landing, Landing)
    assert landing.aloft
    assert landing.verdicts[0] == (late, verdict)
    follower, lead = landing.verdicts[1]
    assert (follower, len(landing.verdicts)) == (exact, 2)
    assert isinstance(lead, Lead)
    assert lead.decision is DECISION
    assert flight.followers == [long]  # goes on waiting, for its new leader


def test_no_amount_of_time_would_do():
    flight, waiting, _ = flight_of(NOW + 10**9)
    verdict = finish("degraded", "fault")
    landing = land(flight, verdict, DECISION, NOW, need=-1)
    assert landing.verdicts == [(waiting[0], verdict)]
    assert not landing.aloft


def test_an_interrupted_leader_hands_over_from_the_start():
    flight, (first, second), _ = flight_of(NOW - 1, NOW + 1)
    landing = land(flight, None, None, NOW, 0)
    ((follower, lead),) = landing.verdicts
    assert (follower, lead.decision, landing.aloft) == (first, None, True)
    assert flight.followers == [second]
    land(flight, None, None, NOW, 0)
    assert flight.followers is None
    assert not land(flight, None, None, NOW, 0).aloft
