"""Flights: what each waiting caller gets when the leader stops."""

import pytest

from cascade.decide import Ladder
from cascade.facts import Replied
from cascade.flight import Flight, Follower, Landed, Landing, Lead, land
from cascade.types import Disposition, Reason

NOW = 1_000
ANSWER = Replied(0, "cat", 0.5, 0, 0, 1)
LADDER = Ladder(("small", "large"))


def landed(disposition, reason, answer=ANSWER):
    return Landed(LADDER.finish(Disposition(disposition), Reason(reason)), answer)


def flight_of(*untils):
    flight, woken = Flight(LADDER), []
    for until in untils:
        flight.join(Follower(Flight(LADDER), until, lambda until=until: woken.append(until)))
    return flight, list(flight.followers or ()), woken


def test_joining_and_leaving():
    flight, (first, second), _ = flight_of(1, 2)
    first.leave()
    first.leave()
    assert flight.followers == [second]
    assert second.flight is flight
    Follower(Flight(LADDER), 1, print).leave()


def test_a_verdict_holds_from_the_landing_on():
    """Whoever leaves before he is woken has it: nobody is made a leader who is not there."""
    flight, (first, second), woken = flight_of(NOW + 10, NOW + 20)
    landing = land(flight, None, NOW)
    assert landing.leader is first.own
    assert (first.verdict.after, second.verdict, woken) == (None, None, [])


def test_nobody_waits():
    landing = land(Flight(LADDER), landed("accepted", "confident"), NOW, -1)
    assert (list(landing.verdicts), landing.leader) == ([], None)


@pytest.mark.parametrize("need", [-1, 0, 50])
@pytest.mark.parametrize("end", [("accepted", "top"), ("failed", "fault")])
def test_an_accepted_answer_and_a_fault_are_shared_by_all(end, need):
    flight, waiting, woken = flight_of(NOW + 10, NOW + 1_000)
    verdict = landed(*end, answer=None)
    landing = land(flight, verdict, NOW, need)
    assert landing.verdicts == [(follower, verdict) for follower in waiting]
    assert landing.leader is None
    assert flight.followers is None
    assert not woken  # the driver wakes, after it let go of its lock


@pytest.mark.parametrize(
    "end", [("degraded", "deadline"), ("shed", "deadline"), ("shed", "overload"),
            ("failed", "deadline"), ("abstained", "unsure")],
)  # fmt: skip
def test_those_with_the_time_for_the_refused_step_go_on(end):
    flight, (late, exact, long), _ = flight_of(NOW + 49, NOW + 50, NOW + 500)
    verdict = landed(*end)
    landing = land(flight, verdict, NOW, need=50)
    assert isinstance(landing, Landing)
    assert landing.verdicts[0] == (late, verdict)
    follower, lead = landing.verdicts[1]
    assert (follower, len(landing.verdicts)) == (exact, 2)
    assert isinstance(lead, Lead)
    assert lead.after is flight
    assert landing.leader is exact.own
    assert exact.own.followers == [long]  # goes on waiting, for its new leader
    assert long.flight is exact.own


def test_no_amount_of_time_would_do():
    flight, waiting, _ = flight_of(NOW + 10**9)
    verdict = landed("degraded", "fault")
    landing = land(flight, verdict, NOW, need=-1)
    assert landing.verdicts == [(waiting[0], verdict)]
    assert landing.leader is None


def test_an_interrupted_leader_hands_over_from_the_start():
    flight, (first, second), _ = flight_of(NOW - 1, NOW + 1)
    landing = land(flight, None, NOW)
    ((follower, lead),) = landing.verdicts
    assert (follower, lead.after, landing.leader) == (first, None, first.own)
    assert first.own.followers == [second]
    assert land(first.own, None, NOW).leader is second.own
    assert first.own.followers is None
    assert land(first.own, None, NOW).leader is None
