"""Certificates: written, read back, refused, and held against the policy beside them."""

import json
import pickle

import pytest

from cascade import Certificate, Policy, PolicyError
from cascade.policy import PathPoint
from cascade.policy.digest import tier_digest


def tree(**more):
    return {
        "max_loss": 0.01, "alpha": 0.1, "loss": "gross", "covers": "adaptive", "n": 500,
        "tiers": ["small", "large"], "certified": 2,
        "path": [
            {"thresholds": [2.0], "losses": 0, "p_value": 0.0},
            {"thresholds": [0.9], "losses": 1, "p_value": 0.01, "cost": 0.5},
            {"thresholds": [0.5], "losses": 9, "p_value": 0.6, "escalation": [1.0, 0.2]},
        ],
    } | more  # fmt: skip


def policy_tree(**more):
    return {
        "version": 1, "name": "p", "deadline": "1s",
        "tiers": [{"name": "small", "kind": "external", "version": "1"},
                  {"name": "large", "kind": "external", "version": "1"}],
        "escalation": {"certificate": "certificate.json"},
    } | more  # fmt: skip


def test_graded_answers_may_lose_a_share_of_one():
    path = [{"thresholds": [2.0], "losses": 1.5, "p_value": 0.0}]
    assert Certificate.from_dict(tree(path=path, certified=1)).path[0].losses == 1.5


def test_it_comes_back_as_it_was_written(tmp_path):
    made = Certificate.from_dict(tree(digests={"small": "9c"}, note="a note", seed=7))
    made.save(tmp_path / "c.json")
    assert Certificate.load(tmp_path / "c.json") == made
    assert Certificate.from_dict(made.to_dict()) == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert hash(made) == hash(Certificate.from_dict(made.to_dict()))
    assert made.path[1] == PathPoint(thresholds=(0.9,), losses=1, p_value=0.01, cost=0.5)
    assert json.loads((tmp_path / "c.json").read_text("utf-8"))["tiers"] == ["small", "large"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"what": 1}, "what"),
        ({"max_loss": "little"}, "max_loss: expected a number"),
        ({"max_loss": float("nan")}, "max_loss: expected a number"),
        ({"max_loss": True}, "max_loss: expected a number"),
        ({"alpha": None}, "alpha: expected a number"),
        ({"alpha": 1.5}, "alpha: expected a number"),
        ({"n": "many"}, "n: expected a whole number"),
        ({"certified": 4}, "certified: 4 of 3 points"),
        ({"certified": -1}, "certified: expected a whole number"),
        ({"certified": "all"}, "certified"),
        ({"digests": ["9c"]}, "digests"),
        ({"tiers": None}, "certificate: "),
        ({"path": [1]}, "certificate: "),
        ({"path": [{"thresholds": [0.5]}]}, "losses"),
        ({"path": [{"thresholds": ["x"], "losses": 0, "p_value": 0}]}, "certificate: "),
        ({"path": [{"thresholds": [None], "losses": 0, "p_value": 0}]}, "certificate: "),
        ({"path": [{"thresholds": [0.5, 0.5], "losses": 0, "p_value": 0}] * 2}, "expected 1 n"),
        ({"path": [{"thresholds": [float("nan")], "losses": 0, "p_value": 0}] * 2}, "path.0"),
        ({"path": [{"thresholds": [-0.5], "losses": 0, "p_value": 0}] * 2}, "between 0 and 2"),
        ({"path": [{"thresholds": [0.5], "skip_above": [0.9, 0.1], "losses": 0, "p_value": 0}] * 2},
         "skip_above"),
    ],
)  # fmt: skip
def test_what_is_no_certificate_is_refused(change, words):
    with pytest.raises(PolicyError, match=words):
        Certificate.from_dict(tree(**change))


@pytest.mark.parametrize("missing", ["max_loss", "path", "certified", "tiers"])
def test_what_is_missing_is_named(missing):
    given = tree()
    del given[missing]
    with pytest.raises(PolicyError, match=missing):
        Certificate.from_dict(given)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"1", b'{"n": 1}'])
def test_a_file_that_is_no_certificate(tmp_path, content):
    (tmp_path / "certificate.json").write_bytes(content)
    with pytest.raises(PolicyError, match="certificate"):
        Policy.from_dict(policy_tree(), root=tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(PolicyError, match=r"certificate\.json"):
        Policy.from_dict(policy_tree(), root=tmp_path)


def write(folder, **more):
    Certificate.from_dict(tree(**more)).save(folder / "certificate.json")
    return folder


def test_the_points_of_a_policy_are_those_of_the_path(tmp_path):
    policy = Policy.from_dict(policy_tree(), root=write(tmp_path))
    assert [(p.index, p.thresholds, p.certified) for p in policy.points] == [
        (0, (2.0,), True), (1, (0.9,), True), (2, (0.5,), False),
    ]  # fmt: skip
    assert [p.name for p in policy.points] == ["always escalate", "cheapest certified", "brownout"]
    assert policy.certificate.max_loss == 0.01


def test_a_policys_own_entry_rule_holds_where_the_path_has_none(tmp_path):
    rule = {"weights": [1.0], "skip_above": [0.7]}
    policy = Policy.from_dict(policy_tree(complexity=rule), root=write(tmp_path))
    assert {p.skip_above for p in policy.points} == {(0.7,)}


def test_it_must_certify_these_very_tiers(tmp_path):
    with pytest.raises(PolicyError, match="certifies the tiers"):
        Policy.from_dict(policy_tree(), root=write(tmp_path, tiers=["large", "small"]))


@pytest.mark.parametrize(
    "change", [{"version": "2"}, {"confidence": {"temperature": 0.5}}, {"confidence": "margin"},
               {"classes": ["b", "a"]}, {"outputs": "logits"}],
)  # fmt: skip
def test_what_differs_from_what_was_certified_names_the_tier(tmp_path, change):
    bare = Policy.from_dict(policy_tree(escalation={"thresholds": [0.5]}, classes=["a", "b"]))
    digests = {spec.name: tier_digest(bare, spec) for spec in bare.tiers}
    given = policy_tree(classes=["a", "b"])
    write(tmp_path, digests=digests)
    assert Policy.from_dict(given, root=tmp_path).certificate is not None
    given["tiers"][0].update(change)
    with pytest.raises(PolicyError, match=r"'small'.*fit again"):
        Policy.from_dict(given, root=tmp_path)


def test_a_certified_external_tier_has_a_version(tmp_path):
    given = policy_tree()
    del given["tiers"][1]["version"]
    with pytest.raises(PolicyError, match=r"tiers\.1\.version: missing; required beside"):
        Policy.from_dict(given, root=write(tmp_path))


def test_the_digest_of_a_policy_covers_its_certificate(tmp_path):
    one = Policy.from_dict(policy_tree(), root=write(tmp_path))
    other = Policy.from_dict(policy_tree(), root=write(tmp_path, certified=1))
    assert one.digest != other.digest
