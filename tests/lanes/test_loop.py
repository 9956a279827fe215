"""The loop lane: what it says of itself from outside of its loops, and who works for which."""

import asyncio
import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import cascade
from cascade import AsyncRouter, Policy
from cascade.lanes.handle import Handle
from cascade.lanes.loop import CALLER
from cascade.lanes.watchdog import in_time
from cascade.testing import async_router_for, run_virtual, scripted
from cascade.tiers.faults import NotAsked
from tests.awaiting import until
from tests.contract.test_lanes import LONG, Job, make

TREE = {"version": 1, "name": "p", "deadline": "60s", "cache": {}}


def router_over(function, workers=1, **more):
    only = cascade.tier(function, returns="pairs", rows="one")
    specs = [{"name": "only", "kind": "external", "workers": workers}]
    return AsyncRouter(Policy.from_dict({**TREE, "tiers": specs, **more}), tiers={"only": only})


def test_an_awaited_tier_s_load_can_be_looked_at_from_anywhere():
    started, go = threading.Event(), threading.Event()

    async def answer(xs):
        started.set()
        await asyncio.to_thread(go.wait, 30.0)
        return xs

    spec = {"name": "only", "kind": "external", "workers": 1}
    policy = Policy.from_dict({"version": 1, "name": "p", "deadline": "60s", "tiers": [spec]})
    router = AsyncRouter(policy, tiers={"only": answer})

    async def work():
        asked = [asyncio.create_task(router.route(i)) for i in range(3)]
        await asyncio.to_thread(started.wait, 30.0)
        await until(lambda: router.load().tiers[0].queued == 2)  # those who came meanwhile
        lane = router._service.plan.lanes[0]
        lane.service.observe_rows(1_000_000, 1)
        inside = (lane.wait(), router.load().tiers[0].delay)
        outside = await asyncio.to_thread(lambda: (lane.wait(), router.load().tiers[0].delay))
        go.set()
        await asyncio.gather(*asked)
        return inside, outside

    inside, outside = asyncio.run(work())
    assert inside == outside
    assert inside[0] > 0
    assert router.load().tiers[0].delay == 0.0  # no loop is left


def test_what_is_left_of_the_calls_under_way_is_expected_too():
    """An escalation that would wait too long for them was begun, and its caller kept waiting."""
    tree = {
        "version": 1, "name": "p", "deadline": "160ms",
        "tiers": [
            {"name": "small", "kind": "external"},
            {"name": "large", "kind": "external", "workers": 1},
        ],
        "escalation": {"thresholds": [0.8]},
    }  # fmt: skip

    async def main(loop):
        large = scripted(default=("L", 1.0), seconds=0.1)
        router = async_router_for(tree, loop=loop, small=("s", 0.5), large=large)
        await router.route("it shows its time")
        lane = router._service.plan.lanes[1]
        first = asyncio.create_task(router.route("first"))
        await asyncio.sleep(0.01)
        expected = lane.eta(), lane.wait()
        second = await router.route("second")
        await first
        return expected, second

    (eta, wait), second = run_virtual(main)
    assert (round(eta / 1e9, 3), round(wait / 1e9, 3)) == (0.19, 0.09)
    assert (second.disposition, second.reason) == ("degraded", "deadline")
    assert second.latency.total < 0.001  # at once, not when its time was nearly up


def test_in_time_work_is_done_in_the_caller_s_context():
    mark = asyncio.new_event_loop()
    CALLER.set(mark)
    try:
        assert in_time(CALLER.get, 30 * 10**9, lambda: None) is mark
    finally:
        CALLER.set(None)
        mark.close()


def test_each_call_is_made_in_the_context_of_who_asked():
    """One that waited was made in the context of the one before it."""
    who = contextvars.ContextVar("who", default="nobody")

    async def answer(_):
        await asyncio.sleep(0)
        return who.get(), 0.9

    async def ask(router, name):
        who.set(name)
        return (await router.route(name)).value

    async def work():
        async with router_over(answer) as router:
            return await asyncio.gather(*(ask(router, name) for name in "abcd"))

    assert asyncio.run(work()) == ["a", "b", "c", "d"]


def flight(router):
    """The flight of the row 'it', if there is one."""
    plan = router._service.plan
    found = [] if plan is None else list(plan.engine.flights.values())
    return next((request for request in found if request.row == "it"), None)


@pytest.mark.parametrize("begun", [True, False])
def test_who_waits_in_another_loop_has_a_call_of_his_own_when_the_first_one_ends(begun):
    made, first = [], []

    async def answer(x):
        loop = asyncio.get_running_loop()
        made.append((x, loop))
        if loop is first[0]:
            await asyncio.Event().wait()  # for ever
        return x, 0.9

    async def lead(pool):
        first.append(asyncio.get_running_loop())
        rows = ["it"] if begun else ["other", "it"]
        asked = [asyncio.create_task(router.route(row)) for row in rows]
        await until(lambda: flight(router) is not None and made)
        follower = pool.submit(asyncio.run, router.route("it", deadline=LONG))
        await until(lambda: flight(router).followers)
        return follower, asked

    router = router_over(answer)
    with ThreadPoolExecutor(1) as pool:
        follower, _ = asyncio.run(lead(pool))
        outcome = follower.result(LONG)
    assert (outcome.value, outcome.disposition) == ("it", "accepted")
    assert [x for x, loop in made if loop is not first[0]] == ["it"]
    assert not router._service.plan.engine.flights


def test_a_request_that_is_destroyed_amid_somebody_s_lock_waits_for_nobody():
    """The collector of garbage runs anywhere, and destroys what a loop that ended has left."""
    started = []

    async def answer(x):
        started.append(x)
        await asyncio.Event().wait()

    async def work():
        async with router_over(answer) as router:
            engine, asked = router._service.plan.engine, router.route("it")
            asked.send(None)  # by no task, which would be left without an end
            await until(lambda: started)

            def destroy():
                with engine.lock:
                    asked.close()

            thread = threading.Thread(target=destroy, daemon=True)
            thread.start()
            await until(lambda: not thread.is_alive())
            await until(lambda: not engine.flights)

    asyncio.run(work())


def test_who_takes_over_from_another_loop_has_a_call_of_his_own_and_the_first_one_is_stopped():
    entered, stopped = threading.Event(), threading.Event()

    async def answer(x):
        if entered.is_set():
            return x, 0.9
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def work(pool):
        leader = asyncio.create_task(router.route("it"))
        await until(entered.is_set)
        follower = pool.submit(asyncio.run, router.route("it"))
        await until(lambda: flight(router).followers)
        leader.cancel()
        await until(stopped.is_set)
        return await asyncio.to_thread(follower.result, LONG)

    router = router_over(answer)
    with ThreadPoolExecutor(1) as pool:
        assert asyncio.run(work(pool)).value == "it"
    assert not router._service.plan.engine.flights


def test_a_thread_waits_no_longer_than_there_is_a_loop_to_answer():
    """What runs after the answers waited for ever, and nothing more was done."""
    lane, _ = make("loop", lambda x: (x, 0.9))
    lane.loop = asyncio.new_event_loop()  # it takes calls in, and never runs
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lane.plain, Job(1))
        while not lane.loop._ready:
            time.sleep(0.001)
        lane.loop.close()
        for what in (asked.result, lambda _: lane.plain(Job(1))):
            with pytest.raises(NotAsked, match="no event loop is left"):
                what(LONG)


def test_what_is_stopped_when_its_loop_has_ended_says_nothing(caplog):
    """The thread that waits sees it by itself; a log showed that the loop is closed."""

    async def answer(_):
        await asyncio.Event().wait()

    lane, _ = make("loop", lambda x: (x, 0.9))
    lane.tier.predict_async = answer
    lane.loop = loop = asyncio.new_event_loop()
    handle = Handle(1, (Job(1),))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lane.plain, handle)
        while not (asyncio.all_tasks(loop) or asked.done()):
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        handle.stop()
        with pytest.raises(NotAsked):
            asked.result(LONG)
    assert not [one for one in caplog.records if one.name == "concurrent.futures"]


def test_loops_do_not_enter_while_the_lane_is_looked_at():
    lane, _ = make("loop", lambda x: (x, 0.9))
    with ThreadPoolExecutor(1) as pool:
        with lane._sharing:  # as one that enters
            looks = pool.submit(lane.live)
            with pytest.raises(TimeoutError):
                looks.result(0.05)
        assert looks.result(LONG) == 0
