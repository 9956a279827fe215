"""What is always so, whatever happens in whatever order: a router against a hostile world.

One router, in virtual time, is asked, cancelled, swapped, starved and broken; after every step the
books must balance.
"""

import asyncio
import json
import math
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import cascade
from cascade import AsyncRouter, CascadeError, Policy
from cascade.testing import VirtualLoop, scripted

# seconds, answer of the small tier; seconds, answer of the large
NAN = float("nan")
SMALL = {
    "sure": (0.001, ("a", 0.9)), "unsure": (0.001, ("a", 0.3)), "hopeless": (0.001, ("a", 0.05)),
    "odd": (0.001, ("a", NAN)), "raises": (0.001, LookupError()), "nan": (0.001, (NAN, 0.9)),
    "over": (0.001, ("a", 1.5)), "slow": (0.05, ("a", 0.9)), "list": (0.001, (["a"], 0.9)),
}  # fmt: skip
LARGE = {
    "fine": (0.005, ("b", 1.0)), "raises": (0.005, LookupError()), "hangs": (1e6, ("b", 1.0)),
    "nan": (0.005, (NAN, 1.0)), "late": (0.03, ("b", 1.0)),
}  # fmt: skip
ENTRIES, BYTES, QUEUE, WORKERS = 8, 20_000, 3, 2


def policy(version):
    tiers = [
        {"name": name, "kind": "external", "version": version, "queue": QUEUE, "workers": WORKERS}
        for name in ("small", "large")
    ]
    return Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "20ms", "tiers": tiers,
            "escalation": {"thresholds": [0.5], "abstain_below": 0.1},
            "cache": {"entries": ENTRIES, "bytes": BYTES, "ttl": "40ms"},
        }
    )  # fmt: skip


class Paced(scripted().__class__):
    """A tier whose time and answer are those of the question."""

    def __init__(self, table, place, version):
        super().__init__(None, None, 0.0, None, None, version)
        self._table, self._place = table, place

    async def predict(self, batch, context):
        for x in batch:
            seconds, answer = self._table[x[self._place]]
            await asyncio.sleep(seconds)
            if isinstance(answer, Exception):
                raise answer
        return cascade.Prediction([answer[0]], confidences=[answer[1]])


def tiers(version):
    return {"small": Paced(SMALL, 0, version), "large": Paced(LARGE, 1, version)}


class Invariants(RuleBasedStateMachine):
    """Ask in any way, cancel, swap and wait; each request ends once, and nothing is left."""

    def __init__(self):
        super().__init__()
        self.loop, self.observed = VirtualLoop(), []
        self.router = AsyncRouter(
            policy("1"), tiers=tiers("1"), env={}, on_outcome=self.observed.append,
            clock=self.loop.clock,
        )  # fmt: skip
        self.router._service.open()
        self.tasks, self.left = [], 0
        self.digests = {policy("1").digest}
        self.failed = Counter()

    async def _ask(self, *args, **how):
        try:
            return await self.router.route(*args, **how)
        except CascadeError as error:  # nothing else may come
            self.failed[str(error.outcome.disposition)] += 1
            return error.outcome

    @rule(
        small=st.sampled_from(sorted(SMALL)), large=st.sampled_from(sorted(LARGE)),
        copies=st.sampled_from([1, 1, 2, 6]), deadline=st.sampled_from([None, 0.002, 0.02, 0.2]),
        tenant=st.sampled_from([None, "a", "b"]), floor=st.sampled_from([None, None, "large"]),
    )  # fmt: skip
    def ask(self, small, large, copies, deadline, tenant, floor):
        for _ in range(copies):
            request = self._ask((small, large), deadline=deadline, tenant=tenant, at_least=floor)
            self.tasks.append(self.loop.create_task(request))

    @rule(rows=st.lists(st.sampled_from(["sure", "unsure", "odd", "raises"]), max_size=4))
    def ask_many(self, rows):
        asked = self.router.route_many([(row, "fine") for row in rows], use_cache=True, deadline=1)
        many = self.loop.run_until_complete(asked)
        assert len(many) == len(rows)
        for outcome in many:
            self._sound(outcome)

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.002, 0.01, 0.03]))
    def wait(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(which=st.integers(0, 50))
    def leave(self, which):
        alive = [task for task in self.tasks if not task.done()]
        if alive:
            alive[which % len(alive)].cancel()

    @rule(version=st.sampled_from(["1", "2"]))
    def swap(self, version):
        self.router._service.swap(policy(version), tiers(version))
        self.digests.add(policy(version).digest)

    @rule()
    def blocked(self):
        self.loop.now += 0.015  # whoever holds the loop

    def _sound(self, outcome):
        """One outcome by itself: it names what it rests on, and is JSON."""
        ends = str(outcome.disposition)
        assert outcome.policy in self.digests
        assert (outcome.tier is None) == (ends in {"shed", "failed"})
        if ends in {"accepted", "cached"}:
            assert str(outcome.reason) in {"confident", "top", "cache"}
        else:
            assert str(outcome.reason) in {
                "deadline", "load", "breaker", "fault", "overload", "unsure",
            }  # fmt: skip
        if outcome.confidence is not None:
            assert 0.0 <= outcome.confidence <= 1.0
        parts = outcome.latency
        assert math.isclose(
            parts.total, parts.input + parts.transfer + parts.compute + parts.output, abs_tol=1e-9
        )
        json.dumps(outcome.to_dict(), allow_nan=False)

    def _collect(self):
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if task.cancelled():
                self.left += 1
            else:
                self._sound(task.result())

    @invariant()
    def bounds_hold(self):
        self._collect()
        plan = self.router._service.plan
        for lane in plan.lanes:
            assert lane.occupancy().queued <= QUEUE
            assert lane.occupancy().running <= WORKERS
        cache = plan.engine.cache
        assert len(cache) <= ENTRIES
        assert cache.size == sum(item.size for item in cache.entries.values()) <= BYTES
        for item in cache.entries.values():
            assert item.value == item.value
            assert str(item.finish.disposition) == "cached"
            assert item.confidence is None or 0.0 <= item.confidence <= 1.0

    @invariant()
    def dispositions_add_up(self):
        said = self.router.statistics()
        assert said.requests == sum(said.dispositions.values())
        assert said.requests == len(self.observed)
        counted = Counter(str(outcome.disposition) for outcome in self.observed)
        for end, n in self.failed.items():
            assert counted[end] >= n
        assert len({outcome.id for outcome in self.observed}) == len(self.observed)

    def teardown(self):
        asked = len(self.tasks)
        if asked:
            self.loop.run_until_complete(asyncio.wait(self.tasks, timeout=1.0))
        self._collect()
        assert self.tasks == []  # the deadlines have passed: everybody has an outcome
        self.dispositions_add_up()
        plan = self.router._service.plan
        assert not plan.engine.flights
        for lane in plan.lanes:
            assert lane.occupancy().queued == 0
            assert lane.occupancy().running == 0
        service = self.router._service
        service.let_go(service.refuse(), idle=False)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


QUICK = settings(
    max_examples=40, stateful_step_count=30, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
TestInvariants = Invariants.TestCase
TestInvariants.settings = QUICK


@pytest.mark.slow
def test_five_thousand_lives_of_fifty_steps():
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Invariants, settings=settings(QUICK, max_examples=5_000, stateful_step_count=50)
    )
