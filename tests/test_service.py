"""Life of a router: policies replaced under traffic, forks, closing, leaving."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import cascade
import cascade.service
from cascade import ModelIntegrityError, Policy, PolicyError, Router
from cascade.testing import router_for
from cascade.tiers.python import PythonTier
from tests.benchmarks.deadlines import EXIT
from tests.benchmarks.models import chain, perceptron

LONG = 30.0
ROW = np.ones(4, dtype=np.float32)


def tree(revision="1", **more):
    return {
        "version": 1, "name": "p", "revision": revision, "deadline": "5s", "cache": {},
        "tiers": [{"name": "only", "kind": "external", "version": revision}], **more,
    }  # fmt: skip


def says(what):
    return cascade.tier(lambda x: (what, 0.9), returns="pairs", rows="one")


def test_a_swap_replaces_policy_and_tiers():
    with Router(Policy.from_dict(tree()), tiers={"only": says("old")}) as router:
        assert router.route("x").value == "old"
        router.swap(Policy.from_dict(tree("2")), tiers={"only": says("new")})
        outcome = router.route("x")
        assert (outcome.value, outcome.disposition) == ("new", "accepted")  # not from the old cache
        assert outcome.policy == router.policy.digest
        assert router.statistics().requests == 2


def test_answers_stay_cached_where_the_new_policy_gives_the_same():
    with Router(Policy.from_dict(tree()), tiers={"only": says("old")}) as router:
        router.route("x")
        router.swap(Policy.from_dict(tree() | {"deadline": "9s"}))
        outcome = router.route("x")
        assert (outcome.disposition, outcome.deadline) == ("cached", 9.0)


def test_a_bad_policy_leaves_the_old_one_serving(tmp_path):
    with Router(Policy.from_dict(tree()), tiers={"only": says("old")}) as router:
        broken = tmp_path / "policy.yaml"
        broken.write_text("version: 1\nname: p\ntiers: []\n")
        with pytest.raises(PolicyError):
            router.swap(broken)
        missing = tree(tiers=[{"name": "only", "kind": "onnx", "model": "none.onnx"}])
        with pytest.raises((ModelIntegrityError, PolicyError)):
            router.swap(Policy.from_dict(missing, root=tmp_path), tiers={})
        assert router.route("y").value == "old"
        assert router.policy.revision == "1"


def test_under_traffic_no_request_mixes_two_policies_and_none_is_dropped():
    tiers = {str(i): {"first": says(f"first {i}"), "top": says(f"top {i}")} for i in range(2)}

    def policy(i):
        return Policy.from_dict(
            tree(str(i), cache={"ttl": "1us"}, escalation={"thresholds": [1.0]}, tiers=[
                {"name": name, "kind": "external", "version": str(i)} for name in ("first", "top")
            ])
        )  # fmt: skip

    policies = [policy(0), policy(1)]
    wanted = {policy.digest: f"top {i}" for i, policy in enumerate(policies)}
    over, wrong, served = threading.Event(), [], [0] * 3

    def ask(turn):
        while not over.is_set():
            outcome = router.route(turn)
            served[turn] += 1
            if wanted[outcome.policy] != outcome.value:
                wrong.append(outcome)

    with Router(policies[0], tiers=tiers["0"]) as router:
        threads = [threading.Thread(target=ask, args=(turn,)) for turn in range(3)]
        for thread in threads:
            thread.start()
        for i in range(1, 200):
            router.swap(policies[i % 2], tiers=tiers[str(i % 2)])
        over.set()
        for thread in threads:
            thread.join(LONG)
    assert not wrong
    assert min(served) > 0


def test_a_kill_switch_survives_a_swap():
    policy = tree(
        escalation={"thresholds": [0.5]},
        tiers=[{"name": name, "kind": "external"} for name in ("small", "large")],
    )
    tiers = {"small": says("small"), "large": says("large")}
    with Router(Policy.from_dict(policy), tiers=tiers) as router:
        router.set_mode("top_only")
        router.swap(Policy.from_dict(policy | {"revision": "2"}))
        assert (router.mode, router.route("x").value) == ("top_only", "large")


def test_a_file_is_reloaded_when_it_changes_and_a_bad_one_is_counted(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(Policy.from_dict(tree()).to_yaml())
    router = Router.from_yaml(path, tiers={"only": says("it")}, reload="5ms")
    with router:
        assert router.policy.revision == "1"
        path.write_text(Policy.from_dict(tree() | {"revision": "two"}).to_yaml())
        _until(lambda: router.policy.revision == "two")
        path.write_text("version: 1\nname: [\n")
        _until(lambda: "cascade_reload_failures_total 1" in router.metrics())
        assert router.route("x").value == "it"


def _until(what):
    end = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_reload_that_is_no_time_is_refused(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(Policy.from_dict(tree()).to_yaml())
    with pytest.raises(ValueError, match="positive"):
        Router.from_yaml(path, tiers={"only": says("it")}, reload=0)


def test_closing_lets_what_is_under_way_end():
    entered, go = threading.Event(), threading.Event()

    def slow(x):
        entered.set()
        assert go.wait(LONG)
        return x, 0.9

    only = cascade.tier(slow, returns="pairs", rows="one")
    router, found = Router(Policy.from_dict(tree()), tiers={"only": only}), []
    thread = threading.Thread(target=lambda: found.append(router.route("x")))
    thread.start()
    assert entered.wait(LONG)
    closing = threading.Thread(target=router.close)
    closing.start()
    _until(lambda: router.health().closed)
    go.set()
    closing.join(LONG)
    thread.join(LONG)
    assert found[0].value == "x"
    with pytest.raises(PolicyError, match="closed"):
        router.route("y")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_children_serve_and_leave_after_a_parent_that_has_served(tmp_path, threads):
    perceptron(tmp_path / "m.onnx", [4, 64, 3], 0)
    script = FORK.format(folder=str(tmp_path), threads=threads, forks=6)
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=False, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert (child.returncode, child.stdout.split()) == (0, ["0"] * 6), child.stderr


FORK = """
import os, sys, time
import numpy as np
from cascade import Policy, Router
tiers = [{{"name": "small", "kind": "onnx", "model": "m.onnx"}},
         {{"name": "large", "kind": "onnx", "model": "m.onnx", "execution": "worker",
           "threads": {threads}}}]
router = Router(Policy.from_dict({{"version": 1, "name": "p", "deadline": "20s", "cache": {{}},
    "tiers": tiers, "escalation": {{"thresholds": [1.0]}}}}), models={folder!r})
row = np.ones(4, dtype=np.float32)
with router:
    router.route(row)
    for i in range({forks}):
        child = os.fork()
        if not child:
            assert router.route(row + i / 100).tier == "large"
            sys.exit(0) if i % 2 else os._exit(0)
        end, status = time.time() + 30, None
        while status is None and time.time() < end:
            done, found = os.waitpid(child, os.WNOHANG)
            status = found if done else None
            time.sleep(0.002)
        if status is None:
            os.kill(child, 9)
        print(status)
    assert router.route(row * 2).tier == "large"
"""


def test_six_hung_calls_do_not_hold_up_the_exit():
    child = subprocess.run(
        [sys.executable, "-c", EXIT], check=True, capture_output=True, text=True, timeout=60
    )
    assert float(child.stdout) <= time.time()


def test_a_model_that_runs_past_its_deadline_is_stopped(tmp_path):
    chain(tmp_path / "chain.onnx", nodes=20_000)
    policy = Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "60s",
            "tiers": [{"name": "chain", "kind": "onnx", "model": "chain.onnx"}],
        }
    )  # fmt: skip
    row = np.ones(256, dtype=np.float32)
    with Router(policy, models=tmp_path) as router:
        whole = router.route(row).latency.compute
        lane = router._service.plan.lanes[0]
        lane.service._eta, lane.service.curve = 0, type(lane.service.curve)()
        with pytest.raises(cascade.DeadlineExceeded) as caught:
            router.route(row, deadline=whole / 4)
        assert caught.value.outcome.steps[-1].result == "timed_out"
        _until(lambda: not lane._far._running)

        def refused_early():
            with pytest.raises(cascade.DeadlineExceeded) as caught:
                router.route(row, deadline=whole / 4)
            return caught.value.outcome.disposition == "shed"

        _until(refused_early)  # having been stopped has taught it how long it takes
        many = router.route_many(np.stack([row] * 4), deadline=60)
        assert set(many.dispositions) == {"accepted"}
        late = router.route_many(np.stack([row] * 4), deadline=whole / 4)
        assert set(late.reasons) == {"deadline"}


def test_an_inline_model_that_runs_past_its_deadline_is_stopped(tmp_path):
    chain(tmp_path / "chain.onnx", nodes=20_000)
    policy = Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "60s",
            "tiers": [{"name": "chain", "kind": "onnx", "model": "chain.onnx",
                       "execution": "inline"}],
        }
    )  # fmt: skip
    row = np.ones(256, dtype=np.float32)
    with Router(policy, models=tmp_path) as router:
        whole = router.route(row).latency.compute
        lane = router._service.plan.lanes[0]
        lane.service._eta = 0
        with pytest.raises(cascade.DeadlineExceeded) as caught:
            router.route(row, deadline=whole / 4)
        assert caught.value.outcome.steps[-1].result == "timed_out"
        assert router.route(row).tier == "chain"


def test_any_process_answers_for_all(tmp_path):
    env = {"CASCADE_METRICS_DIR": str(tmp_path / "metrics")}
    routers = [
        Router(Policy.from_dict(tree()), tiers={"only": says("it")}, env=env) for _ in range(3)
    ]
    for i, router in enumerate(routers):
        router.warmup()
        for x in range(i + 1):
            router.route(x)
    routers[0].close()
    routers[1].metrics()
    text = routers[2].metrics()
    total = 'cascade_requests_total{policy="p",tier="only",disposition="accepted",reason="top"}'
    assert f"{total} 6" in text
    assert 'cascade_latency_seconds_count{part="total"} 6' in text
    assert text.count("cascade_mode{") == 4  # of gauges, its own
    routers[1].close()
    routers[2].close()


def two(**more):
    tiers = [{"name": name, "kind": "external"} for name in ("small", "large")]
    return {
        "version": 1, "name": "p", "deadline": "5s", "tiers": tiers,
        "escalation": {"thresholds": [0.5]},
    } | more  # fmt: skip


def test_a_swap_that_fails_leaves_the_mode_and_the_counts(tmp_path):
    with router_for(two(), small=("a", 0.9), large="b") as router:
        router.route("x")
        broken = Policy.from_dict(two(profile="none.json"), root=tmp_path)
        with pytest.raises(PolicyError, match="cannot be read"):
            router.swap(broken)
        assert router.statistics().requests == 1
        assert router.route("x").value == "a"
    with pytest.raises(PolicyError, match="closed"):
        router.swap(broken)


def test_enforcing_without_thresholds_is_refused_while_serving_too():
    bare = two(mode="top_only", escalation={})
    with router_for(bare, small=("a", 0.9), large="b") as router:
        with pytest.raises(PolicyError, match=r"needs escalation\.certificate"):
            router.set_mode("enforce")
        with pytest.raises(PolicyError, match="expected one of enforce"):
            router.set_mode("fast")
        assert router.route("x").value == "b"


def test_a_swap_to_other_tiers_counts_anew():
    one = two(tiers=[{"name": "c", "kind": "external"}], escalation={})
    with router_for(two(), small=("a", 0.9), large="b") as router:
        router.route("x")
        router.swap(Policy.from_dict(one), tiers={"c": lambda xs: xs})
        assert router.route("y").value == "y"
        assert set(router.statistics().tiers) == {"c"}


def test_a_swap_before_the_first_request_opens_only_the_new_tiers(tmp_path):
    opened = []

    class Counting:
        def __init__(self, name):
            self.name = name

        def open(self):
            opened.append(self.name)

        def predict(self, batch, context):
            return cascade.Prediction([self.name] * len(batch))

    router = Router(Policy.from_dict(tree()), tiers={"only": Counting("old")})
    router.swap(Policy.from_dict(tree("2")), tiers={"only": Counting("new")})
    router.set_mode("top_only")
    with router:
        assert router.route("x").value == "new"
    assert "old" not in opened


def test_a_model_is_replaced_without_tiers_in_python(tmp_path):
    perceptron(tmp_path / "m.onnx", [4, 3], 0)
    onnx = tree(tiers=[{"name": "only", "kind": "onnx", "model": "m.onnx"}])
    with Router(Policy.from_dict(onnx, root=tmp_path)) as router:
        before = router.route(ROW)
        router.swap(Policy.from_dict(onnx | {"deadline": "9s"}, root=tmp_path))
        assert router.route(ROW).value == before.value


def test_looking_at_a_router_that_is_not_open_opens_nothing():
    router = Router(Policy.from_dict(tree()), tiers={"only": says("it")})
    assert (router.statistics().requests, router.load().tiers[0].running) == (0, 0)
    assert "cascade_policy_info{" in router.metrics()
    assert not router.ready
    with router:
        assert router.route("x").value == "it"
        router.route("x")
    last = router.statistics()
    assert (last.requests, last.cache.hits, last.cache.entries) == (2, 1, 0)
    assert 'disposition="cached"' in router.metrics()
    assert router.load().tiers[0].tier == "only"
    router.close()
    assert router.statistics() == last
    never = Router(Policy.from_dict(tree()), tiers={"only": says("it")})
    never.close()
    assert never.statistics().requests == 0
    assert "cascade_policy_info{" in never.metrics()


class Opening:
    """What opens models, and takes until it is let; what became of the tiers."""

    def __init__(self, monkeypatch):
        self.closed = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self._really = cascade.service.open_plan
        monkeypatch.setattr(cascade.service, "open_plan", self)

        def close(tier):
            self.closed.append(tier)

        monkeypatch.setattr(PythonTier, "close", close)

    def __call__(self, *given):
        self.tiers = given[1]
        self.begun.set()
        assert self.gate.wait(LONG)
        return self._really(*given)


@contextlib.contextmanager
def swapping(opening, router, policy, **tiers):
    """Be in the middle of a swap; the list that is yielded says what came of it."""
    raised = []

    def swap():
        try:
            router.swap(policy, tiers=tiers)
        except PolicyError as error:
            raised.append(str(error))

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        assert opening.begun.wait(LONG)
        yield raised
    finally:
        opening.gate.set()
        thread.join(LONG)


def ends(work):
    """Say whether something ends; what does not stays behind in a thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LONG)
    return not thread.is_alive()


@pytest.mark.parametrize("shared", [False, True])
def test_a_swap_that_opens_models_holds_up_neither_metrics_nor_the_mode(
    tmp_path, monkeypatch, shared
):
    env, texts = {"CASCADE_METRICS_DIR": str(tmp_path)} if shared else {}, []
    policy, tiers = Policy.from_dict(two()), {"small": says("small"), "large": says("large")}
    with Router(policy, tiers=tiers, env=env) as router:
        opening = Opening(monkeypatch)
        with swapping(opening, router, policy, small=says("small"), large=says("new")):
            assert ends(lambda: texts.append(router.metrics()))
            assert ends(lambda: router.set_mode("top_only"))
            assert router.route("x").value == "large"
        assert (router.mode, router.route("y").value) == ("top_only", "new")
    assert "cascade_policy_info{" in texts[0]


def test_a_mode_set_while_a_swap_opens_models_that_the_new_policy_does_not_allow(monkeypatch):
    tiers = {"small": says("small"), "large": says("large")}
    bare = Policy.from_dict(two(mode="top_only", escalation={}))
    with Router(Policy.from_dict(two()), tiers=tiers) as router:
        opening = Opening(monkeypatch)
        with swapping(opening, router, bare, **tiers) as raised:
            router.set_mode("enforce")
        assert "needs escalation.certificate" in raised[0]
        assert opening.closed == list(opening.tiers)
        assert (router.mode, router.route("x").value) == ("enforce", "small")


def test_what_is_being_opened_is_in_force_before_the_router_closes_and_is_closed(monkeypatch):
    router = Router(Policy.from_dict(tree()), tiers={"only": says("old")})
    router.warmup()
    opening = Opening(monkeypatch)
    with swapping(opening, router, Policy.from_dict(tree("2")), only=says("new")) as raised:
        closing = threading.Thread(target=router.close)
        closing.start()
    closing.join(LONG)
    assert (raised, opening.closed, router.policy.revision) == ([], list(opening.tiers), "2")


def test_a_signal_that_comes_while_something_changes_can_change_the_mode():
    with router_for(two(), small=("a", 0.9), large="b") as router:

        def handled():  # by the thread that is at it
            with router._service.guard:
                router.set_mode("top_only")
                router.metrics()

        assert ends(handled)
        assert router.route("x").value == "b"
