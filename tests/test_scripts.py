"""Scripts: what they answer, and how they stand in for whatever a policy names."""

import json

import numpy as np
import pytest

import cascade
from cascade import DeadlineExceeded, PolicyError, TierError
from cascade.testing import (
    VirtualClock,
    assert_disposition,
    assert_tier,
    async_router_for,
    router_for,
    run_virtual,
    scripted,
)

TREE = {
    "version": 1, "name": "p", "deadline": "50ms",  # for what goes by virtual time
    "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
    "escalation": {"thresholds": [0.8]},
}  # fmt: skip
PATIENT = TREE | {"deadline": "60s"}  # for what goes by real time


def test_scripts_are_followed_row_by_row():
    script = {"a": ("cat", 0.9), "b": KeyError("b"), "c": "plain"}
    tier = scripted(script, default=("dog", 0.5))
    with router_for(PATIENT, small=tier, large="whale") as router:
        assert router.route("a").value == "cat"
        assert router.route("b").tier == "large"  # it raised
        assert router.route("other").value == "whale"  # unsure
        assert_tier(router.route("c"), "large")  # no confidence below the top tier is a fault
    assert tier.calls == ["a", "b", "other", "c"]


def test_functions_and_errors_are_scripts_too():
    with router_for(PATIENT, small=scripted(lambda x: (x, x / 10)), large="top") as router:
        assert [router.route(x).tier for x in (9, 7)] == ["small", "large"]
    broken = scripted(error=ConnectionError("secret"))
    with router_for(PATIENT, small=broken, large=broken) as router:
        with pytest.raises(TierError, match="raised ConnectionError"):
            router.route("x")


@pytest.mark.parametrize("error", [ConnectionError("secret"), ConnectionError])
def test_an_exception_is_raised_wherever_it_is_given(error):
    for small in (error, scripted(default=error), scripted({"x": error}), scripted(error=error)):
        with router_for(PATIENT, small=small, large="whale") as router:
            found = router.route("x")
        assert_tier(found, "large")
        assert "ConnectionError" in str(found.steps[0].error)


@pytest.mark.parametrize("execution", ["auto", "inline", "worker", "process"])
@pytest.mark.parametrize("score", ["auto", "supplied", "max_probability", "margin"])
def test_scripts_stand_in_however_the_model_would_be_scored_and_run(execution, score):
    model = {"kind": "onnx", "model": "none.onnx", "execution": execution, "confidence": score}
    tiers = [{"name": name} | model for name in ("small", "large")]
    tree = TREE | {"deadline": "60s", "tiers": tiers}  # some run in real time here
    with router_for(tree, small=lambda xs: 1 / 0, large="dog") as router:
        assert_tier(router.route("x"), "large")
    with router_for(tree, small=("cat", 0.9), large="dog") as router:
        assert_tier(router.route("x"), "small")

    async def main(loop):
        small = cascade.tier(lambda x: ("cat", 0.5), returns="pairs", rows="one")
        large = scripted(default="dog", seconds=0.01)
        given = small if score in {"auto", "supplied"} else ("cat", 0.5)
        return await async_router_for(tree, loop=loop, small=given, large=large).route("x")

    found = run_virtual(main)
    assert_tier(found, "large")
    assert found.latency.total == pytest.approx(0.01)


@pytest.mark.parametrize("line", ["golden: none.json", "profile: none.json", "revision: x"])
def test_what_was_measured_of_models_is_not_needed(tmp_path, line):
    path = tmp_path / "policy.yaml"
    confidence = "{calibration: none.json}" if "revision" in line else "auto"
    path.write_text(
        f"version: 1\nname: p\ndeadline: 1s\n{line}\ntiers:\n"
        f"  - {{name: small, kind: onnx, model: none.onnx, confidence: {confidence}}}\n"
        "  - {name: large, kind: onnx, model: none.onnx}\nescalation: {thresholds: [0.8]}\n"
    )
    with router_for(path, small=("cat", 0.9)) as router:
        assert_tier(router.route("text"), "small")
    if "golden" in line:
        return  # no question is asked of those who are no models
    small = cascade.tier(len, returns="pairs")
    with pytest.raises(PolicyError, match=r"none\.json"):  # a real router needs it
        cascade.Router.from_yaml(path, tiers={"small": small, "large": len}).warmup()


def test_what_the_policy_and_the_driver_ask_of_a_script_still_holds():
    named = TREE | {"tiers": [{"name": "small", "kind": "external", "version": "2"}]}
    del named["escalation"]
    with pytest.raises(PolicyError, match="the policy names version '2', the tier is '1'"):
        router_for(named, small=scripted(version="1"))
    with pytest.raises(PolicyError, match="use AsyncRouter"):
        router_for(TREE, small=scripted(asynchronous=True))


def test_time_passes_when_a_scripted_tier_takes_it():
    clock = VirtualClock()
    slow = scripted(default=("cat", 0.9), seconds=0.03, clock=clock)
    with router_for(TREE, clock=clock, small=slow) as router:
        assert router.route("x").latency.compute == pytest.approx(0.03)


def test_a_sync_router_leaves_a_slow_script_at_the_deadline():
    unsure, late = (
        scripted(default=("cat", 0.5), seconds=0.01),
        scripted(default="dog", seconds=0.2),
    )
    with router_for(TREE, small=unsure, large=late) as router:
        first = router.route("x")
        second = router.route("y", deadline=0.3)
        third = router.route("z", deadline=0.21)  # just in time
    assert_disposition(first, "degraded", "deadline")
    assert first.steps[-1].result == "timed_out"
    assert first.latency.total == pytest.approx(0.05)
    assert_tier(second, "large")
    assert second.latency.total == third.latency.total == pytest.approx(0.21)


def test_a_script_that_hangs_does_so_in_virtual_time():
    with router_for(TREE, small=scripted(hangs=True)) as router:
        with pytest.raises(DeadlineExceeded) as caught:
            router.route("x")
        assert_disposition(caught.value.outcome, "failed", "deadline")
        assert caught.value.outcome.latency.total == pytest.approx(0.05)
        many = router.route_many(["a", "b", "c"], deadline=1.0)
        assert [str(reason) for reason in many.reasons] == ["deadline"] * 3


def test_what_fails_takes_its_time_too():
    broken = scripted(error=ConnectionError(), seconds=0.03)
    with router_for(TREE, small=broken, large="dog") as router:
        assert router.route("x").latency.total == pytest.approx(0.03)

    async def main(loop):
        return await async_router_for(TREE, loop=loop, small=broken, large="dog").route("x")

    assert run_virtual(main).latency.total == pytest.approx(0.03)
    late = scripted(error=ConnectionError(), seconds=0.06)
    with router_for(TREE, small=late) as router:
        with pytest.raises(DeadlineExceeded):
            router.route("x")


def test_a_tier_of_ones_own_may_let_time_pass():
    clock = VirtualClock()

    def slow(x):
        clock.advance(0.06)
        return "cat", 0.9

    small = cascade.tier(slow, returns="pairs", rows="one")
    with router_for(TREE, clock=clock, small=small) as router:
        with pytest.raises(DeadlineExceeded):
            router.route("x")


def test_what_a_sync_router_learns_in_virtual_time_it_goes_by():
    """A tier that takes 40 ms is not asked by one who has 20."""
    slow = scripted(default=("cat", 0.9), seconds=0.04)
    with router_for(TREE, small=slow) as router:
        for i in range(20):
            assert_tier(router.route(i), "small")
        found = router.route("y", deadline=0.02)
    assert [step.result for step in found.steps] == ["refused", "accepted"]


def test_clocks_must_be_one():
    one, other = scripted(clock=VirtualClock()), scripted(clock=VirtualClock())
    with pytest.raises(TypeError, match="different ones"):
        router_for(TREE, small=one, large=other)
    for wrong in (("cat", 0.9), "cat"):
        with pytest.raises(TypeError, match="clock: expected a VirtualClock"):
            router_for(TREE, clock=wrong)
        with pytest.raises(TypeError, match="loop: expected a VirtualLoop"):
            async_router_for(TREE, loop=wrong)


@pytest.mark.parametrize("x", [{"text": "meow", "length": 4}, {"image": np.ones(3)}, [1.0, 2.0]])
def test_scripts_are_asked_for_a_row_as_it_is(x):
    seen = scripted(lambda row: (repr(row), 0.9))
    with router_for(PATIENT, small=seen) as router:
        assert router.route(x).value == repr(x)
        assert seen.calls[0] is x

    async def main(loop):
        return await async_router_for(PATIENT, loop=loop, small=seen).route(x)

    assert run_virtual(main).value == repr(x)


def test_scripts_are_asked_row_by_row_for_a_dict_of_columns():
    seen = scripted(lambda row: (float(row["a"][0]), 0.9))
    with router_for(PATIENT, small=seen) as router:
        many = router.route_many({"a": np.arange(6.0).reshape(3, 2)})
    assert many.values.tolist() == [0.0, 2.0, 4.0]


def test_a_script_that_lacks_an_answer_says_so():
    turns = iter([("cat", 0.9)])
    for script, x, said in [
        (scripted({"a": ("cat", 0.9)}), "b", "no answer to this input .it has 1, and no default="),
        (scripted({"a": ("cat", 0.9)}), {"a": 1}, "a dict cannot be looked up, give a function"),
        (scripted(lambda x: next(turns)), "b", "the script has run out"),
    ]:
        with router_for(PATIENT, small=script, large=script) as router:
            if "run out" in said:
                router.route(x)
            with pytest.raises(TierError, match=said):
                router.route(x)


def test_arguments_that_no_script_can_be_of_are_refused():
    for wrong, said in [
        ({"answers": ["a", "b"]}, "answers: expected a mapping or a function, got a list"),
        ({"seconds": "5ms"}, "seconds: expected a number, got a str"),
        ({"error": "broken"}, "error: expected an exception, got a str"),
    ]:
        with pytest.raises(TypeError, match=said):
            scripted(**wrong)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds: expected 0 or more"):
            scripted(seconds=seconds)


def test_a_certified_policy_without_its_calibration_takes_scripts_at_their_word(tmp_path):
    draw = np.random.default_rng(0)
    right = draw.random(1_500) < 0.85
    table = {
        "truth": ["a"] * 750 + ["b"] * 750,
        "small.confidence": np.where(right, draw.beta(8, 2, 1_500), draw.beta(2, 3, 1_500)),
    }
    table["small.value"] = [
        x if ok else "ab"["ba".index(x)] for x, ok in zip(table["truth"], right, strict=True)
    ]
    table["large.value"] = table["truth"]
    fit = cascade.fit(table, max_loss=0.1, costs=[1, 20], score="by_label")
    fit.save(tmp_path / "fitted")
    path = tmp_path / "fitted" / "policy.yaml"

    def sure():
        with router_for(path, small=("a", 0.97), large="b") as router:
            return router.route("x", deadline=1.0).confidence

    assert json.loads(path.with_name("calibration.json").read_text())
    assert sure() != 0.97
    path.with_name("calibration.json").unlink()
    assert sure() == 0.97
    with pytest.raises(PolicyError, match=r"calibration\.json: cannot be read"):
        cascade.Policy.from_yaml(path)
