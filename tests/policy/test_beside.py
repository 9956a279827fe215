"""What stands beside a policy: the certificate's entry rule, tables, and where problems are."""

import json

import pytest

from cascade import Certificate, Policy, PolicyError
from cascade.bundle import load_golden, load_profile
from cascade.policy.certificate import PathPoint
from cascade.policy.digest import entry_digest
from cascade.policy.reading import parse

TIERS = [{"name": name, "kind": "external", "version": "1"} for name in ("small", "large")]
RULE = {"weights": [1.0, 2.0], "intercept": -1.0, "skip_above": [0.9]}


def tree(**more):
    return {
        "version": 1, "name": "p", "tiers": TIERS, "complexity": RULE,
        "escalation": {"certificate": "certificate.json"}, **more,
    }  # fmt: skip


@pytest.fixture
def certified(tmp_path):
    bare = tree(escalation={"thresholds": [0.5]})
    entry = entry_digest(Policy.from_dict(bare))
    point = PathPoint(thresholds=(2.0,), skip_above=(0.9,), losses=0, p_value=0.0)
    certificate = Certificate(
        max_loss=0.01, alpha=0.1, loss="gross", covers="adaptive", n=500,
        tiers=("small", "large"), path=(point,), certified=1, digests={"entry": entry},
    )  # fmt: skip
    certificate.save(tmp_path / "certificate.json")
    return tmp_path


def test_an_entry_rule_is_part_of_what_was_certified(certified):
    assert Policy.from_dict(tree(), root=certified).certificate is not None
    for other in (RULE | {"intercept": -2.0}, RULE | {"weights": [1.0, 2.5]}):
        with pytest.raises(PolicyError, match="the entry rule differs from the one certified"):
            Policy.from_dict(tree(complexity=other), root=certified)


def test_a_table_that_cannot_be_had_is_named_with_its_file(tmp_path):
    tiers = [TIERS[0] | {"confidence": {"calibration": "tables.json"}}, TIERS[1]]
    given = tree(tiers=tiers, complexity=None, escalation={"thresholds": [0.5]})
    del given["complexity"]
    with pytest.raises(PolicyError, match=r"tables\.json: cannot be read: No such file"):
        Policy.from_dict(given, root=tmp_path)
    (tmp_path / "tables.json").write_text(json.dumps({"large": {}}))
    with pytest.raises(PolicyError, match=r"tables\.json:1:1: no calibration of tier 'small'"):
        Policy.from_dict(given, root=tmp_path)


def test_problems_of_plain_types_have_no_file(tmp_path):
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(tree(mode="fast"), root=tmp_path)
    places = [(issue.file, issue.line) for issue in caught.value.issues]
    assert places == [(None, None), (str(tmp_path / "certificate.json"), None)]


def test_what_is_missing_is_placed_at_the_mapping_that_lacks_it(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nname: p\nescalation: {thresholds: [0.5]}\ntiers:\n"
        "  - {name: a, kind: external}\n  - kind: onnx\n    name: b\n"
    )
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    (issue,) = caught.value.issues
    assert (issue.line, issue.column, issue.path) == (6, 5, "tiers.1.model")


def test_what_the_environment_says_wrongly_comes_first(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("{version: 1, name: p, modes: x, tiers: [{name: a, kind: external}]}\n")
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={"CASCADE_DEADLINE": "soon"})
    assert [issue.file for issue in caught.value.issues] == ["CASCADE_DEADLINE", str(path)]


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"load": {}}, "load", "needs escalation.certificate"),
        (
            {"tiers": [TIERS[0] | {"workers": {"min": 3, "max": 2}}, TIERS[1]]},
            "tiers.0.workers.min",
            r"expected at most max \(2\), got 3",
        ),
        (
            {"tiers": [{"name": "s", "kind": "onnx", "model": "m", "outputs": "label"}, TIERS[1]]},
            "tiers.0.outputs",
            "kind label needs confidence: below the top tier",
        ),
    ],
)
def test_settings_that_do_not_go_together(changes, path, words):
    given = {k: v for k, v in tree().items() if k != "complexity"}
    with pytest.raises(PolicyError, match=words) as caught:
        Policy.from_dict(given | {"escalation": {"thresholds": [0.5]}} | changes)
    assert path in [issue.path for issue in caught.value.issues]


def test_what_load_needs_is_asked_of_a_certificate_that_is_there(tmp_path):
    """Without a folder to look in, a certificate is taken to say what load needs."""
    given = {k: v for k, v in tree().items() if k != "complexity"}
    assert Policy.from_dict(given | {"load": {}}).certificate is None


def test_a_number_too_long_below_a_duplicate_key_is_not_read():
    text = b"a: 1\na: [" + b"9" * 30 + b", {b: " + b"9" * 30 + b"}]\n"
    assert [issue.message for issue in parse(text, "p.yaml")[2]] == ["duplicate key"]


@pytest.mark.parametrize("file", ["profile", "golden"])
def test_what_is_listed_by_tier_must_be_an_object(tmp_path, file):
    (tmp_path / "beside.json").write_text("[]")
    given = {"version": 1, "name": "p", "tiers": TIERS[:1], file: "beside.json"}
    read = load_profile if file == "profile" else load_golden
    with pytest.raises(PolicyError, match=r"beside\.json: expected a JSON object by tier"):
        read(Policy.from_dict(given, root=tmp_path))
