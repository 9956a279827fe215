"""Functions beside a policy: named where what they do is part of a promise."""

import json
import pickle
from pathlib import Path

import pytest

import cascade
from cascade import (
    AsyncRouter,
    Certificate,
    Policy,
    PolicyError,
    Prediction,
    Router,
    TierError,
    TierOutputError,
)  # fmt: skip

TIERS = [{"name": "small", "kind": "external", "version": "1"},
         {"name": "large", "kind": "external", "version": "1"}]  # fmt: skip
SMALL = cascade.tier(lambda texts: [(text, 0.9) for text in texts], returns="pairs")
BOUND = {"small": SMALL, "large": len}


def policy(tmp_path, **more):
    point = {"thresholds": [2.0], "losses": 0, "p_value": 0.0}
    made = Certificate(
        max_loss=0.01, alpha=0.1, loss="gross", covers="adaptive", n=500,
        tiers=("small", "large"), path=[point], certified=1,
    )  # fmt: skip
    (tmp_path / "certificate.json").write_text(json.dumps(made.to_dict()))
    tree = {
        "version": 1, "name": "p", "deadline": "1s", "tiers": TIERS,
        "escalation": {"certificate": "certificate.json"},
    }  # fmt: skip
    return Policy.from_dict(tree | more, root=tmp_path)


@pytest.mark.parametrize("what", ["prepare", "postprocess"])
def test_beside_a_certificate_a_function_needs_a_version(tmp_path, what):
    with pytest.raises(PolicyError, match=f"{what}=: beside a certificate"):
        Router(policy(tmp_path), tiers=BOUND, **{what: str.strip})
    Router(policy(tmp_path, **{what: {"version": "1"}}), tiers=BOUND, **{what: str.strip})


@pytest.mark.parametrize("what", ["prepare", "postprocess"])
def test_a_function_that_the_policy_names_must_be_given(tmp_path, what):
    with pytest.raises(PolicyError, match=f"{what}: the policy names version 'v7'; give {what}=f"):
        Router(policy(tmp_path, **{what: {"version": "v7"}}), tiers=BOUND)


def test_unknown_tiers_and_what_cannot_be_called_are_named(tmp_path):
    plain = Policy.from_dict(
        {"version": 1, "name": "p", "tiers": TIERS, "escalation": {"thresholds": [0.5]}}
    )
    with pytest.raises(PolicyError, match="no tier 'smal' in the policy; did you mean 'small'"):
        Router(plain, tiers=BOUND, prepare={"smal": str})
    with pytest.raises(PolicyError, match="prepare=: 'small': expected a callable"):
        Router(plain, tiers=BOUND, prepare={"small": 1})
    with pytest.raises(PolicyError, match="bind it with Router"):
        Router(plain, tiers={"small": SMALL})
    with pytest.raises(PolicyError, match="no tier 'medium'"):
        Router(plain, tiers=BOUND | {"medium": len})


@pytest.mark.parametrize("router", [Router, AsyncRouter])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("policy.yaml", r"expected a Policy, got a str; .* Router\.from_yaml\(path\)"),
        (Path("policy.yaml"), r"got a \w*Path; a file is read by Router\.from_yaml"),
        ({}, r"got a dict; .*Policy\.from_dict\(tree\).*Router\.from_yaml"),
        (None, "expected a Policy, got a NoneType"),
        (Policy, "expected a Policy, got the class Policy"),
    ],
)
def test_what_is_no_policy_is_told_how_to_become_one(router, given, words):
    with pytest.raises(TypeError, match=words) as caught:
        router(given)
    assert isinstance(caught.value, PolicyError)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tiers": [len]}, "tiers=: expected tiers by name, as {name: f}, got a list"),
        ({"tiers": len}, "tiers=: expected tiers by name, as {name: f}, got a builtin"),
        ({"tiers": BOUND, "prepare": 5}, "prepare=: expected a callable, or callables by tier, g"),
        ({"tiers": BOUND, "postprocess": [len]}, "postprocess=: expected a callable, or callabl"),
    ],
)
def test_arguments_of_another_type_are_named(given, words):
    plain = Policy.from_dict(
        {"version": 1, "name": "p", "tiers": TIERS, "escalation": {"thresholds": [0.5]}}
    )
    with pytest.raises(TypeError, match=words) as caught:
        Router(plain, **given)
    assert isinstance(caught.value, PolicyError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class Silent:
    """A tier of one's own that never says how sure it is."""

    def __init__(self, *confidences):
        self.confidences = confidences

    def predict(self, batch, context):
        return Prediction(list(batch), confidences=self.confidences or None)


def plain(**escalation):
    return Policy.from_dict(
        {"version": 1, "name": "p", "deadline": "1s", "tiers": TIERS,
         "escalation": {"thresholds": [0.5], **escalation}}
    )  # fmt: skip


async def later(texts):
    return texts


@pytest.mark.parametrize("bare", [len, cascade.tier(len), cascade.tier(len, rows="one"), later])
def test_below_the_top_a_function_of_values_alone_is_told_when_built(bare, caplog):
    AsyncRouter(plain(), tiers={"small": SMALL, "large": bare})
    AsyncRouter(plain(), tiers={"small": Silent(0.9), "large": bare})
    assert not caplog.messages
    AsyncRouter(plain(), tiers={"small": bare, "large": len})
    (said,) = caplog.messages
    assert said.startswith("tier 'small' returns values alone, which count as faults")
    assert "use cascade.tier(f, returns='pairs')" in said


def test_one_whose_score_needs_no_confidence_of_its_own_is_not(tmp_path):
    blind = {"small": {"intercept": 3.0, "odds": 0.0}}
    (tmp_path / "blind.json").write_text(json.dumps(blind))
    small = TIERS[0] | {"confidence": {"calibration": "blind.json"}}
    tree = {
        "version": 1, "name": "p", "deadline": "1s", "tiers": [small, TIERS[1]],
        "escalation": {"thresholds": [0.5]},
    }  # fmt: skip
    made = Policy.from_dict(tree, root=tmp_path)
    with Router(made, tiers={"small": cascade.tier(str, rows="one"), "large": len}) as router:
        assert router.route("text").tier == "small"


def test_an_object_that_gives_no_confidence_below_the_top_says_so_where_it_runs():
    tiers = {"small": Silent(), "large": lambda texts: texts}
    with Router(plain(), tiers=tiers) as router:
        failed, _ = router.route("text").steps
        assert failed.error is not None
        assert failed.error.startswith("it gave no confidence: below the top it must")
    with Router(plain(), tiers={"small": Silent(), "large": Silent(2.0)}) as router:
        with pytest.raises(TierOutputError, match=r"expected a number in|outside \[0, 1\]"):
            router.route("text")


def test_nor_is_it_hidden_where_no_other_tier_may_answer():
    spent = plain(allowance={"overall": "1%", "burst": 1})
    with Router(spent, tiers={"small": Silent(), "large": Silent()}) as router:
        many = router.route_many
        while (last := many(["text"])[0]).disposition != "failed":  # until all of it is spent
            pass
        assert last.tier is None
        with pytest.raises(TierError, match="'small': it gave no confidence: below the top"):
            router.route("text")
