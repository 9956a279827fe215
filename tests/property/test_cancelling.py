"""Callers come, leave and run out of time in any order, in virtual time: nothing is lost.

The real AsyncRouter, engine, flights, queue and lane; only time is not real.
"""

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import cascade
from cascade import AsyncRouter, CascadeError, Policy
from cascade.testing import VirtualLoop

# per key: seconds and confidence of the small tier, seconds of the large; None: it raises
TIERS = {
    "quick": (0.001, 0.9, 0.005),
    "escalates": (0.001, 0.1, 0.005),
    "slow": (0.004, 0.1, 0.05),
    "fails": (0.001, None, 0.005),
    "dead": (0.002, None, None),
    "hangs": (0.001, 0.1, 1_000.0),
}
WORKERS = {"small": 2, "large": 1}
QUEUES = {"small": 3, "large": 2}


async def small(x):
    seconds, confidence, _ = TIERS[x]
    await asyncio.sleep(seconds)
    if confidence is None:
        raise LookupError
    return x, confidence


async def large(x):
    seconds = TIERS[x][2]
    if seconds is None:
        raise LookupError
    await asyncio.sleep(seconds)
    return x.upper(), 1.0


def policy():
    return Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "1s", "cache": {"ttl": "5ms"},
            "tiers": [{"name": name, "kind": "external", "workers": WORKERS[name],
                       "queue": QUEUES[name]} for name in WORKERS],
            "escalation": {"thresholds": [0.5]},
        }
    )  # fmt: skip


class Cancelling(RuleBasedStateMachine):
    """Requests as tasks of one loop; each ends once, and leaves nothing behind."""

    def __init__(self):
        super().__init__()
        self.loop = VirtualLoop()
        self.seen, self.tasks = [], []
        tiers = {
            "small": cascade.tier(small, returns="pairs", rows="one"),
            "large": cascade.tier(large, returns="pairs", rows="one"),
        }
        self.router = AsyncRouter(
            policy(), tiers=tiers, clock=self.loop.clock, on_outcome=self.seen.append
        )
        self.plan = self.router._service.open()

    @rule(
        key=st.sampled_from([*sorted(TIERS), "slow", "slow", "escalates", "escalates"]),
        deadline=st.sampled_from([0.0015, 0.003, 0.02, 0.2]),
        floor=st.sampled_from([None, None, None, "large"]),
        cached=st.sampled_from([True, True, False]),
    )
    def ask(self, key, deadline, floor, cached):
        request = self.router.route(key, deadline=deadline, at_least=floor, use_cache=cached)
        self.tasks.append((key, self.loop.create_task(request)))

    @precondition(lambda self: any(not task.done() for _, task in self.tasks))
    @rule(data=st.data())
    def leave(self, data):
        task = data.draw(st.sampled_from([task for _, task in self.tasks if not task.done()]))
        task.cancel()

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.0005, 0.001, 0.003, 0.01, 0.1]))
    def pass_time(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @invariant()
    def bounds_hold(self):
        for lane, name in zip(self.plan.lanes, WORKERS, strict=True):
            assert lane.occupancy().running <= WORKERS[name]
            assert lane.occupancy().queued <= QUEUES[name]

    def teardown(self):
        """Let everything end: no flight, place or waiter is left, and each has one outcome."""
        self.loop.run_until_complete(asyncio.sleep(5.0))
        try:
            assert all(task.done() for _, task in self.tasks), "somebody was never woken"
            ended = [(key, task) for key, task in self.tasks if not task.cancelled()]
            for key, task in ended:
                error = task.exception()
                assert error is None or isinstance(error, CascadeError)
                if error is None and task.result().value is not None:
                    assert task.result().value.lower() == key
            ids = [outcome.id for outcome in self.seen]
            assert len(ids) == len(set(ids)) == len(ended)
            assert self.router.statistics().requests == len(ended)
            assert not self.plan.engine.flights
            for lane in self.plan.lanes:
                assert lane.occupancy()[:2] == (0, 0)
            assert self.router._loop is None or self.router._loop.active == 0
        finally:
            self.loop.close()


QUICK = settings(
    max_examples=200, stateful_step_count=50, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
TestCancelling = Cancelling.TestCase
TestCancelling.settings = QUICK


@pytest.mark.slow
def test_five_thousand_lives_of_fifty_steps():
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Cancelling, settings=settings(QUICK, max_examples=5_000))
