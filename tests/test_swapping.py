"""What a swap keeps and what it does not: cached answers, counts, files that are watched."""

import threading

import numpy as np
import onnx
import pytest

import cascade
import cascade.plan
from cascade import Policy, PolicyError, Router
from tests.benchmarks.models import perceptron
from tests.lanes.targets import double
from tests.test_service import ROW, says, tree


def labelled(path, label):
    """Write a model that gives one of two labels to every row."""
    model = onnx.load(perceptron(path, [4, 2], 0))
    weights, bias = model.graph.initializer
    weights.CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 2), dtype=np.float32), "w0"))
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([9 * (1 - label), 9 * label]), "b0"))
    onnx.save(model, path)


def onnx_file(tmp_path, name="policy.yaml", **more):
    spec = {"name": "only", "kind": "onnx", "model": "m.onnx"} | more
    path = tmp_path / name
    path.write_text(Policy.from_dict(tree(tiers=[spec])).to_yaml())
    return path


@pytest.mark.parametrize("execution", ["inline", "process"])
def test_a_cache_does_not_outlive_the_model_whose_answers_it_holds(tmp_path, execution):
    labelled(tmp_path / "m.onnx", 0)
    path = onnx_file(tmp_path, execution=execution)
    with Router.from_yaml(path) as router:
        assert router.route(ROW).value == 0
        labelled(tmp_path / "m.onnx", 1)
        router.swap(path)
        outcome = router.route(ROW)
        assert (outcome.value, outcome.disposition) == (1, "accepted")
        router.swap(path)  # the same bytes
        assert router.route(ROW).disposition == "cached"


def test_a_tier_bound_anew_shares_no_answers_unless_it_has_the_same_version():
    spec = {"name": "only", "kind": "external"}
    policy = Policy.from_dict(tree(tiers=[spec]))

    class Model:
        def predict_all(self, xs):
            return [id(self)] * len(xs)

    first, second = Model(), Model()
    with Router(policy, tiers={"only": first.predict_all}) as router:
        assert router.route("x").value == id(first)
        router.swap(policy, tiers={"only": first.predict_all})  # the same method
        assert router.route("x").disposition == "cached"
        router.swap(policy)
        assert router.route("x").disposition == "cached"
        router.swap(policy, tiers={"only": second.predict_all})
        assert router.route("x").value == id(second)
        for version, cached in (("1", False), ("1", True), ("2", False)):
            router.swap(policy, tiers={"only": cascade.tier(Model().predict_all, version=version)})
            assert (router.route("x").disposition == "cached") is cached


def test_a_cache_does_not_outlive_the_names_of_its_tiers():
    def policy(name):
        return Policy.from_dict(tree(tiers=[{"name": name, "kind": "external", "version": "1"}]))

    with Router(policy("a"), tiers={"a": says("it")}) as router:
        router.route("x")
        router.swap(policy("z"), tiers={"z": says("it")})
        outcome = router.route("x")
        assert (outcome.tier, outcome.disposition) == ("z", "accepted")


def test_what_a_swap_has_opened_in_vain_is_closed(tmp_path):
    spec = {"name": "only", "kind": "external", "execution": "process"}
    router = Router(
        Policy.from_dict(tree(tiers=[spec], profile="none.json"), root=tmp_path),
        tiers={"only": cascade.tier(double, returns="pairs", rows="one")},
    )
    with pytest.raises(PolicyError, match="cannot be read"):
        router.warmup()
    assert not router._service.bound[0]._free


def test_swapping_and_closing_leave_no_threads(tmp_path):
    before = set(threading.enumerate())
    path = onnx_file(tmp_path, execution="worker")
    labelled(tmp_path / "m.onnx", 0)
    with Router.from_yaml(path) as router:
        for _ in range(5):
            router.route(ROW)
            router.route_many(np.stack([ROW] * 3), deadline=5.0)  # watched
            router.swap(path)
    for thread in set(threading.enumerate()) - before:
        thread.join(30.0)
        assert not thread.is_alive()


def samples(router, name):
    lines = router.metrics().splitlines()
    return sorted(line for line in lines if line.startswith(name))


def test_counters_do_not_fall_when_the_names_of_policies_are_forgotten():
    spec = {"name": "it", "kind": "external", "version": "1"}
    with Router(Policy.from_dict(tree(name="p", tiers=[spec])), tiers={"it": says("x")}) as router:
        for i in range(12):
            router.swap(Policy.from_dict(tree(name=f"p{i}", tiers=[spec])))
            router.route(i)
        counts = [int(line.rpartition(" ")[2]) for line in samples(router, "cascade_requests_")]
        assert (sum(counts), len(counts)) == (12, 5)
        (calls,) = samples(router, "cascade_tier_calls_total{")
        assert calls.endswith(" 12")
        assert 'cascade_latency_seconds_count{part="total"} 12' in router.metrics()


def test_what_one_policy_has_counted_does_not_become_anothers():
    def policy(name, tier):
        spec = {"name": tier, "kind": "external", "version": "1"}
        return Policy.from_dict(tree(name=name, tiers=[spec]))

    def requests(name, tier, disposition, reason, count):
        labels = f'policy="{name}",tier="{tier}",disposition="{disposition}",reason="{reason}"'
        return f"cascade_requests_total{{{labels}}} {count}"

    with Router(policy("a", "it"), tiers={"it": says("x")}) as router:
        router.route("x")
        router.swap(policy("b", "it"))
        assert router.route("x").disposition == "cached"  # the answers are the same
        router.swap(policy("b", "other"), tiers={"other": says("x")})
        router.route("x")
        router.swap(policy("a", "it"), tiers={"it": says("x")})
        router.route("x")
        assert samples(router, "cascade_requests_total{") == [
            requests("a", "it", "accepted", "top", 2),
            requests("b", "it", "cached", "cache", 1),
            requests("b", "other", "accepted", "top", 1),
        ]
        assert samples(router, "cascade_tier_calls_total{") == [
            'cascade_tier_calls_total{tier="it",result="accepted"} 2',
            'cascade_tier_calls_total{tier="other",result="accepted"} 1',
        ]
        assert samples(router, "cascade_cache_total{") == [
            'cascade_cache_total{result="hit"} 1', 'cascade_cache_total{result="miss"} 3',
        ]  # fmt: skip
        assert 'cascade_latency_seconds_count{part="total"} 4' in router.metrics()
        assert f'digest="{router.policy.digest}"' in samples(router, "cascade_policy_info{")[0]
        assert router.statistics().requests == 2  # of this name and these tiers


def test_swaps_that_fail_push_nothing_out_of_the_counters(monkeypatch):
    spec = {"name": "it", "kind": "external", "version": "1"}
    with Router(Policy.from_dict(tree(name="p", tiers=[spec])), tiers={"it": says("x")}) as router:
        router.route("x")
        before = router.metrics()

        def refused(*_, **__):
            raise PolicyError("it does not fit")

        with monkeypatch.context() as patched:
            patched.setattr(cascade.plan, "common_inputs", refused)
            for i in range(6):
                with pytest.raises(PolicyError, match="does not fit"):
                    router.swap(Policy.from_dict(tree(name=f"p{i}", tiers=[spec])))
        assert router.metrics() == before
        router.route("y")
        (calls,) = samples(router, "cascade_tier_calls_total{")
        assert calls.endswith(" 2")
