"""What all drivers share: the way in and the way out."""

import threading

import pytest

import cascade
from cascade import Budget, Policy, PolicyError, Router
from cascade.errors import InputTypeError
from cascade.testing import router_for


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


def test_an_unknown_kind_of_any_size_is_shown_briefly():
    deep = []
    for _ in range(2_000):
        deep = [deep]
    for kind in (10**6_000, deep, "x" * 10_000):
        with pytest.raises(PolicyError, match=r"tiers\.0\.kind") as caught:
            Policy.from_dict({"version": 1, "name": "p", "tiers": [{"name": "a", "kind": kind}]})
        assert len(str(caught.value)) < 300
