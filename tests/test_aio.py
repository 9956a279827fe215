"""AsyncRouter: the same answers as Router, in an event loop, mostly in virtual time."""

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections import OrderedDict
from types import SimpleNamespace

import attrs
import numpy as np
import pytest

import cascade
from cascade import (
    AsyncRouter,
    DeadlineExceeded,
    Policy,
    PolicyError,
    Router,
    TierError,
)
from cascade.calibration import ByLabel
from cascade.testing import VirtualLoop
from tests.awaiting import pairs, serve, tree, until
from tests.benchmarks.models import perceptron


class Awaited:
    """An asynchronous tier in virtual time: how long it takes, how sure it is, who asked."""

    def __init__(self, seconds, confidence=0.9, error=None):
        self.seconds, self.confidence, self.error = seconds, confidence, error
        self.calls, self.cancelled = [], 0

    async def __call__(self, x):
        self.calls.append(x)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return f"{x}!", self.confidence

    @property
    def tier(self):
        return cascade.tier(self, returns="pairs", rows="one")


class World:
    """A router over two awaited tiers in virtual time."""

    def __init__(self, small=None, large=None, specs=()):
        self.small = small or Awaited(0.001, 0.1)
        self.large = large or Awaited(0.05)
        self.loop = VirtualLoop()
        self.router = AsyncRouter(
            Policy.from_dict(tree(**dict(specs))),
            tiers={"small": self.small.tier, "large": self.large.tier},
            clock=self.loop.clock,
        )
        self.plan = self.router._service.open()

    def ask(self, x, **options):
        return self.loop.create_task(self.router.route(x, **options))

    def wait(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def all(self, *tasks):
        async def gather():
            return await asyncio.gather(*tasks, return_exceptions=True)

        try:
            return self.loop.run_until_complete(gather())
        finally:
            self.loop.close()


def test_it_escalates_and_its_ledger_adds_up():
    world = World()
    (outcome,) = world.all(world.ask("x"))
    assert (outcome.value, outcome.tier, outcome.disposition) == ("x!", "large", "accepted")
    latency = outcome.latency
    assert latency.compute == pytest.approx(0.051)
    assert latency.total == pytest.approx(
        latency.input + latency.transfer + latency.compute + latency.output
    )


def test_at_the_deadline_the_best_answer_so_far_is_returned_and_the_call_stopped():
    world = World(large=Awaited(10.0))
    task = world.ask("x", deadline=0.02)
    world.wait(0.021)
    outcome = task.result()
    assert (outcome.value, outcome.disposition, outcome.reason) == ("x!", "degraded", "deadline")
    assert outcome.latency.total == pytest.approx(0.02)
    world.wait(0.001)
    assert world.large.cancelled == 1
    world.all(task)


def test_a_full_queue_lets_the_important_in_and_a_lesser_one_out():
    world = World(small=Awaited(0.01, 0.9), specs={"small": {"workers": 1, "queue": 1}})
    runs = world.ask("runs")
    world.wait(0.001)
    lesser = world.ask("lesser", priority="low")
    world.wait(0.001)
    urgent = world.ask("urgent", priority="high")
    outcomes = world.all(runs, lesser, urgent)
    assert world.small.calls == ["runs", "urgent"]
    assert [outcome.tier for outcome in outcomes] == ["small", "large", "small"]


def test_a_prepared_row_and_a_calibrated_confidence_are_those_of_an_awaited_tier_too():
    small, loop = Awaited(0.001, 0.6), VirtualLoop()
    table = ByLabel([0.0, 1.0], {"X!": [0.0, 1.0]}, [0.0, 0.1])
    policy = attrs.evolve(Policy.from_dict(tree()), calibrations={"small": table})
    large = Awaited(0.001)
    router = AsyncRouter(
        policy, tiers={"small": small.tier, "large": large.tier}, clock=loop.clock,
        prepare={"small": str.upper},
    )  # fmt: skip
    router._service.open()

    async def both():
        return await router.route("x"), await router.route("y")

    first, second = loop.run_until_complete(both())
    loop.close()
    assert (small.calls, large.calls) == (["X", "Y"], ["y"])
    assert (first.value, first.confidence) == ("X!", 0.6)
    assert second.value == "y!"  # for other labels the table believes it less
    assert second.steps[0].confidence == pytest.approx(0.06)


def test_closing_waits_for_what_is_on_its_way():
    async def scene():
        gate, begun = asyncio.Event(), asyncio.Event()

        async def small(x):
            begun.set()
            await gate.wait()
            return f"{x}!", 0.9

        held = cascade.tier(small, returns="pairs", rows="one")
        tiers = {"small": held, "large": held}
        router = AsyncRouter(Policy.from_dict(tree(deadline="60s")), tiers=tiers)
        task = asyncio.create_task(router.route("x"))
        await begun.wait()
        closing = asyncio.create_task(router.close(grace=60.0))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not closing.done()
        gate.set()
        await closing
        return await task

    assert asyncio.run(scene()).value == "x!"


def test_without_an_answer_the_deadline_is_an_error():
    world = World(small=Awaited(10.0))
    (error,) = world.all(world.ask("x", deadline=0.02))
    assert isinstance(error, DeadlineExceeded)
    assert error.outcome.reason == "deadline"


def test_cancelling_frees_the_place_and_stops_the_call():
    world = World(small=Awaited(10.0), specs={"small": {"workers": 1, "queue": 1}})
    runs, waits = world.ask("runs"), world.ask("waits")
    world.wait(0.001)
    refused = world.ask("refused")
    world.wait(0.001)
    assert world.large.calls == ["refused"]  # the small tier's queue is full
    waits.cancel()
    comes = world.ask("comes")
    world.wait(0.001)
    assert not comes.done()
    runs.cancel()
    world.wait(0.001)
    assert world.small.calls == ["runs", "comes"]
    assert world.small.cancelled == 1
    comes.cancel()
    world.all(runs, waits, comes, refused)
    assert not world.plan.engine.flights


def test_a_call_that_is_cancelled_before_it_began_frees_its_place():
    world = World(specs={"small": {"workers": 1}})

    async def scene():
        lane, job = world.plan.lanes[0], SimpleNamespace(row="first", until=2**62, rank=1)
        assert lane.cancel(lane.submit(job, pytest.fail))  # before its task has taken a step
        return await world.router.route("second")

    (outcome,) = world.all(scene())
    assert outcome.value == "second!"
    assert world.small.calls == ["second"]
    assert world.plan.lanes[0].occupancy().running == 0


def test_a_leader_out_of_time_leaves_the_call_to_a_follower_with_more():
    world = World()
    hasty, patient = world.ask("x", deadline=0.02), world.ask("x", deadline=0.5)
    first, second = world.all(hasty, patient)
    assert (first.disposition, first.reason) == ("degraded", "deadline")
    assert (second.value, second.disposition) == ("x!", "accepted")
    assert (world.small.calls, world.large.calls) == (["x"], ["x"])  # one call, not two
    assert world.large.cancelled == 0


def test_what_a_call_took_before_somebody_asked_is_not_in_his_ledger():
    world = World()
    hasty = world.ask("x", deadline=0.03)
    world.wait(0.02)
    _, second = world.all(hasty, world.ask("x", deadline=0.5))
    latency = second.latency
    assert (latency.input, latency.transfer, latency.output) == (0, 0, 0)
    assert latency.compute == latency.total == pytest.approx(0.031)
    assert second.steps[0].latency.compute == latency.compute


@pytest.mark.parametrize("named", [False, True])
def test_what_its_caller_makes_of_an_input_does_not_reach_a_run_that_others_wait_for(named):
    def row(array):
        return {"a": array} if named else array

    world, buffer = World(), np.array([1.0])
    hasty, patient = world.ask(row(buffer), deadline=0.02), world.ask(row(np.array([1.0])))
    world.wait(0.03)
    buffer[:] = 99.0
    first, second = world.all(hasty, patient)
    assert (first.disposition, second.value) == ("degraded", f"{row(np.array([1.0]))}!")


@pytest.mark.parametrize("kind", [list, tuple, OrderedDict])
def test_lists_and_mappings_are_kept_as_arrays_are(kind):
    def row(number):
        inner = [number]
        return (OrderedDict(a=inner) if kind is OrderedDict else kind([inner])), inner

    world, (mine, inner) = World(), row(1.0)
    hasty, patient = world.ask(mine, deadline=0.02), world.ask(row(1.0)[0])
    world.wait(0.03)
    inner[0] = 99.0
    first, second = world.all(hasty, patient)
    kept = {"a": [1.0]} if kind is OrderedDict else row(1.0)[0]
    assert (first.disposition, second.value) == ("degraded", f"{kept}!")


def test_nor_what_is_made_of_his_by_one_who_took_the_call_over():
    world = World(small=Awaited(0.03, 0.9), specs={"small": {"workers": 1}})
    first, second, third = np.ones(1), np.ones(1), np.ones(1)
    runs, leader = world.ask("runs"), world.ask(first, deadline=0.02)
    world.wait(0.01)
    world.small.seconds = 0.1
    heir, last = world.ask(second, deadline=0.1), world.ask(third)
    world.wait(0.11)  # the call was the heir's when it began, and he has left
    second[:] = 99.0
    *ended, outcome = world.all(runs, leader, heir, last)
    assert [isinstance(end, DeadlineExceeded) for end in ended] == [False, True, True]
    assert (outcome.value, len(world.small.calls)) == ("[1.]!", 2)


def test_a_cancelled_leader_hands_the_call_over():
    world = World()
    leader, follower, third = (world.ask("x") for _ in range(3))
    world.wait(0.01)
    leader.cancel()
    _, second, last = world.all(leader, follower, third)
    assert second.value == last.value == "x!"
    assert {second.disposition, last.disposition} == {"accepted"}
    assert (world.small.calls, world.large.calls) == (["x"], ["x"])


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
def test_a_call_that_waits_is_the_followers_once_its_leader_has_left(how):
    """In the queue, too, it has the follower's deadline from then on."""
    world = World(small=Awaited(0.1, 0.9), specs={"small": {"workers": 1}})
    runs, leader = world.ask("runs"), world.ask("x", deadline=0.05 if how == "deadline" else 0.5)
    world.wait(0.01)
    follower = world.ask("x", deadline=0.9)
    world.wait(0.01)
    if how == "cancelled":
        leader.cancel()
    first, second, third = world.all(runs, leader, follower)
    assert (first.value, third.value, third.disposition) == ("runs!", "x!", "accepted")
    assert isinstance(second, DeadlineExceeded if how == "deadline" else asyncio.CancelledError)
    assert world.small.calls == ["runs", "x"]


@pytest.mark.parametrize("leaves", [0.02, 0.2])
def test_a_run_is_on_behalf_of_those_who_still_wait(leaves):
    """What a tier sees of its deadline is the latest of theirs, before and after one has left."""
    seen = []

    async def patient(x, context):
        for _ in range(5):
            await asyncio.sleep(0.01)
            seen.append((context.cancelled(), round(context.remaining(), 3)))
        return x, 0.9

    loop, tier = VirtualLoop(), cascade.tier(patient, returns="pairs", rows="one", context=True)
    router = AsyncRouter(
        Policy.from_dict(tree()), tiers={"small": tier, "large": pairs(1.0)}, clock=loop.clock
    )
    router._service.open()
    leader = loop.create_task(router.route("x", deadline=leaves))
    loop.run_until_complete(asyncio.sleep(0.005))
    follower = loop.create_task(router.route("x", deadline=0.5))
    assert loop.run_until_complete(follower).value == "x"
    loop.run_until_complete(asyncio.wait([leader]))
    assert (leader.exception() is None) == (leaves > 0.1)
    assert [gone for gone, _ in seen] == [False] * 5
    assert seen[-1][1] == pytest.approx(0.455)
    loop.close()


def test_a_cancelled_follower_is_not_waited_for():
    world = World(large=Awaited(0.05, error=LookupError()))
    leader, follower = world.ask("x", deadline=0.02), world.ask("x", deadline=0.5)
    world.wait(0.005)
    follower.cancel()
    world.wait(0.005)
    first, second = world.all(leader, follower)
    assert first.reason == "deadline"
    assert isinstance(second, asyncio.CancelledError)
    assert world.large.cancelled == 1
    assert not world.plan.engine.flights


def test_a_follower_leaves_at_its_own_deadline():
    world = World()
    patient, hasty = world.ask("x", deadline=0.5), world.ask("x", deadline=0.02)
    first, second = world.all(patient, hasty)
    assert first.disposition == "accepted"
    assert (second.disposition, second.reason) == ("degraded", "deadline")
    assert second.latency.total == pytest.approx(0.02)


def test_a_follower_who_leaves_with_too_unsure_an_answer_has_it_withheld():
    world = World(specs={"escalation": {"thresholds": [0.5], "abstain_below": 0.3}})
    leader = world.ask("x", deadline=0.5)
    world.wait(0.01)
    hasty = world.ask("x", deadline=0.02)
    first, second = world.all(leader, hasty)
    assert first.disposition == "accepted"
    assert (second.disposition, second.reason, second.tier) == ("abstained", "unsure", "small")
    assert (second.value, second.best, second.latency.total) == (None, "x!", pytest.approx(0.02))


def test_a_thousand_askers_are_one_call():
    world = World(small=Awaited(0.001, 0.9))
    outcomes = world.all(*(world.ask("x") for _ in range(1000)))
    assert len({outcome.id for outcome in outcomes}) == 1000
    assert {outcome.value for outcome in outcomes} == {"x!"}
    assert world.small.calls == ["x"]


def test_faults_escalate_and_the_last_one_is_raised():
    world = World(small=Awaited(0.001, error=KeyError("x")))
    (outcome,) = world.all(world.ask("x"))
    assert (outcome.tier, [step.result for step in outcome.steps]) == (
        "large", ["failed", "accepted"],
    )  # fmt: skip
    dead = World(small=Awaited(0.001, error=KeyError()), large=Awaited(0.001, error=KeyError()))
    (error,) = dead.all(dead.ask("x"))
    assert isinstance(error, TierError)
    assert error.tier == "large"


def test_a_queued_call_says_how_long_it_waited():
    world = World(small=Awaited(0.01, 0.9), specs={"small": {"workers": 1}})
    first, second = world.all(world.ask("a"), world.ask("b"))
    assert first.latency.transfer == pytest.approx(0)
    assert second.latency.transfer == pytest.approx(0.01)


class Holding(Awaited):
    """A tier whose answer finds the loop held by other code, for 0.1 s."""

    def __init__(self, world_of, confidence):
        super().__init__(0.001, confidence)
        self.world_of = world_of

    async def __call__(self, x):
        answer = await super().__call__(x)
        loop = self.world_of().loop
        loop.call_soon(lambda: setattr(loop, "now", loop.now + 0.1))
        return answer


def test_the_way_back_to_a_caller_whose_loop_is_held_is_transfer():
    world = World(small=Holding(lambda: world, 0.9))
    (outcome,) = world.all(world.ask("x"))
    assert outcome.latency.compute == pytest.approx(0.001)
    assert outcome.latency.transfer == outcome.steps[0].latency.transfer == pytest.approx(0.1)
    assert outcome.latency.output == pytest.approx(0.0)


def test_what_is_next_is_decided_by_the_time_that_is_left_when_the_answer_is_known():
    world = World(small=Holding(lambda: world, 0.1))
    for _ in range(10):
        world.plan.lanes[1].service.observe_rows(50_000_000, 1)  # the large one takes 50 ms
    (outcome,) = world.all(world.ask("x", deadline=0.14))
    assert (outcome.value, outcome.disposition, outcome.reason) == ("x!", "degraded", "deadline")
    assert [(step.tier, step.result) for step in outcome.steps] == [
        ("small", "unsure"), ("large", "refused"),
    ]  # fmt: skip
    seen = outcome.steps[1].eta, outcome.steps[1].remaining
    assert seen == (pytest.approx(0.05), pytest.approx(0.039))
    assert world.large.calls == []


# -- with real time, threads and models ------------------------------------------------------------


def test_hits_are_hits():
    async def work(router):
        return await router.route("x"), await router.route("x")

    first, second = serve(work)
    assert (first.disposition, second.disposition) == ("accepted", "cached")
    assert second.value == "x"


def test_it_shares_everything_with_a_router():
    with Router(Policy.from_dict(tree()), tiers={"small": pairs(0.9), "large": pairs(1)}) as router:
        router.route("x")

        async def main():
            shared = AsyncRouter.over(router)
            return await shared.route("x"), await shared.route("y")

        hit, _ = asyncio.run(main())
        assert hit.disposition == "cached"
        assert router.route("y").disposition == "cached"
        assert router.statistics().requests == 4


def test_threads_and_loops_share_one_computation():
    entered, go, calls = threading.Event(), threading.Event(), []

    def slow(x):
        calls.append(x)
        entered.set()
        assert go.wait(30)
        return x, 0.9

    small = cascade.tier(slow, returns="pairs", rows="one")
    with Router(Policy.from_dict(tree()), tiers={"small": small, "large": pairs(1)}) as router:
        found = []
        thread = threading.Thread(target=lambda: found.append(router.route("x", deadline=30)))
        thread.start()
        assert entered.wait(30)

        async def main():
            shared = AsyncRouter.over(router)
            follower = asyncio.create_task(shared.route("x", deadline=30))
            await asyncio.sleep(0.01)
            go.set()
            return await follower

        outcome = asyncio.run(main())
        thread.join(30)
    assert (outcome.value, found[0].value, calls) == ("x", "x", ["x"])


def test_batches_are_awaited():
    async def work(router):
        return await router.route_many(["a", "b", "c"]), await router.route_many([])

    many, none = serve(work)
    assert many.values.tolist() == ["a", "b", "c"]
    assert len(none) == 0


def test_batches_reach_awaited_tiers():
    async def double(xs):
        await asyncio.sleep(0)
        return [2 * x for x in xs]

    async def work(router):
        return await router.route_many([1, 2, 3])

    many = serve(work, tiers={"small": pairs(0.1), "large": double})
    assert (many.values.tolist(), set(many.tiers)) == ([2, 4, 6], {"large"})


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_those_who_ask_before_it_is_open_wait_for_one_thread_and_hold_no_loop(mode):
    router = AsyncRouter(
        Policy.from_dict(tree(mode=mode)), tiers={"small": pairs(0.9), "large": pairs(1)}
    )
    service, threads, go = router._service, [], threading.Event()
    opened = service.open

    def slow():
        threads.append(threading.current_thread())
        assert go.wait(30)
        return opened()

    async def main():
        service.open = slow
        asked = [asyncio.create_task(router.route(i)) for i in range(20)]
        await until(lambda: threads)
        asked.pop(0).cancel()
        asyncio.get_running_loop().call_later(0.01, go.set)
        found = await asyncio.gather(*asked)
        await router.close()
        return [outcome.value for outcome in found]

    assert asyncio.run(main()) == list(range(1, 20))
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_the_plan_that_a_loop_opened_is_let_go_when_another_takes_its_place():
    async def work(router):
        await router.route("x")
        opened = weakref.ref(router._service.plan)
        await router.swap(Policy.from_dict(tree(revision="2")))
        await router.route("x")
        await until(lambda: gc.collect() >= 0 and opened() is None)

    serve(work)


def test_after_a_fork_nothing_is_on_its_way():
    async def work(router):
        router._loops.running().active += 1  # as a request of the parent's
        kept = router.in_child()
        assert router.on_their_way() == 0
        assert (await router.route("x")).value == "x"
        return kept

    assert serve(work) is not None


def test_batches_are_answered_in_the_context_of_who_asked():
    who = contextvars.ContextVar("who", default="nobody")

    async def awaited(xs):
        return [who.get() for _ in xs]

    async def work(router):
        who.set("me")
        return (await router.route_many([1, 2])).values.tolist()

    only = tree(tiers=[{"name": "only", "kind": "external"}], escalation={})
    for tier in (awaited, lambda xs: [who.get() for _ in xs]):
        assert serve(work, policy=only, tiers={"only": tier}) == ["me", "me"]


@pytest.mark.parametrize("deadline", [None, 60])
def test_a_batch_whose_caller_is_cancelled_is_stopped_and_goes_no_further(deadline):
    asked = []

    class Slow:
        def predict(self, batch, context):
            asked.append(len(batch))
            while not context.cancelled():
                time.sleep(0.001)
            raise RuntimeError

    async def work(router):
        plan = router._service.plan
        task = asyncio.create_task(router.route_many(["a", "b"], deadline=deadline))
        await until(lambda: asked)
        assert plan.engine.batches == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not plan.engine.batches)
        return plan.lanes[0].occupancy().broken, router.statistics()

    eager = {"breaker": {"rate": 0.1, "minimum": 1}, "execution": "inline"}
    tiers = {"small": Slow(), "large": Slow()}
    broken, statistics = serve(work, policy=tree(eager, eager), tiers=tiers)
    assert (asked, broken, sum(statistics.dispositions.values())) == ([2], False, 0)


def test_a_model_that_runs_for_a_cancelled_batch_is_terminated(tmp_path):
    perceptron(tmp_path / "m.onnx", [4, 3], 0)
    tree = {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "onnx", "model": "m.onnx"}]}
    runs = []

    def run(names, feeds, options):
        runs.append(options)
        while not options.terminate:
            time.sleep(0.001)
        raise RuntimeError

    async def main():
        async with AsyncRouter(Policy.from_dict(tree), models=tmp_path) as router:
            plan = router._service.plan
            plan.lanes[0].tier._run_session = run
            task = asyncio.create_task(router.route_many(np.zeros((2, 4), dtype=np.float32)))
            await until(lambda: runs)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not plan.engine.batches)

    asyncio.run(main())
    assert len(runs) == 1


def test_an_awaited_batch_is_cancelled_with_its_caller():
    began, ended = [], []

    async def slow(xs):
        began.append(len(xs))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(len(xs))
            raise

    async def work(router):
        plan = router._service.plan
        task = asyncio.create_task(router.route_many([1, 2, 3]))
        await until(lambda: began)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not plan.engine.batches)

    serve(work, tiers={"small": pairs(0.1), "large": slow})
    assert ended == [3]


def test_objects_with_an_awaited_predict_are_tiers():
    class Remote:
        async def predict(self, batch, context):
            assert context.remaining() > 0
            return cascade.Prediction([x.upper() for x in batch], costs=[0.5] * len(batch))

    async def work(router):
        return await router.route("x", at_least="large")

    outcome = serve(work, tiers={"small": pairs(0.1), "large": Remote()})
    assert (outcome.value, outcome.cost) == ("X", 0.5)


def test_awaited_tiers_are_for_async_routers_alone():
    async def large(xs):
        return xs

    with pytest.raises(PolicyError, match="AsyncRouter"):
        Router(Policy.from_dict(tree()), tiers={"small": pairs(0.9), "large": large})
    policy = Policy.from_dict(tree(large={"execution": "worker"}))
    with pytest.raises(PolicyError, match="execution: worker is not for it"):
        AsyncRouter(policy, tiers={"small": pairs(0.9), "large": large})


def test_it_can_be_observed_swapped_and_closed():
    async def work(router):
        router.set_mode("observe")
        outcome = await router.route("x")
        await router.flush()
        assert outcome.shadow["tier"] == "small"
        router.set_mode("enforce")
        await router.swap(Policy.from_dict(tree() | {"revision": "2"}))
        assert router.policy.revision == "2"
        assert (await router.route("y")).value == "y"
        await router.close()
        with pytest.raises(PolicyError, match="closed"):
            await router.route("z")
        return True

    assert serve(work)


def test_awaited_tiers_are_observed_and_recorded(tmp_path):
    async def large(xs):
        await asyncio.sleep(0)
        return [x.upper() for x in xs]

    async def work(router):
        await router.record(tmp_path, 1.0)
        for x in ("a", "b"):
            await router.route(x)
        await router.flush()
        return router.statistics().recorded

    assert serve(work, tiers={"small": pairs(0.9), "large": large}) == 2
    (file,) = tmp_path.glob("*.csv")
    assert file.read_text().count(",A,") + file.read_text().count(",B,") == 2


def test_an_awaited_predict_may_be_plain_but_must_be_a_prediction():
    class Plain:
        def __init__(self, answer):
            self.answer = answer

        async def predict(self, batch, context):
            return self.answer(batch)

    policy = Policy.from_dict(tree())

    async def ask(small):
        tiers = {"small": small, "large": Plain(lambda b: cascade.Prediction(b, [0.9] * len(b)))}
        async with AsyncRouter(policy, tiers=tiers) as router:
            return await router.route("x")

    good = asyncio.run(ask(Plain(lambda batch: cascade.Prediction(["s"], confidences=[0.9]))))
    assert (good.value, good.tier) == ("s", "small")
    wrong = asyncio.run(ask(Plain(lambda batch: batch)))
    assert (wrong.tier, wrong.steps[0].result) == ("large", "failed")
