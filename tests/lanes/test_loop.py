"""The loop lane: what it says of itself from outside of its loops, and who works for which."""

import asyncio
import threading

from cascade import AsyncRouter, Policy
from cascade.lanes.loop import CALLER
from cascade.lanes.watchdog import in_time
from tests.awaiting import until


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


def test_in_time_work_is_done_in_the_caller_s_context():
    mark = asyncio.new_event_loop()
    CALLER.set(mark)
    try:
        assert in_time(CALLER.get, 30 * 10**9, lambda: None) is mark
    finally:
        CALLER.set(None)
        mark.close()
