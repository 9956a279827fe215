"""The process lane: what cannot be cancelled is killed, and replaced."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import cascade
from cascade import DeadlineExceeded, Policy, PolicyError, Router
from tests.benchmarks.models import perceptron
from tests.lanes.targets import double, fail, sleep, whoami


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


def until(what):
    end = time.monotonic() + 30.0
    while not what():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_what_was_killed_or_has_died_is_replaced_before_anybody_asks():
    with routing(sleep) as router:
        before = pids(router)
        with pytest.raises(DeadlineExceeded):
            router.route(3_600, deadline=0.1)
        until(lambda: pids(router))  # nobody asks
        assert not pids(router) & before


def test_who_cannot_wait_for_a_new_process_is_told_at_once(monkeypatch):
    with routing(double) as router:
        tier, go = router._service.bound[0], threading.Event()
        make = tier._make
        monkeypatch.setattr(tier, "_make", lambda: (go.wait(30.0), make())[1])
        tier._took = 10.0  # s, as far as is known
        tier._free[0].kill()
        for _ in range(2):
            with pytest.raises(cascade.TierUnavailable, match="no process is free in time"):
                router.route(1, deadline=5.0)
        go.set()
        assert router.route(1, deadline=20.0).value == 2


def test_there_are_as_many_processes_as_workers_whoever_asks():
    with routing(whoami) as router:  # one, where the policy says nothing
        assert router._service.plan.lanes[0].workers == 1
        many = [lambda i=i: set(router.route_many([i, i, i]).values.tolist()) for i in range(4)]
        one = [lambda i=i: {router.route(i).value} for i in range(4)]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda ask: ask(), [*many, *one]))
        assert set.union(*found) == pids(router)


def test_a_process_that_cannot_be_replaced_is_tried_again_by_who_asks(monkeypatch):
    with routing(double) as router:
        tier = router._service.bound[0]
        recipe, tier._recipe = tier._recipe, b"no tier at all"
        tier._free[0].kill()
        for _ in range(2):
            with pytest.raises(cascade.TierError):
                router.route(1)
        tier._recipe = recipe
        until(lambda: not tier._starting)
        assert router.route(1).value == 2
        assert len(pids(router)) == tier._made == 1


class Cut:
    """A pipe whose reader is interrupted."""

    def __init__(self, pipe):
        self.send_bytes, self.close = pipe.send_bytes, pipe.close

    def recv_bytes(self):
        raise KeyboardInterrupt


def test_a_process_that_no_thread_can_replace_is_replaced_by_who_asks(monkeypatch):
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    with routing(double) as router:
        assert router.route(1).value == 2  # its worker has a thread now
        (child,) = router._service.bound[0]._free
        child.kill()
        child.process.wait()
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        assert [router.route(i, deadline=10).value for i in (2, 3)] == [4, 6]
        monkeypatch.undo()
        assert len(pids(router)) == router._service.bound[0]._made == 1


def test_an_answer_that_nobody_read_is_not_the_next_ones():
    with routing(double) as router:
        (child,) = router._service.bound[0]._free
        child._pipe = Cut(child._pipe)
        with pytest.raises(KeyboardInterrupt):
            router.route_many([1, 2, 3])
        assert router.route_many([5, 6, 7]).values.tolist() == [10, 12, 14]


def test_a_run_that_is_stopped_late_takes_nobody_elses_process():
    with routing(double) as router:
        tier, stops = router._service.bound[0], []
        context = SimpleNamespace(
            row=4, tenant=None, metadata={}, remaining=lambda: 20.0, stop_with=stops.append
        )
        assert tier.run(context)[:2] == (8, 0.9)
        stops[0]()  # whoever left decided so while it ran
        assert tier._free[0].alive


def test_a_run_that_was_stopped_before_it_began_takes_no_process():
    with routing(double) as router:
        tier = router._service.bound[0]
        context = SimpleNamespace(
            row=4, tenant=None, metadata={}, remaining=lambda: 20.0, stop_with=lambda stop: stop()
        )
        with pytest.raises(cascade.TierUnavailable):
            tier.run(context)
        assert tier._free[0].alive


def test_closing_ends_a_process_that_hangs():
    router, found = routing(sleep), []

    def ask():
        try:
            router.route(3_600)
        except cascade.CascadeError as error:
            found.append(error)

    router.warmup()
    (child,) = router._service.bound[0]._free
    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: not router._service.bound[0]._free)
    router.close(grace=0.01)
    asking.join(10.0)
    assert isinstance(found[0], cascade.CascadeError)
    until(lambda: child.process.poll() is not None)


ORPHAN = """
import os, threading, time
import cascade
from tests.lanes.targets import sleep
spec = {"name": "it", "kind": "external", "execution": "process"}
policy = cascade.Policy.from_dict({"version": 1, "name": "p", "deadline": "1h", "tiers": [spec]})
router = cascade.Router(policy, tiers={"it": cascade.tier(sleep, returns="pairs", rows="one")})
router.warmup()
threading.Thread(target=router.route, args=(3_600,), daemon=True).start()
while router._service.bound[0]._free:
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""


def test_processes_end_with_the_one_that_made_them_whatever_they_are_at():
    over = subprocess.run(  # until the last who has its output is gone
        [sys.executable, "-c", ORPHAN], check=False, capture_output=True, timeout=60
    )
    assert (over.returncode, over.stderr) == (-9, b"")


def test_a_function_of_the_script_that_is_run_is_refused_when_the_router_is_built(monkeypatch):
    def own(x):
        return x, 0.9

    own.__module__, own.__qualname__ = "__main__", "own"
    monkeypatch.setattr(sys.modules["__main__"], "own", own, raising=False)
    with pytest.raises(PolicyError, match="move it to a module of its own, and import it"):
        routing(own)
