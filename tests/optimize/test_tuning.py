import numpy as np
import pytest

from cascade import PolicyError
from cascade.optimize.objectives import Meter, queue_p99
from cascade.optimize.tuning import Setting, setting_of, space, tune_policy
from cascade.policy import Policy

CPU = ["CPUExecutionProvider"]


def test_workers_times_threads_never_exceed_the_cores():
    found = space(Setting(), "throughput", 4, CPU)
    assert max(s.threads * s.workers for s in found) == 4
    assert {(s.threads, s.workers) for s in found} == {
        (1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1),
    }  # fmt: skip


def test_spinning_is_tried_only_with_threads_to_spin_and_a_core_to_spare():
    for objective in ("p50", "throughput"):
        spinning = [s for s in space(Setting(), objective, 4, CPU) if s.spinning]
        assert spinning
        assert all(s.threads > 1 and s.threads * s.workers < 4 for s in spinning)
        assert not any(s.spinning for s in space(Setting(), objective, 2, CPU))


def test_what_does_nothing_for_the_objective_stays():
    found = space(Setting(workers=3, cap=8), "p50", 4, CPU)
    assert {(s.workers, s.cap) for s in found} == {(3, 8)}
    one_by_one = space(Setting(), "throughput", 2, CPU, batches=False)
    assert {s.cap for s in one_by_one} == {1}


def test_other_providers_are_tried_beside_the_cpu():
    found = space(Setting(), "p50", 1, ["CUDAExecutionProvider", *CPU])
    assert {s.provider for s in found} == {None, "CUDAExecutionProvider"}


def test_a_setting_is_what_a_policy_says():
    tier = {"name": "a", "kind": "onnx", "model": "a.onnx", "threads": 2, "spinning": True}
    more = {"workers": 3, "provider": CPU[0], "batch": {"max_size": 4}}
    tree = {"version": 1, "name": "t", "deadline": "1s", "tiers": [tier | more]}
    setting = setting_of(Policy.from_dict(tree).tiers[0])
    assert setting == Setting(None, 2, True, "all", 3, 4)
    assert setting.to_spec()["batch"] == {"max_size": 4}


@pytest.mark.parametrize(
    ("workers", "cap", "p99"),
    [(1, 1, 4.0), (2, 1, 2.0), (4, 1, 1.0), (1, 4, 1.0)],
)
def test_the_queue_is_computed_from_measured_runs(workers, cap, p99):
    service = {size: [1.0] for size in (1, 2, 4) if size <= cap}
    latencies = queue_p99([0.0] * 4, service, workers)
    assert latencies == pytest.approx(p99, rel=0.02)


def test_measured_runs_are_taken_in_turn():
    assert queue_p99([0.0, 10.0], {1: [1.0, 3.0]}, 1) == pytest.approx(2.98)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"objective": "p5O"}, "unknown 'p5O'; did you mean 'p50'"),
        ({"objective": "p99"}, "p99 needs --rate"),
        ({"rate": -1.0}, "--rate: expected requests per second"),
        ({"providers": ["CPUExecutionProvidr"]}, "not available; did you mean 'CPUExecutionPro"),
        ({"tiers": ["smal"]}, "no tier 'smal'; did you mean 'small'"),
    ],
)
def test_what_cannot_be_tuned_is_said(policy, asked, said):
    given = Policy.from_yaml(policy, env={})
    with pytest.raises(PolicyError, match=said):
        tune_policy(given, rows(), **{"objective": "p50", "cores": 2, **asked})


def rows():
    from cascade.optimize.data import Data

    return Data({"": np.random.default_rng(0).normal(size=(8, 4)).astype("float32")})


def test_the_choice_is_by_what_is_measured(policy, monkeypatch):
    """A script in the meter's place: two threads and no optimisation are twice as fast."""
    monkeypatch.setattr(
        Meter,
        "__call__",
        lambda self, settings, rounds: [
            [0.5 if s.threads == 2 and s.optimization == "off" else 1.0] * rounds for s in settings
        ],
    )
    given = Policy.from_yaml(policy, env={})
    found = tune_policy(given, rows(), "p50", cores=2, tiers=["large"])
    assert [one.name for one in found] == ["large"]
    assert found[0].changes == {"threads": 2, "optimization": "off"}
    assert found[0].left_out == ()


@pytest.mark.parametrize("objective", ["p50", "p99", "throughput", "cpu"])
def test_every_objective_can_be_measured(policy, objective, monkeypatch):
    from cascade.optimize import objectives
    from cascade.optimize.running import load_models, open_tier

    monkeypatch.setattr(objectives, "_MOMENT", 0.001)
    given = Policy.from_yaml(policy, env={})
    spec, model = load_models(given)["small"]
    meter = Meter(lambda s: open_tier(spec, model, given), rows(), objective, 1_000.0)
    found = meter([Setting(), Setting(workers=2, cap=4, spinning=True)], 2)
    assert np.shape(found) == (2, 2)
    assert np.min(found) > 0.0


def test_settings_that_answer_otherwise_are_left_out(policy, monkeypatch):
    from cascade.optimize import tuning
    from cascade.optimize.running import Running, open_tier

    given = Policy.from_yaml(policy, env={})

    def opened(spec, model, policy, **settings):
        if settings["optimization"] == "basic":
            raise PolicyError("it does not start")
        return open_tier(spec, model, policy, **settings)

    def outputs(self, data):
        off = self.spec.optimization == "off"
        return np.zeros((data.n, 3)) if off else right(self, data)

    right = Running.outputs
    monkeypatch.setattr(tuning, "open_tier", opened)
    monkeypatch.setattr(Running, "outputs", outputs)
    monkeypatch.setattr(Meter, "__call__", lambda self, some, n: [[1.0] * n for _ in some])
    found = tune_policy(given, rows(), "p50", cores=1, tiers=["small"])[0]
    assert found.choice.candidates == 2
    assert any("its outputs differ by" in reason for reason in found.left_out)
    assert "it does not start" in found.left_out
