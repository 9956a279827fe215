"""Breakers: when a tier is left alone, and how it comes back."""

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import hypothesis.strategies as st
import pytest
from hypothesis import given

import cascade
from cascade import Policy
from cascade.breaker import Breaker
from cascade.testing import VirtualClock, async_router_for, router_for, run_virtual, scripted

SECOND = 10**9


def breaker(**more):
    settings = {"rate": 0.5, "minimum": 4, "window": 10 * SECOND, "pause": 5 * SECOND}
    return Breaker(**settings | {"chance": lambda: 0.0} | more)


def test_a_few_failures_are_no_reason():
    one = breaker()
    for now in range(3):
        one.failed(now, 0)
    assert not one.refuses(3, 0)
    one.failed(3, 0)
    assert one.refuses(4, 0)


def test_failures_among_many_successes_are_none_either():
    one = breaker()
    for now in range(100):
        one.failed(now, successes=10 * now)
    assert not one.refuses(100, 1_000)


def test_old_failures_are_forgotten():
    one = breaker()
    for now in range(100):
        one.failed(now * 4 * SECOND, 0)
    assert not one.refuses(400 * SECOND, 0)


def test_one_probe_at_a_time_and_the_first_success_closes_it():
    one = breaker()
    for _ in range(4):
        one.failed(0, 7)
    assert one.refuses(5 * SECOND - 1, 7)
    assert not one.refuses(5 * SECOND, 7)
    assert not one.refuses(5 * SECOND, 7)  # who looks takes nobody's chance
    assert one.admits(5 * SECOND, 7)
    assert one.refuses(5 * SECOND + 1, 7)
    assert not one.admits(5 * SECOND + 1, 7)
    one.failed(6 * SECOND, 7)  # late news of before: the pause has begun anew with the probe
    assert one.refuses(9 * SECOND, 7)
    assert one.admits(10 * SECOND, 7)
    assert not one.refuses(10 * SECOND + 1, 8)
    assert not one.refuses(10 * SECOND + 2, 8)
    assert not one.is_open
    assert one.admits(10 * SECOND + 3, 8)


def test_a_probe_that_fails_after_a_whole_pause_begins_another():
    one = breaker()
    for _ in range(4):
        one.failed(0, 7)
    assert one.admits(5 * SECOND, 7)
    one.failed(12 * SECOND, 7)  # it took longer than the pause
    assert (one.opened, one.refuses(17 * SECOND - 1, 7)) == (2, True)
    assert not one.refuses(17 * SECOND, 7)


def test_pauses_are_jittered():
    first, second = breaker(chance=lambda: 0.0), breaker(chance=lambda: 0.99)
    for one in (first, second):
        for _ in range(4):
            one.failed(0, 0)
    assert not first.refuses(5 * SECOND, 0)
    assert second.refuses(5 * SECOND, 0)
    assert not second.refuses(6 * SECOND, 0)


@given(st.lists(st.tuples(st.integers(0, 3 * SECOND), st.booleans()), max_size=300))
def test_it_never_stays_open_for_a_tier_that_answers_and_flaps_at_most_once_a_pause(calls):
    one, now, successes = breaker(), 0, 0
    for gap, fails in calls:
        now += gap
        refused = one.refuses(now, successes)
        assert one.admits(now, successes) is not refused
        if refused:
            continue
        if fails:
            one.failed(now, successes)
        else:
            successes += 1
            assert not one.refuses(now, successes)
    assert one.opened <= now / (5 * SECOND) + 1 + len(calls) // 4


TREE = {
    "version": 1, "name": "p", "deadline": "1s",
    "tiers": [
        {"name": "small", "kind": "external",
         "breaker": {"rate": "50%", "minimum": 4, "pause": "5s"}},
        {"name": "large", "kind": "external"},
    ],
    "escalation": {"thresholds": [0.5]},
}  # fmt: skip


def tree(**small):
    first, second = TREE["tiers"]
    return TREE | {"tiers": [first | small, second]}


def test_of_those_who_come_at_once_one_is_let_through():
    one, crowd = breaker(lock=threading.Lock()), 16
    for now in range(4):
        one.failed(now, 0)
    together, admitted = threading.Barrier(crowd), []

    def come():
        together.wait()
        admitted.append(one.admits(6 * SECOND, 0))

    threads = [threading.Thread(target=come) for _ in range(crowd)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(admitted) == [False] * (crowd - 1) + [True]


@pytest.mark.parametrize("execution", ["inline", "worker", "auto"])
@pytest.mark.parametrize("deadline", [None, 1.0])
def test_rows_try_again_whatever_time_they_have(execution, deadline):
    clock, small = VirtualClock(), scripted(default=("cat", 0.9), error=ConnectionError())
    with router_for(tree(execution=execution), clock=clock, small=small, large="dog") as router:
        for _ in range(5):
            many = router.route_many(["a", "b", "c"], deadline=deadline)
            assert many.tiers.tolist() == ["large"] * 3
        assert many[0].steps[0].reason == "breaker"
        small.error = None
        clock.advance(6.1)
        router.load()
        many = router.route_many(["a", "b", "c"], deadline=deadline)
        assert many.tiers.tolist() == ["small"] * 3


@pytest.mark.parametrize("execution", ["inline", "worker", "auto"])
def test_one_of_many_threads_tries_again_however_long_that_takes(execution):
    go, held = threading.Event(), []

    def small(x):
        if x == "probe":
            held.append(x)
            assert go.wait(30.0)
        return "cat", 0.9

    tiers = {
        "small": cascade.tier(small, returns="pairs", rows="one"),
        "large": lambda xs: ["dog" for _ in xs],
    }
    policy = Policy.from_dict(tree(execution=execution) | {"deadline": "60s"})
    with cascade.Router(policy, tiers=tiers) as router, ThreadPoolExecutor(8) as threads:
        for i in range(40):
            router.route(i)
        lane = router._service.plan.lanes[0]
        breaker = getattr(lane, "breaker", None) or lane._far.breaker
        breaker._open(router._clock() - 100 * SECOND, lane.service.answered)
        asked = [threads.submit(lambda: router.route("probe").tier) for _ in range(8)]
        others = list(itertools.islice(as_completed(asked, timeout=30.0), 7))
        assert [one.result() for one in others] == ["large"] * 7
        go.set()
        assert sorted(one.result() for one in asked) == ["large"] * 7 + ["small"]
        assert len(held) == 1
        assert router.route("as ever").tier == "small"
        assert not router.load().tiers[0].broken
        assert execution != "inline" or lane.inline


def test_rows_whose_answers_cannot_be_read_are_no_successes():
    asked = []

    def small(xs):
        asked.append(xs)
        return [("cat", 0.9)] * (len(xs) + 1)

    large = cascade.tier(lambda xs: ["dog" for _ in xs])
    tiers = {"small": cascade.tier(small, returns="pairs"), "large": large}
    with cascade.Router(Policy.from_dict(TREE), tiers=tiers) as router:
        for _ in range(10):
            assert router.route_many(["a", "b", "c"]).tiers.tolist() == ["large"] * 3
    assert len(asked) == 4


def test_a_call_that_hangs_is_one_failure_whoever_waits_for_it():
    async def main(loop):
        asked = []

        async def waits(xs):
            asked.append(xs)
            await asyncio.sleep(60.0)
            raise ConnectionError

        policy = tree() | {"deadline": "90s", "cache": {"entries": 9}}
        router = async_router_for(policy, loop=loop, small=waits, large="dog")

        async def ask(deadline):
            try:
                return (await router.route("same", deadline=deadline)).tier
            except cascade.DeadlineExceeded:
                return None

        found = await asyncio.gather(*(ask(10.0 + i) for i in range(6)), ask(80.0))
        lane = router._service.plan.lanes[0]
        return found, len(asked), len(lane.breaker._failures)

    found, calls, failures = run_virtual(main)
    assert found == [None] * 6 + ["large"]
    assert (calls, failures) == (1, 1)


def test_rows_that_are_awaited_are_successes():
    state = {"bad": True}

    async def small(xs):
        if state["bad"]:
            raise ConnectionError
        return [("cat", 0.9) for _ in xs]

    async def main():
        clock, large = VirtualClock(), cascade.tier(lambda xs: ["dog" for _ in xs])
        tiers = {"small": cascade.tier(small, returns="pairs"), "large": large}
        router = cascade.AsyncRouter(Policy.from_dict(TREE), tiers=tiers, clock=clock)
        async with router:
            for _ in range(5):
                many = await router.route_many(["a", "b"])
            assert many.tiers.tolist() == ["large"] * 2
            state["bad"] = False
            clock.advance(6.1)
            for _ in range(2):
                many = await router.route_many(["a", "b"])
                assert many.tiers.tolist() == ["small"] * 2
            return router.load().tiers[0].broken

    assert not asyncio.run(main())


@pytest.mark.parametrize("execution", ["inline", "worker", "auto"])
def test_a_failing_tier_is_left_alone_and_tried_again(execution):
    clock, small = VirtualClock(), scripted(default=("cat", 0.9), error=ConnectionError())
    with router_for(tree(execution=execution), clock=clock, small=small, large="dog") as router:
        outcomes = [router.route(i) for i in range(10)]
        assert {outcome.tier for outcome in outcomes} == {"large"}
        assert len(small.calls) == 4
        steps = outcomes[-1].steps
        assert (steps[0].result, steps[0].reason) == ("refused", "breaker")
        small.error = None
        assert router.route("still left alone").tier == "large"
        clock.advance(6.1)
        assert router.route("probe").tier == "small"
        assert router.route("as ever").tier == "small"
        assert router.route_many(["a", "b", "c"]).tiers.tolist() == ["small"] * 3


def test_a_tier_that_hangs_is_left_alone_too():
    async def main(loop):
        small = scripted(hangs=True)
        router = async_router_for(tree(), loop=loop, small=small, large="dog")
        ended = []
        for i in range(8):  # each with more time than the tier is known to take
            try:
                ended.append((await router.route(i, deadline=0.1 * 2**i)).tier)
            except cascade.DeadlineExceeded:
                ended.append(None)
        return ended, len(small.calls)

    ended, calls = run_virtual(main)
    assert ended == [None] * 4 + ["large"] * 4
    assert calls == 4


def test_callers_who_leave_are_no_failures():
    async def main(loop):
        small = scripted(default=("cat", 0.9), seconds=0.5, asynchronous=True)
        router = async_router_for(tree(), loop=loop, small=small, large="dog")
        for i in range(8):
            task = loop.create_task(router.route(i))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.sleep(0)
        return (await router.route("stays")).tier

    assert run_virtual(main) == "small"


def test_a_breaker_changes_no_answer():
    with_one = Policy.from_dict(TREE)
    first, second = TREE["tiers"]
    bare = {key: value for key, value in first.items() if key != "breaker"}
    without = Policy.from_dict(TREE | {"tiers": [bare, second]})
    assert with_one.answer_digest == without.answer_digest
