"""Functions beside a policy: named where what they do is part of a promise."""

import json

import pytest

from cascade import Certificate, Policy, PolicyError, Router

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
