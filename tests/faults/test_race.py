"""Threads and event loops share a router, its flights and queues, with callers that leave."""

import asyncio
import random
import threading
import time
from collections import Counter

import pytest

import cascade
from cascade import AsyncRouter, CascadeError, Policy, Router

POLICY = {
    "version": 1, "name": "p", "deadline": "1s", "cache": {"ttl": "5ms"},
    "tiers": [{"name": "small", "kind": "external", "execution": "worker", "workers": 4},
              {"name": "large", "kind": "external", "execution": "worker", "workers": 2,
               "queue": 16, "batch": {"max_size": 4}}],
    "escalation": {"thresholds": [0.5]},
}  # fmt: skip
DEADLINES = (0.003, 0.01, 0.05, 0.5)


def small(xs):
    time.sleep(random.random() * 0.004)
    if random.random() < 0.05:
        raise ValueError
    return [(x, random.random()) for x in xs]


def large(xs):
    time.sleep(random.random() * 0.02)
    if random.random() < 0.05:
        raise ValueError
    return [x + "!" for x in xs]


class Crowd:
    """Callers of one router until ``end``, who count how their requests ended."""

    def __init__(self, seconds):
        self.seen, self.wrong, self.ended = [], [], Counter()
        tiers = {"small": cascade.tier(small, returns="pairs"), "large": large}
        self.router = Router(
            Policy.from_dict(POLICY), tiers=tiers, on_outcome=lambda o: self.seen.append(o.id)
        )
        self.router.warmup()
        self.over = AsyncRouter.over(self.router)
        self.end = time.monotonic() + seconds

    def took(self, key, outcome):
        self.ended[str(outcome.disposition)] += 1
        if outcome.value.rstrip("!") != key:
            self.wrong.append((key, outcome.value))

    def in_a_thread(self, seed):
        rng = random.Random(seed)
        while time.monotonic() < self.end:
            key = f"k{rng.randrange(4)}"
            try:
                self.took(key, self.router.route(key, deadline=rng.choice(DEADLINES)))
            except CascadeError as error:
                self.ended[type(error).__name__] += 1

    def in_a_loop(self, seed):
        async def all_of_them():
            await asyncio.gather(*(self._awaiting(100 * seed + i) for i in range(12)))

        asyncio.run(all_of_them())

    async def _awaiting(self, seed):
        rng = random.Random(seed)
        while time.monotonic() < self.end:
            key = f"k{rng.randrange(4)}"
            task = asyncio.ensure_future(self.over.route(key, deadline=rng.choice(DEADLINES)))
            if rng.random() < 0.4:
                await asyncio.sleep(rng.random() * 0.02)
                task.cancel()
            try:
                self.took(key, await task)
            except CascadeError as error:
                self.ended[type(error).__name__] += 1
            except asyncio.CancelledError:
                self.ended["cancelled"] += 1


@pytest.mark.slow
def test_nobody_is_lost_and_nothing_is_left_behind():
    crowd = Crowd(20.0)
    callers = [threading.Thread(target=crowd.in_a_thread, args=(i,)) for i in range(4)]
    callers += [threading.Thread(target=crowd.in_a_loop, args=(i,)) for i in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60.0)
        assert not caller.is_alive()
    answered = sum(n for how, n in crowd.ended.items() if how != "cancelled")
    assert answered > 1_000
    assert not crowd.wrong
    assert answered == len(crowd.seen) == len(set(crowd.seen)) == crowd.router.statistics().requests
    plan = crowd.router._service.plan
    until = time.monotonic() + 10.0
    while any(lane.live() for lane in plan.lanes) and time.monotonic() < until:
        time.sleep(0.01)
    assert not plan.engine.flights
    assert [(at.queued, at.running) for at in (lane.occupancy() for lane in plan.lanes)] == [
        (0, 0), (0, 0),
    ]  # fmt: skip
    crowd.router.close()
