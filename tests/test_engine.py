"""What all drivers share: the way in and the way out."""

import asyncio
import threading
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest

import cascade
from cascade import AsyncRouter, Budget, Policy, PolicyError, Router
from cascade.engine import Engine, Request
from cascade.errors import InputTypeError
from cascade.testing import VirtualLoop, router_for


def policy(**tier):
    return Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "30s", "cache": {},
            "tiers": [{"name": "only", "kind": "external", **tier}],
        }
    )  # fmt: skip


@pytest.mark.parametrize("tenant", [1, True, b"acme", ("acme",)])
def test_a_tenant_is_named_by_a_string(tenant):
    with router_for(policy()) as router, pytest.raises(InputTypeError, match="tenant: expected a"):
        router.route(1, tenant=tenant)


def test_a_budget_of_centuries_is_no_problem():
    with router_for(policy(execution="worker")) as router:
        assert router.route(1, deadline=Budget(2**80)).tier == "only"


class Uncopyable:
    def __deepcopy__(self, memo):
        raise RuntimeError("no")


def test_what_cannot_be_copied_is_shared_with_those_who_wait_for_it():
    begun, go, found = threading.Event(), threading.Event(), []

    def only(x):
        begun.set()
        assert go.wait(30)
        return Uncopyable()

    with Router(policy(), tiers={"only": cascade.tier(only, rows="one")}) as router:
        threads = [
            threading.Thread(target=lambda: found.append(router.route("x"))) for _ in range(2)
        ]
        threads[0].start()
        assert begun.wait(30)
        threads[1].start()
        (leader,) = router._service.plan.engine.flights.values()
        while not leader.followers:
            pass
        go.set()
        for thread in threads:
            thread.join(30)
    assert {type(outcome.value) for outcome in found} == {Uncopyable}
    assert sorted(step.result for outcome in found for step in outcome.steps) == [
        "accepted", "shared",
    ]  # fmt: skip


@pytest.mark.parametrize("deadline", ["300ms", "9s"], ids=["degraded", "accepted"])
@pytest.mark.parametrize("tenfold", [False, True], ids=["as it is", "postprocessed"])
def test_what_one_makes_of_his_answer_is_not_what_those_who_wait_for_it_get(tenfold, deadline):
    """Nor what is made of it in place by the function that comes after the tiers."""

    async def small(x):
        await asyncio.sleep(0.1)
        return [1], 0.1

    async def large(x):
        await asyncio.sleep(0.5)
        return [2]

    def post(value):
        value[0] *= 10
        return value

    async def ask(router, **how):
        value = (await router.route("x", **how)).value
        value.append("changed")
        return value

    async def main():
        first = asyncio.create_task(ask(router, deadline=deadline))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(ask(router)) for _ in range(3)]
        await asyncio.sleep(0.2)
        others.append(asyncio.create_task(ask(router, deadline="10ms")))  # takes what there is
        return await asyncio.gather(first, *others)

    loop = VirtualLoop()
    tree = {"version": 1, "name": "p", "deadline": "30s", "cache": {},
            "postprocess": {"version": "1"},
            "tiers": [{"name": name, "kind": "external"} for name in ("small", "large")],
            "escalation": {"thresholds": [0.5]}}  # fmt: skip
    if not tenfold:
        del tree["postprocess"]
    tiers = {"small": cascade.tier(small, returns="pairs", rows="one"),
             "large": cascade.tier(large, rows="one")}  # fmt: skip
    more = {"postprocess": post} if tenfold else {}
    router = AsyncRouter(Policy.from_dict(tree), tiers=tiers, clock=loop.clock, **more)
    router._service.open()
    by = 10 if tenfold else 1
    try:
        first, *others, partial = loop.run_until_complete(main())
        cached = loop.run_until_complete(router.route("x")).value
    finally:
        loop.close()
    assert first == [by if deadline == "300ms" else 2 * by, "changed"]
    assert others == [[2 * by, "changed"]] * 3
    assert partial == [by, "changed"]
    assert cached == [2 * by]


def test_a_flight_may_be_handed_over_ever_so_often():
    with router_for(policy()) as router:
        plan = router._service.open()
        flight = [Request(plan, "x", 0, 0, until) for until in range(3_000)]
        for before, after in pairwise(flight):
            before.heir = after
        flight[-1].until = plan.clock() + 30 * 10**9
        assert 0 < flight[0].remaining() <= 30
        assert not flight[0].cancelled()
        assert flight[0].heir is flight[-1]  # those in between may go


def test_an_unknown_kind_of_any_size_is_shown_briefly():
    deep = []
    for _ in range(2_000):
        deep = [deep]
    for kind in (10**6_000, deep, "x" * 10_000):
        with pytest.raises(PolicyError, match=r"tiers\.0\.kind") as caught:
            Policy.from_dict({"version": 1, "name": "p", "tiers": [{"name": "a", "kind": kind}]})
        assert len(str(caught.value)) < 300


def test_all_who_wait_are_woken_though_a_signal_comes_in_between():
    rung = []

    def ring(name):
        rung.append(name)
        if len(rung) == 2:
            raise KeyboardInterrupt

    waiting = [SimpleNamespace(signal=partial(ring, name)) for name in "abc"]
    with pytest.raises(KeyboardInterrupt):
        Engine._wake(SimpleNamespace(verdicts=[(one, None) for one in waiting]))
    assert set(rung) == set("abc")
