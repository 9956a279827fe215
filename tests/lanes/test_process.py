"""The process lane: what cannot be cancelled is killed, and replaced."""

import os
import time

import numpy as np
import pytest

import cascade
from cascade import DeadlineExceeded, Policy, PolicyError, Router
from tests.benchmarks.models import perceptron
from tests.lanes.targets import double, fail, sleep


def policy(**spec):
    spec = {"name": "it", "kind": "external", "execution": "process", **spec}
    return Policy.from_dict({"version": 1, "name": "p", "deadline": "20s", "tiers": [spec]})


def routing(function, **spec):
    target = cascade.tier(function, returns="pairs", rows="one")
    return Router(policy(**spec), tiers={"it": target})


def pids(router):
    return {child.process.pid for child in router._service.bound[0]._free}


def test_it_answers_from_another_process():
    with routing(double) as router:
        outcome = router.route(21)
        assert (outcome.value, outcome.confidence) == (42, 0.9)
        assert os.getpid() not in pids(router)
        assert router.route_many([1, 2, 3, 4]).values.tolist() == [2, 4, 6, 8]


def test_a_call_that_runs_too_long_is_killed_and_the_next_is_served():
    with routing(sleep) as router:
        before = pids(router)
        with pytest.raises(DeadlineExceeded):
            router.route(3_600, deadline=0.1)
        assert router.route(0).value == "awake"
        assert not before & pids(router)
        assert router._service.plan.lanes[0].zombies == 0


def test_a_process_that_dies_is_a_fault_and_is_replaced():
    with routing(double) as router:
        (child,) = router._service.bound[0]._free
        child.kill()
        child.process.wait()
        assert router.route(1).value == 2


def test_faults_cross_the_border_without_the_input():
    with routing(fail) as router:
        with pytest.raises(cascade.TierError, match="tier 'it' raised KeyError"):
            router.route("bad")


def test_models_go_there_too(tmp_path):
    perceptron(tmp_path / "m.onnx", [4, 3], 0)
    onnx = {"kind": "onnx", "model": "m.onnx", "batch": {"max_size": 4}}
    row = np.ones(4, dtype=np.float32)
    with (
        Router(policy(**onnx), models=tmp_path) as far,
        Router(policy(**onnx | {"execution": "inline"}), models=tmp_path) as near,
    ):
        assert far.route(row).value == near.route(row).value
        assert far.route(row).confidence == pytest.approx(near.route(row).confidence, abs=1e-6)
        with pytest.raises(cascade.InputValueError, match="shape"):
            far.route(np.ones(5, dtype=np.float32))


def test_what_cannot_travel_is_refused_when_the_router_is_built():
    with pytest.raises(PolicyError, match=r"tier 'it': execution: process needs something that"):
        routing(lambda x: (x, 0.9))


def test_closing_ends_the_processes():
    router = routing(double)
    router.warmup()
    (child,) = router._service.bound[0]._free
    router.close()
    assert child.process.returncode is not None


def test_idle_processes_answer_later():
    with routing(double, workers=2) as router:
        assert len(pids(router)) == 2
        time.sleep(0.01)
        assert [router.route(i).value for i in range(4)] == [0, 2, 4, 6]


def test_a_swap_ends_the_processes_of_the_old_policy():
    with routing(double) as router:
        (child,) = router._service.bound[0]._free
        target = cascade.tier(double, returns="pairs", rows="one")
        router.swap(policy(version="2"), tiers={"it": target})
        assert child.process.returncode is not None
        assert router.route(2).value == 4
