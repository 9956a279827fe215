"""The test kit, as other people's suites use it."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cascade
from cascade import Policy, PolicyError, TierError
from cascade.testing import (
    assert_disposition,
    assert_tier,
    async_router_for,
    check_tier,
    outcome,
    recorded,
    router_for,
    run_virtual,
    scripted,
)

DOWNSTREAM = Path(__file__).parents[1] / "examples" / "downstream_app"
TREE = {
    "version": 1, "name": "p", "deadline": "50ms",
    "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
    "escalation": {"thresholds": [0.8]},
}  # fmt: skip
PATIENT = TREE | {"deadline": "60s"}  # for what goes by real time


def test_models_are_not_needed(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nname: p\ndeadline: 1s\nclasses: [cat, dog]\nprepare: {version: tfidf-7}\n"
        "tiers:\n  - {name: small, kind: onnx, model: none.onnx}\n"
        "  - {name: large, kind: onnx, model: none.onnx}\nescalation: {thresholds: [0.8]}\n"
    )
    with router_for(path, small=("cat", 0.9), large="dog") as router:
        assert router.route("text").value == "cat"


def test_the_environment_is_shut_out(monkeypatch):
    monkeypatch.setenv("CASCADE_MODE", "top_only")
    with router_for(PATIENT, small=("cat", 0.9)) as router:
        assert_tier(router.route("x"), "small")


def test_an_unknown_tier_is_named():
    with pytest.raises(PolicyError, match="did you mean 'small'"):
        router_for(TREE, smal=("cat", 0.9))


def test_deadlines_are_met_in_virtual_time():
    async def main(loop):
        late = scripted(default="whale", seconds=0.2, asynchronous=True)
        unsure = scripted(default=("cat", 0.5), seconds=0.01, asynchronous=True)
        router = async_router_for(TREE, loop=loop, small=unsure, large=late)
        first = await router.route("x")
        second = await router.route("y", deadline=0.3)
        return first, second, loop.time()

    first, second, now = run_virtual(main)
    assert_disposition(first, "degraded", "deadline")
    assert_disposition(second, "accepted", "top")
    assert now == pytest.approx(1_000.0 + 0.05 + 0.21)


def test_a_router_goes_by_the_virtual_loop_that_runs():
    async def main(loop):
        slow = scripted(default=("cat", 0.9), seconds=0.04)
        router = async_router_for(TREE, small=slow)
        return await router.route("x"), loop.time()

    found, now = run_virtual(main)
    assert_tier(found, "small")
    assert (found.latency.total, now) == pytest.approx((0.04, 1_000.04))


def test_virtual_time_ends_what_still_runs():
    ended = []

    async def forever():
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main(loop):
        loop.keep = loop.create_task(forever())
        await asyncio.sleep(1)

    run_virtual(main)
    assert ended == ["cancelled"]


def test_recordings_answer_by_row_or_by_input():
    table = {
        "truth": ["cat", "dog"], "small.value": ["cat", "cat"], "small.confidence": [0.9, 0.4],
        "large.value": ["cat", "dog"],
    }  # fmt: skip
    with router_for(PATIENT, **recorded(table)) as router:
        assert [router.route(i).value for i in range(2)] == ["cat", "dog"]
    with router_for(PATIENT, **recorded(table | {"input": ["meow", "wuff"]})) as router:
        assert router.route("wuff").tier == "large"


TIMED = {
    "truth": ["cat", "dog"], "small.value": ["cat", "cat"], "small.confidence": [0.9, 0.4],
    "large.value": ["cat", "dog"], "small.seconds": [0.001, 0.002], "large.seconds": [0.02, 0.03],
}  # fmt: skip


def test_a_recordings_times_pass_in_virtual_time():
    with router_for(TREE, **recorded(TIMED)) as router:
        taken = [router.route(i).latency.total for i in range(2)]
        assert taken == pytest.approx([0.001, 0.032])
        assert_disposition(router.route(1, deadline=0.01), "degraded", "deadline")
        with pytest.raises(TierError, match="no such row"):
            router.route(2)

    async def main(loop):
        router = async_router_for(TREE, **recorded(TIMED, asynchronous=True))
        return (await router.route(1)).latency.total

    assert run_virtual(main) == pytest.approx(0.032)


def test_a_recordings_times_may_be_left_out():
    assert [tier.seconds for tier in recorded(TIMED, timed=False).values()] == [0.0, 0.0]


def test_a_batch_takes_what_its_rows_do():
    with router_for(TREE, **recorded(TIMED)) as router:
        many = router.route_many([0, 1] * 4, deadline=0.011)
    # 4 × 1 ms and 4 × 2 ms are more than there is
    assert {str(reason) for reason in many.reasons} == {"deadline"}


def test_recordings_say_which_rows_they_have():
    table = {
        "truth": ["cat", "dog"], "small.value": ["cat", "cat"], "small.confidence": [0.9, 0.4],
        "large.value": ["cat", "dog"],
    }  # fmt: skip
    with router_for(PATIENT, **recorded(table)) as router:
        for wrong in (2, -1, "0", 1.0, {"length": 3}):
            with pytest.raises(TierError, match=r"no such row|x\.<name>; the recording has none"):
                router.route(wrong)
    with router_for(PATIENT, **recorded(table | {"input": ["meow", "wuff"]})) as router:
        with pytest.raises(TierError, match="asked for by its inputs"):
            router.route("moo")


def test_recordings_answer_by_features_and_by_margin():
    table = {
        "truth": ["cat", "dog"], "small.value": ["cat", "cat"], "small.margin": [0.9, 0.4],
        "large.value": ["cat", "dog"], "x.length": [3, 4], "x.loud": [0.5, 0.25],
    }  # fmt: skip
    rule = {"intercept": 0.0, "weights": {"length": 0.0}, "skip_above": []}
    with router_for(PATIENT | {"complexity": rule}, **recorded(table)) as router:
        asked = [{"loud": 0.5, "length": 3}, {"length": np.float32(4), "loud": 0.25}]
        assert [router.route(x).tier for x in asked] == ["small", "large"]
        with pytest.raises(TierError, match="the dict lacks 'loud'"):
            router.route({"length": 3})
        with pytest.raises(TierError, match="no such row"):
            router.route({"length": 3, "loud": 9.0})
    with router_for(
        PATIENT, **recorded(table | {"x.loud": [0.5, 0.5], "x.length": [3, 3]})
    ) as router:
        with pytest.raises(TierError, match="features are the same"):
            router.route({"length": 3, "loud": 0.5})


def test_a_misspelt_tier_is_told_with_those_there_are():
    with router_for(PATIENT, small=("cat", 0.9)) as router:
        found = router.route("x")
    with pytest.raises(AssertionError, match="'smal', got 'small'; the policy has small, large"):
        assert_tier(found, "smal")


def test_failures_show_the_decision():
    with router_for(PATIENT, small=("cat", 0.5), large="dog") as router:
        found = router.route("x")
    with pytest.raises(AssertionError) as caught:
        assert_tier(found, "small")
    said = str(caught.value)
    assert said.startswith("expected tier 'small', got 'large'\n")
    assert "1. small: unsure, confidence 0.5000 against threshold 0.8000" in said
    with pytest.raises(AssertionError, match="expected degraded / deadline, got accepted / top"):
        assert_disposition(found, "degraded", "deadline")
    said = r"disposition: none is 'acepted'; did you mean 'accepted'\? \(accepted, cached, "
    with pytest.raises(ValueError, match=said):
        assert_disposition(found, "acepted")
    with pytest.raises(ValueError, match="reason: none is 'x'; expected one of confident, top"):
        assert_disposition(found, "accepted", "x")
    assert_disposition(outcome("cat", disposition="cached", reason="cache"), "cached")


@pytest.mark.parametrize(
    ("disposition", "reason", "tier", "covered"),
    [
        ("accepted", "confident", "small", True),
        ("cached", "cache", "small", True),
        ("degraded", "deadline", "small", False),
        ("abstained", "unsure", "small", False),
        ("shed", "overload", None, False),
        ("failed", "fault", None, False),
    ],
)
def test_an_outcome_is_one_that_a_router_makes(disposition, reason, tier, covered):
    value = None if tier is None else "cat"
    found = outcome(value, disposition=disposition)
    assert (str(found.reason), found.tier, found.covered) == (reason, tier, covered)
    withheld = disposition == "abstained"
    assert (found.value, found.best) == ((None, "cat") if withheld else (value, None))
    assert found.explain()
    assert found.to_dict()["disposition"] == disposition


def test_what_is_said_of_an_outcome_goes_before_what_follows():
    found = outcome("cat", disposition="accepted", reason="top", tier="large", covered=False)
    assert (str(found.reason), found.tier, found.covered) == ("top", "large", False)
    assert outcome(None, disposition="failed", tier="small").tier == "small"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"disposition": "accepted", "reason": "overload"}, "'confident' or 'top' of accepted"),
        ({"disposition": "shed"}, "value: expected None, for shed is without an answer"),
        ({"disposition": "failed"}, "value: expected None, for failed is without an answer"),
        ({"disposition": "degradd"}, "did you mean 'degraded'"),
    ],
)
def test_an_outcome_that_no_router_makes_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        outcome("cat", **wrong)


class Sound:
    def predict(self, batch, context):
        return cascade.Prediction([len(x) for x in batch], confidences=[0.5] * len(batch))


def changes(xs):
    xs[0] = "changed"
    return [(x, 0.9) for x in xs]


def leans_on_the_batch(xs):
    return [(len(xs), 0.9) for _ in xs]


def sure_in_company(xs):
    return [("x", 0.9 if len(xs) > 1 else 0.5) for _ in xs]


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (changes, "it changed its input"),
        (leans_on_the_batch, "row 0: another value alone than in the batch"),
        (sure_in_company, "row 0: confidence 0.5 alone, 0.9 in the batch"),
        (lambda xs: [("x", 1.5) for _ in xs], "row 1: confidences: expected a number in"),
        (lambda xs: [("x", 0.5)], "expected 2 rows, got 1"),
        (lambda xs: 1 / 0, "it raised ZeroDivisionError"),
        (lambda xs: (_ for _ in xs), "generator"),
    ],
)
def test_a_tier_with_a_fault_is_told(function, wrong):
    with pytest.raises(AssertionError, match=wrong):
        check_tier(cascade.tier(function, returns="pairs"), ["a", "bb"])


def test_confidences_must_not_depend_on_company():
    class Silent:
        def predict(self, batch, context):
            known = [0.9] * len(batch) if len(batch) > 1 else None
            return cascade.Prediction(["x"] * len(batch), confidences=known)

    with pytest.raises(AssertionError, match="row 0: a confidence alone or in the batch, but not"):
        check_tier(Silent(), ["a", "bb"])


def test_an_awaited_application_may_run_in_real_time():
    async def main():
        large = scripted(default=("cat", 0.9), asynchronous=True)
        async with async_router_for(PATIENT, small=large, large=large) as router:
            return (await router.route("meow")).value

    assert asyncio.run(main()) == "cat"


def test_sound_tiers_pass():
    check_tier(Sound(), ["a", "bb"])
    matrix = cascade.tier(
        lambda x: np.tile([0.3, 0.7], (len(x), 1)), returns="probabilities", classes=["a", "b"]
    )
    check_tier(matrix, np.zeros((3, 4), dtype=np.float32))


def test_a_tier_that_answers_by_chance_is_told():
    turns = iter(range(1_000))
    with pytest.raises(AssertionError, match="differently"):
        check_tier(cascade.tier(lambda x: next(turns), rows="one"), ["a", "b"])


@pytest.mark.parametrize(("rows", "got"), [([], "none"), (["a"], "1")])
def test_a_tier_is_checked_with_two_rows_or_more(rows, got):
    with pytest.raises(cascade.InputValueError, match=f"expected two or more rows, got {got}"):
        check_tier(Sound(), rows)


def test_what_is_wrong_with_a_confidence_is_said_as_a_router_says_it():
    def one(x):
        return [0.5, 0.5] if x == "a" else [0.5, 0.7]

    tier = cascade.tier(one, rows="one", returns="probabilities", classes=["a", "b"])
    with pytest.raises(AssertionError) as caught:
        check_tier(tier, ["a", "b", "a"])
    assert str(caught.value).splitlines()[1:] == ["- row 1: probabilities: expected a sum of one"]


def test_a_confidence_that_is_unsound_in_company_only_is_told():
    tier = cascade.tier(lambda xs: [("x", 0.5 * len(xs)) for _ in xs], returns="pairs")
    with pytest.raises(AssertionError, match="row 2: no sound confidence in the batch"):
        check_tier(tier, ["a", "b", "c"])


def test_the_plugin_imports_nothing_until_it_is_used(tmp_path):
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_nothing_of_ours_is_there():\n"
        "    heavy = {'numpy', 'onnxruntime', 'cascade.router', 'cascade.testing', 'attrs'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    _pytest(tmp_path)


def test_a_downstream_suite_runs_by_itself():
    said = _pytest(DOWNSTREAM)
    assert "7 passed" in said


def _pytest(folder):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null",
         "--rootdir", str(folder), str(folder)],
        capture_output=True, text=True, check=False, cwd=folder, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_downstream_app_serves():
    done = subprocess.run(
        [sys.executable, str(DOWNSTREAM / "app.py"), "a crash after the update"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "engineering"


def test_a_policy_is_taken_as_it_is():
    policy = Policy.from_dict(PATIENT)
    with router_for(policy, small=("cat", 0.9)) as router:
        assert router.policy is policy


def test_a_golden_input_is_not_asked_of_what_stands_in_for_the_model(tmp_path):
    column = {"dtype": "float32", "data": [[0.5]]}
    golden = {"small": {"inputs": {"x": column}, "outputs": {"p": column}}}
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    tiers = [{"name": "small", "kind": "onnx", "model": "absent.onnx"}]
    policy = Policy.from_dict(
        {"version": 1, "name": "p", "deadline": "1s", "tiers": tiers, "golden": "golden.json"},
        root=tmp_path,
    )
    with router_for(policy, small=scripted(default=("cat", 0.9))) as router:
        assert router.route("meow").value == "cat"
