"""What every lane owes: one fact per call, the right one, with times that add up."""

import asyncio
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import cascade
from cascade import Policy
from cascade.binding import bind
from cascade.facts import Failed, Refused, Replied
from cascade.lanes import Watchdog, make_lane
from cascade.load import ServiceTime
from tests.lanes.targets import double, fail

LONG = 30.0
KINDS = ["inline", "auto", "worker", "process", "loop"]


class Job:
    """A request as a lane sees it."""

    tenant, metadata, rank = None, {}, 1

    def __init__(self, row, seconds=LONG):
        self.row = row
        self.until = time.monotonic_ns() + round(seconds * 1e9)

    def remaining(self):
        return (self.until - time.monotonic_ns()) / 1e9

    def cancelled(self):
        return self.remaining() <= 0


def make(kind, function, prepare=None, **settings):
    """A lane of this kind over a function, and how to have it answer jobs."""
    if kind == "loop":

        async def awaited(x):
            await asyncio.sleep(0)
            return function(x)

        target = cascade.tier(awaited, returns="pairs", rows="one")
    else:
        target = cascade.tier(function, returns="pairs", rows="one")
    execution = "auto" if kind == "loop" else kind
    spec = {"name": "it", "kind": "external", "execution": execution, **settings}
    policy = Policy.from_dict({"version": 1, "name": "p", "deadline": "9s", "tiers": [spec]})
    (tier,) = bind(policy, {"it": target}, None, {}, asynchronous=kind == "loop")
    tier.open()
    clock = time.monotonic_ns
    lane = make_lane(
        policy.tiers[0], 3, tier, clock, ServiceTime(), False, prepare, None, Watchdog(clock), 2
    )
    return lane, tier


@pytest.fixture(params=KINDS)
def ask(request):
    """A function that makes a lane, gives it jobs, and returns their facts in that order."""
    opened = []

    def answers(function, rows, before=None, **settings):
        lane, tier = make(request.param, function, **settings)
        opened.append((lane, tier))
        facts = {}

        async def main():
            over, loop = asyncio.Event(), asyncio.get_running_loop()
            if before is not None:
                before(lane)

            def done(i, fact):
                assert i not in facts
                facts[i] = fact
                if len(facts) == len(rows):
                    loop.call_soon_threadsafe(over.set)

            for i, row in enumerate(rows):
                lane.submit(Job(row), lambda fact, i=i: done(i, fact))
            async with asyncio.timeout(LONG):
                await over.wait()

        asyncio.run(main())
        return [facts[i] for i in range(len(rows))]

    yield answers
    for lane, tier in opened:
        lane.close()
        tier.close()


def test_each_call_gets_its_own_fact(ask):
    facts = ask(double, list(range(40)), queue=64)
    assert [fact.value for fact in facts] == [2 * i for i in range(40)]
    assert {(type(fact), fact.tier, fact.confidence) for fact in facts} == {(Replied, 3, 0.9)}


def test_times_add_up(ask):
    for fact in ask(double, [1, 2, 3]):
        assert fact.submitted <= fact.started <= fact.finished
        assert fact.prepared == 0


def test_a_tier_that_was_slow_once_is_asked_again(ask):
    """Its first run may have loaded something: no deadline would ever have left room again."""

    def slow_once(lane):
        lane.service.observe_rows(40 * 10**9, 1)
        for _ in range(1_000):
            lane.eta()

    (fact,) = ask(double, [1], before=slow_once)
    assert type(fact) is Replied


def test_what_a_tier_raises_is_a_fact(ask):
    good, bad = ask(fail, ["fine", "bad"])
    assert (good.value, type(bad)) == ("fine", Failed)
    assert bad.error.tier == "it"
    assert "bad" not in str(bad.error)  # no word of the input


def test_own_preparation_is_counted_and_its_fault_is_the_calls(ask):
    def prepare(x):
        if x < 0:
            raise LookupError
        return x + 100

    good, bad = ask(double, [1, -1], prepare=prepare)
    assert (good.value, type(bad)) == (202, Failed)
    assert 0 < good.prepared <= good.started - good.submitted


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_open_breaker_lets_one_call_through_once_its_pause_is_over(kind, rows):
    if rows and kind == "loop":
        pytest.skip("rows of an awaited tier are asked from a thread")
    lane, tier = make(kind, fail, breaker={"pause": "60s"})
    breaker = getattr(lane, "breaker", None) or lane._far.breaker
    breaker._open(time.monotonic_ns() - 100_000_000_000, 0)
    found, calls = [], 3

    async def main():
        over, loop = asyncio.Event(), asyncio.get_running_loop()

        def done(fact):
            found.append(fact)
            if len(found) == calls:
                loop.call_soon_threadsafe(over.set)

        assert all(lane.eta() >= 0 for _ in range(calls))
        for _ in range(calls):
            if not rows:
                lane.submit(Job("bad"), done)
                continue
            try:
                done(lane.call_rows(["bad"], 1, Job(None)))
            except (KeyError, cascade.TierError) as error:
                done(error)
        assert lane.eta() < 0
        async with asyncio.timeout(LONG):
            await over.wait()

    asyncio.run(main())
    lane.close()
    tier.close()
    refused = [fact for fact in found if isinstance(fact, Refused)]
    assert [fact.reason for fact in refused] == ["breaker", "breaker"]


def test_a_lane_answers_after_a_fork_reset(ask):
    lane, tier = make("worker", double)
    assert lane.call(Job(4)).value == 8
    lane.reset()
    assert lane.call(Job(5)).value == 10
    lane.close()
    tier.close()


@pytest.mark.parametrize("kind", ["auto", "worker", "process"])
def test_columns_are_answered_too(kind):
    lane, tier = make(kind, double)
    context = SimpleNamespace(
        remaining=lambda: LONG, cancelled=lambda: False, tenant=None, metadata={}
    )
    reply = lane.call_rows(list(range(5)), 5, context)
    assert reply.values.tolist() == [0, 2, 4, 6, 8]
    assert np.allclose(reply.confidences, 0.9)
    lane.close()
    tier.close()


@pytest.mark.parametrize("kind", ["auto", "worker", "process"])
def test_a_closed_lane_refuses_and_its_threads_leave(kind):
    before = set(threading.enumerate())
    lane, tier = make(kind, double)
    assert lane.call(Job(1)).value == 2
    lane.close()
    if kind != "auto":
        assert lane.call(Job(1)).reason == "overload"
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG)
        assert not thread.is_alive()
    tier.close()
