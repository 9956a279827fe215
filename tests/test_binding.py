"""Functions beside a policy: named where what they do is part of a promise."""

import json
import pickle
from pathlib import Path

import pytest

from cascade import AsyncRouter, Certificate, Policy, PolicyError, Router

TIERS = [{"name": "small", "kind": "external", "version": "1"},
         {"name": "large", "kind": "external", "version": "1"}]  # fmt: skip
BOUND = {"small": len, "large": len}


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
        Router(plain, tiers={"small": len})
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
