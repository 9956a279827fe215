"""Event loops: inline work gives way, requests share turns, and callers are woken in portions."""

import asyncio
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import cascade
from cascade import AsyncRouter, Policy, Router
from cascade.batching import Curve
from cascade.facts import Failed, Refused, TimedOut
from cascade.lanes import InlineLane, Watchdog
from cascade.lanes.lane import Served
from cascade.loops import Loop, Turn, in_thread
from cascade.protocols import BoundTier
from cascade.types import Reason
from tests.awaiting import pairs, serve, tree


def test_inline_answers_neither_suspend_nor_make_tasks():
    async def work(router):
        for i in range(100):
            await router.route(i)  # the tier is known to be fast now
        router._loop.held = 0
        route = router.route("inline")
        try:
            route.send(None)
        except StopIteration as stop:
            return stop.value
        pytest.fail("it suspended")

    outcome = serve(work)
    assert outcome.tier == "small"


def test_inline_work_gives_way():
    turns = []

    async def work(router):
        async def pulse():
            while True:
                turns.append(None)
                await asyncio.sleep(0)

        beating = asyncio.create_task(pulse())
        for i in range(3_000):
            await router.route(i)
        beating.cancel()

    inline = {"execution": "inline"}
    serve(work, policy=tree(inline, inline))
    assert len(turns) > 10


def test_crowded_requests_share_turns():
    sizes = []

    def answer(xs):
        sizes.append(len(xs))
        return np.array([[0.9, 0.1]] * len(xs))

    spec = {"name": "only", "kind": "external", "execution": "inline", "batch": {"max_size": 16}}
    policy = {"version": 1, "name": "p", "deadline": "9s", "tiers": [spec]}

    async def work(router):
        async def client(i):
            return [(await router.route((i, j))).value for j in range(300)]

        return await asyncio.gather(*(client(i) for i in range(32)))

    only = cascade.tier(answer, returns="probabilities", classes=["yes", "no"])
    answers = serve(work, policy=policy, tiers={"only": only})
    assert {value for client in answers for value in client} == {"yes"}
    assert 1 < max(sizes) <= 16
    assert sum(sizes) == 32 * 300


def test_rows_of_a_shared_turn_are_matched_by_identity():
    spec = {"name": "only", "kind": "external", "execution": "inline", "batch": {"max_size": 64}}
    policy = {"version": 1, "name": "p", "deadline": "9s", "tiers": [spec]}

    async def work(router):
        async def client(i):
            found = []
            for j in range(100):
                outcome = await router.route(i * 1000 + j)
                assert outcome.value == -(i * 1000 + j)
                found.append(outcome)
            return found

        return await asyncio.gather(*(client(i) for i in range(40)))

    only = cascade.tier(lambda xs: [(-x, 0.9) for x in xs], returns="pairs")
    found = serve(work, policy=policy, tiers={"only": only})
    steps = {(o.steps[0].rows or 1) for client in found for o in client}
    assert max(steps) > 1
    assert {o.steps[0].went for client in found for o in client} <= {None, "turn", "idle"}


@pytest.mark.parametrize(("takes", "most"), [(1_000_000, 4), (10_000, 64)])
def test_callers_are_woken_in_portions_of_the_time_that_they_hold_the_loop(takes, most):
    """``takes``: the time (ns) from turn to turn, whatever is done in it."""

    async def main():
        loop = Loop(asyncio.get_running_loop())
        loop.clock = itertools.count(takes, takes).__next__
        futures = [loop.asyncio.create_future() for _ in range(800)]
        woken = []
        loop.deliver(futures)
        while sum(woken) < len(futures):
            woken.append(sum(future.done() for future in futures) - sum(woken))
            await asyncio.sleep(0)
        return woken

    woken = asyncio.run(main())
    assert woken[0] == Loop.PORTION
    assert woken[-2] == most


def test_a_portion_that_has_become_large_is_seen_to_be_too_large():
    """Also where it takes all there are, so that none is left to be woken in a later turn."""

    async def main():
        loop = Loop(asyncio.get_running_loop())
        now = 0
        loop.clock = lambda: now

        async def caller(future):
            nonlocal now
            await future
            now += takes

        async def crowd():
            futures = [loop.asyncio.create_future() for _ in range(48)]
            callers = [asyncio.create_task(caller(future)) for future in futures]
            await asyncio.sleep(0)
            loop.deliver(futures)
            woken = sum(future.done() for future in futures)
            await asyncio.gather(*callers)
            return woken

        takes = 1_000
        quick = [await crowd() for _ in range(8)]
        takes = 25_000
        return quick, [await crowd() for _ in range(8)]

    quick, slow = asyncio.run(main())
    assert quick[-1] == 48
    assert slow[-1] == Loop.WAKE // 25_000


def test_who_gives_way_has_his_turn_in_order_and_nobody_overtakes_for_long():
    async def main():
        loop = Loop(asyncio.get_running_loop())
        now = 0
        loop.clock = lambda: now
        order, turns, held = [], [], []

        async def client(name):
            nonlocal now
            await loop.give_way()
            order.append(name)
            held.append(loop.held)
            now += 50_000

        async def pulse():
            while len(order) < 100:
                turns.append(len(order))
                await asyncio.sleep(0)

        loop.held = loop.FAIR
        clients = [asyncio.create_task(client(name)) for name in range(100)]
        clients[7].cancel()
        clients.append(asyncio.create_task(client(100)))
        async with asyncio.timeout(30):
            await asyncio.gather(pulse(), *clients, return_exceptions=True)
        assert loop.crowded
        return order, turns, held

    order, turns, held = asyncio.run(main())
    assert order == [name for name in range(101) if name != 7]
    assert held == [Loop.FAIR - Loop.SHARE] * 99 + [0]
    steps = [after - before for before, after in itertools.pairwise(turns)]
    assert max(steps) == Loop.PORTION
    assert max(steps[-10:]) == Loop.WAKE // 50_000


def test_priority_says_who_has_his_turn_first():
    inline = {"execution": "inline"}

    async def work(router):
        async def client(name, **how):
            await router.route(name, **how)
            order.append(name)

        await router.route("first")
        router._loop.held = Loop.FAIR
        order = []
        await asyncio.gather(
            *(client(f"low {i}", priority="low") for i in range(3)),
            *(client(f"normal {i}") for i in range(40)),
            *(client(f"high {i}", priority="high") for i in range(3)),
        )
        return order

    order = serve(work, policy=tree(inline, inline))
    assert order[:3] == [f"high {i}" for i in range(3)]
    assert order[3:] == [*(f"normal {i}" for i in range(40)), *(f"low {i}" for i in range(3))]


def test_a_crowd_that_is_gone_is_seen_to_be():
    """Who asks alone, turn after turn, need not wait for others any more."""
    spec = {"name": "only", "kind": "external", "execution": "inline", "batch": {"max_size": 16}}
    policy = {"version": 1, "name": "p", "deadline": "9s", "tiers": [spec]}

    async def work(router):
        await router.route("x")
        router._loop.crowded = True
        went = [(await router.route(i)).steps[0].went for i in range(12)]
        return went, router._loop.crowded

    only = cascade.tier(lambda xs: [(x, 0.9) for x in xs], returns="pairs")
    went, crowded = serve(work, policy=policy, tiers={"only": only})
    assert (went, crowded) == (["turn"] * 8 + [None] * 4, False)


def test_a_seat_that_came_too_late_is_refused():
    turn = Turn(SimpleNamespace(clock=lambda: 7), SimpleNamespace(index=2))
    fact = turn.fact(SimpleNamespace(fact=None))
    assert (type(fact), fact.tier, fact.reason) == (Refused, 2, Reason.DEADLINE)


def test_a_turn_waits_for_its_own_callers_alone():
    """However much workers deliver meanwhile: they never let it run."""

    class Lane:
        cap, service = 8, SimpleNamespace(curve=Curve())

        def serve_turn(self, served):
            sizes.append(len(served))

    sizes = []

    async def main():
        loop = Loop(asyncio.get_running_loop())
        loop.clock = itertools.count(10**9, 10**9).__next__  # four at a time are woken
        turn = Turn(loop, Lane())
        request = SimpleNamespace()

        async def busy():
            while True:
                loop.deliver([loop.asyncio.create_future() for _ in range(40)])
                await asyncio.sleep(0)

        async def client(n):
            for _ in range(n):
                await turn.seat(request, 0).future

        working = asyncio.create_task(busy())
        async with asyncio.timeout(30):
            await asyncio.gather(*(client(3) for _ in range(8)))
        working.cancel()

    asyncio.run(main())
    assert sizes == [8, 8, 8]  # who was woken first asks again, and goes with the others


def test_the_wait_for_a_later_turn_begins_when_that_is_asked_for():
    now = [1_000]

    def taking(ms, confidence):
        def answer(batch):
            now[0] += ms * 1_000_000
            return [(x, confidence) for x in batch]

        return cascade.tier(answer, returns="pairs")

    async def work(router):
        await router.route("first", deadline="1h")
        router._loop.crowded = True
        return await asyncio.gather(*(router.route(i, deadline="1h") for i in range(4)))

    shared = {"execution": "inline", "batch": {"max_size": 8}}
    tiers = {"small": taking(10, 0.1), "large": taking(5, 1.0)}
    found = serve(work, policy=tree(shared, shared), tiers=tiers, clock=lambda: now[0])
    for outcome in found:
        parts = outcome.latency
        assert [step.went for step in outcome.steps] == ["turn", "turn"]
        assert min(parts.input, parts.transfer, parts.compute, parts.output) >= 0
        assert parts.compute == pytest.approx(0.015)
        assert parts.transfer == pytest.approx(0.0)


def test_an_exit_in_a_shared_turn_is_no_fault_of_the_tier():
    turn = Turn(SimpleNamespace(), SimpleNamespace(index=0))
    with pytest.raises(SystemExit, match="3"):
        turn.fact(SimpleNamespace(fact=Failed(0, SystemExit(3), 0, 0, 0)))


def test_what_goes_wrong_beside_a_run_strands_nobody():
    """Those who have their fact keep it, and the next ones have their turn."""

    class Lane:
        cap, index, tier = 8, 2, SimpleNamespace(name="only")
        service = SimpleNamespace(curve=Curve())

        def serve_turn(self, served):
            served[0].fact = "known"
            if len(served) > 1:
                raise OSError("closed")

    async def main():
        turn = Turn(Loop(asyncio.get_running_loop()), Lane())
        facts = []
        async with asyncio.timeout(30):
            for n in (3, 1):
                seats = [turn.seat(SimpleNamespace(), 7) for _ in range(n)]
                for seat in seats:
                    await seat.future
                facts.append([seat.fact for seat in seats])
        return facts

    (known, *failed), last = asyncio.run(main())
    assert (known, last) == ("known", ["known"])
    assert [(type(fact), fact.tier, fact.submitted) for fact in failed] == [(Failed, 2, 7)] * 2
    assert all(isinstance(fact.error, cascade.TierError) for fact in failed)


def test_a_turn_past_its_last_deadline_is_stopped():
    class Stuck(BoundTier):
        name, can_stop = "stuck", True

        def run(self, job):
            return self.run_rows(job.row, 1, job)

        read = None

        def run_rows(self, rows, n, context):
            over = threading.Event()
            context.stop_with(over.set)
            assert over.wait(30)
            raise RuntimeError

        def read_rows(self, raw, n):
            raise NotImplementedError

    clock = time.monotonic_ns
    lane = InlineLane(2, Stuck(), clock, cap=4, watchdog=Watchdog(clock))
    until = clock() + 300_000_000
    jobs = [SimpleNamespace(row=i, until=until - i, tenant=None, metadata={}) for i in range(4)]
    seats = [Served(job, clock()) for job in jobs]
    lane.serve_turn(seats)
    assert [(type(seat.fact), seat.fact.tier) for seat in seats] == [(TimedOut, 2)] * 4
    assert lane.eta() >= 300_000_000  # it takes at least so long


def test_what_is_delivered_meanwhile_is_not_lost_and_the_cancelled_are_passed_over():
    async def main():
        loop = Loop(asyncio.get_running_loop())
        first = [loop.asyncio.create_future() for _ in range(40)]
        later = [loop.asyncio.create_future() for _ in range(40)]
        for future in (*first[::2], *later[::2]):
            future.cancel()
        loop.deliver(first)
        deliver = [loop.delivery(future) for future in later]
        thread = threading.Thread(target=lambda: [done(None) for done in deliver])
        thread.start()
        thread.join()
        async with asyncio.timeout(30):
            await asyncio.gather(*first[1::2], *later[1::2])

    asyncio.run(main())


def test_an_awaited_tier_runs_in_the_loop_that_asks():
    """Single calls and batches, from several loops at once, some of which have ended before."""
    strangers = []

    async def answer(xs):
        await asyncio.sleep(0.001)
        if any(asyncio.get_running_loop() is not loops[x % 100] for x in xs):
            strangers.append(xs)
        return [(x, 0.9) for x in xs]

    only = cascade.tier(answer, returns="pairs")
    spec = {"name": "only", "kind": "external", "workers": 2}
    policy = Policy.from_dict({"version": 1, "name": "p", "deadline": "9s", "tiers": [spec]})
    router, loops = AsyncRouter(policy, tiers={"only": only}), {}

    async def work(n):
        loops[n] = asyncio.get_running_loop()
        one = asyncio.gather(*(router.route(i * 100 + n) for i in range(1, 21)))
        for deadline in (None, 9.0):
            many = await router.route_many([i * 100 + n for i in range(5)], deadline=deadline)
            assert many.values.tolist() == [i * 100 + n for i in range(5)]
        assert [outcome.value for outcome in await one] == [i * 100 + n for i in range(1, 21)]

    def run(n):
        asyncio.run(work(n))

    for n in range(2):
        run(n)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(2, 26)))
    assert strangers == []


def test_one_router_serves_several_loops():
    """One after the other, and at the same time from two threads."""
    tiers = {"small": pairs(0.1), "large": pairs(1.0)}
    specs = {"execution": "worker"}
    policy = Policy.from_dict(tree(specs, specs))
    with Router(policy, tiers=tiers) as router:
        shared, found = AsyncRouter.over(router), []

        async def work(first):
            asked = (shared.route(first + i) for i in range(50))
            found.extend(outcome.value for outcome in await asyncio.gather(*asked))

        asyncio.run(work(0))
        threads = [threading.Thread(target=lambda n=n: asyncio.run(work(n))) for n in (100, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(found) == [*range(50), *range(100, 150), *range(200, 250)]
        assert len(shared._loops._known) <= 3


TOGETHER = {"execution": "inline", "batch": {"max_size": 8}}


@pytest.mark.parametrize("new", [TOGETHER, {"execution": "inline"}], ids=["together", "alone"])
@pytest.mark.parametrize("waits", ["for its turn", "for a worker"])
def test_whom_a_swap_overtakes_in_a_crowded_loop_is_answered_by_his_own_policy(waits, new):
    go = threading.Event()

    def small(x):
        assert go.wait(30)
        return "old", 0.1

    def named(label):
        return cascade.tier(lambda xs: [(label, 0.9) for _ in xs], returns="pairs")

    async def work(router):
        go.set()
        await router.route("known")
        go.clear()
        loop = router._loop
        loop.held = Loop.FAIR if waits == "for its turn" else 0
        asked = [asyncio.create_task(router.route(i)) for i in range(3)]
        await asyncio.sleep(0)  # they have the old plan, and wait
        only = [{"name": "only", "kind": "external", **new}]
        router._service.swap(
            Policy.from_dict(tree(tiers=only, escalation={})), {"only": named("new")}
        )
        loop.held = 0
        assert (await router.route("x")).value == "new"
        loop.crowded = True
        go.set()
        return await asyncio.gather(*asked)

    worker = waits == "for a worker"
    tiers = {"small": cascade.tier(small, returns="pairs", rows="one") if worker else named("old"),
             "large": named("old")}  # fmt: skip
    outcomes = serve(work, policy=tree({} if worker else TOGETHER, TOGETHER), tiers=tiers)
    assert {(o.value, o.disposition) for o in outcomes} == {("old", "accepted")}


def test_a_stop_iteration_in_a_thread_is_an_error_where_it_is_awaited():
    async def main():
        async with asyncio.timeout(30):
            await in_thread(lambda: next(iter(())))

    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        asyncio.run(main())
    assert isinstance(caught.value.__cause__, StopIteration)
