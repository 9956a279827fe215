"""Closing: what is on its way is answered on every tier that it needs, what comes is refused."""

import asyncio
import threading
import time

import numpy as np
import pytest

import cascade
import cascade.service
from cascade import AsyncRouter, CascadeError, Policy, PolicyError, Router
from tests.awaiting import until


class Held:
    """A tier that says when it was begun, and answers when it is let go."""

    def __init__(self, confidence):
        self.confidence = confidence
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self, xs):
        self.begun.set()
        assert self.gate.wait(30.0)
        return [(x, self.confidence) for x in xs]


def closing(grace, *, many=False):
    """Close a router while its small tier runs, with both tiers held."""
    tree = {
        "version": 1, "name": "p", "deadline": "60s",
        "tiers": [{"name": "small", "kind": "external", "execution": "worker"},
                  {"name": "large", "kind": "external", "execution": "worker"}],
        "escalation": {"thresholds": [0.5]},
    }  # fmt: skip
    small, large = Held(0.1), Held(0.9)
    tiers = {
        "small": cascade.tier(small, returns="pairs"),
        "large": cascade.tier(large, returns="pairs"),
    }
    router, answers = Router(Policy.from_dict(tree), tiers=tiers), []

    def ask():
        try:
            if many:
                answers.append(router.route_many(np.array(["x", "y"])).values.tolist())
            else:
                answers.append(router.route("x").value)
        except CascadeError as error:
            answers.append(type(error).__name__)

    asking = threading.Thread(target=ask)
    asking.start()
    assert small.begun.wait(30.0)
    ending = threading.Thread(target=lambda: router.close(grace=grace))
    ending.start()
    while not router.health().closed:
        time.sleep(0.001)
    return router, small, large, asking, ending, answers


@pytest.mark.parametrize("many", [False, True])
def test_what_escalates_while_the_router_closes_is_answered(many):
    router, small, large, asking, ending, answers = closing(60.0, many=many)
    with pytest.raises(PolicyError, match="closed"):
        router.route("late")
    small.gate.set()
    assert large.begun.wait(30.0)  # the next tier is asked although the router is closing
    assert ending.is_alive()
    large.gate.set()
    asking.join()
    ending.join()
    assert answers == ([["x", "y"]] if many else ["x"])


def test_what_has_not_ended_after_the_grace_is_not_waited_for():
    router, small, large, asking, ending, answers = closing(0.01)
    ending.join()
    assert not answers
    small.gate.set()
    asking.join()
    assert not large.begun.is_set()  # its lane is closed
    assert answers == ["x"]  # the best answer there is
    with pytest.raises(PolicyError, match="closed for good: build another"):
        router.route("late")


def test_who_closes_second_waits_for_the_first_and_cuts_nothing_off():
    router, small, large, asking, ending, answers = closing(60.0)
    seen = []

    def close():
        router.close(grace=60.0)
        seen.append(large.gate.is_set())

    second = threading.Thread(target=close)
    second.start()
    second.join(0.1)
    router.close(grace=0.01)  # who has no time to wait leaves it to the first
    assert router._service.bound
    small.gate.set()
    assert large.begun.wait(30.0)
    large.gate.set()
    for thread in (asking, ending, second):
        thread.join(30.0)
    assert (answers, seen, router._service.bound) == (["x"], [True], ())
    router.close()  # once more does no harm
    assert router.statistics().requests == 1


def test_a_close_that_is_interrupted_lets_go_all_the_same(monkeypatch):
    def interrupted(plan):
        yield 0.0
        raise KeyboardInterrupt

    router = Router(Policy.from_dict(ONE), tiers={"only": lambda xs: xs})
    router.route("x")
    monkeypatch.setattr(router, "_idling", interrupted)
    with pytest.raises(KeyboardInterrupt):
        router.close()
    assert (router._service.bound, router._service.leaving) == ((), None)
    monkeypatch.undo()
    router.close()
    assert router.statistics().requests == 1


ONE = {
    "version": 1, "name": "p", "deadline": "60s", "tiers": [{"name": "only", "kind": "external"}],
}  # fmt: skip


def test_a_close_that_is_cancelled_lets_go_and_what_runs_is_answered():
    async def main():
        begun, gate = asyncio.Event(), asyncio.Event()

        async def held(xs):
            begun.set()
            await gate.wait()
            return xs

        router = AsyncRouter(Policy.from_dict(ONE), tiers={"only": held})
        asking = asyncio.create_task(router.route("x"))
        await begun.wait()
        closing = asyncio.create_task(router.close(grace=60.0))
        await until(lambda: router.health().closed)
        second = asyncio.create_task(router.close(grace=60.0))
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await second
        assert (router._service.bound, router._service.leaving) == ((), None)
        gate.set()
        assert (await asking).value == "x"
        await router.close()
        return router.statistics().requests

    assert asyncio.run(asyncio.wait_for(main(), 30.0)) == 1


def test_a_close_that_is_cancelled_while_models_are_opened_lets_go_once_they_are(monkeypatch):
    opening, gate, really = threading.Event(), threading.Event(), cascade.service.open_plan

    def slow(*given):
        opening.set()
        assert gate.wait(30.0)
        return really(*given)

    monkeypatch.setattr(cascade.service, "open_plan", slow)

    async def main():
        router = AsyncRouter(Policy.from_dict(ONE), tiers={"only": lambda xs: xs})
        warming = asyncio.create_task(router.warmup())
        await until(opening.is_set)
        closing = asyncio.create_task(router.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await warming
        assert (router._service.bound, router.ready, router.health().closed) == ((), False, True)

    asyncio.run(asyncio.wait_for(main(), 30.0))


def test_what_is_recorded_at_another_front_is_written_when_one_closes(tmp_path):
    async def main():
        router = Router(Policy.from_dict(ONE), tiers={"only": lambda xs: xs})
        front = AsyncRouter.over(router)
        router.record(tmp_path, rate=1.0)
        router.route("x")
        await front.close()
        return router

    router = asyncio.run(asyncio.wait_for(main(), 30.0))
    assert router.statistics().recorded == 1
    assert not router._aftermath.recorder._files


@pytest.mark.parametrize("closed", [False, True])
def test_the_child_of_a_parent_that_was_closing_waits_for_nobody(closed):
    router = Router(Policy.from_dict(ONE), tiers={"only": lambda xs: xs})
    service = router._service
    if closed:
        router.close()
    else:
        assert service.claim()
    service.in_child()  # as after a fork: the thread that was at it is not here
    assert service.over.is_set() is closed
    router.close(grace=60.0)
    assert service.over.is_set()
    assert router.health().closed
