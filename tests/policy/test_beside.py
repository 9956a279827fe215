"""What stands beside a policy: the certificate's entry rule, tables, and where problems are."""

import json

import pytest

from cascade import Certificate, Policy, PolicyError
from cascade.bundle import load_golden, load_profile
from cascade.policy import beside
from cascade.policy.certificate import PathPoint
from cascade.policy.digest import entry_digest, tier_digest
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
    places = [(issue.file, issue.line, issue.path) for issue in caught.value.issues]
    assert places == [(None, None, "mode"), (None, None, "escalation.certificate")]


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
    with pytest.raises(
        PolicyError, match=r"beside\.json:1:1: not .* by tier: expected a JSON object"
    ):
        read(Policy.from_dict(given, root=tmp_path))


# -- files beside a policy: what is wrong with them has its place ----------------------------------


def certificate(**more):
    point = {"thresholds": [2.0], "losses": 0, "p_value": 0.0}
    return {
        "max_loss": 0.01, "alpha": 0.1, "loss": "gross", "covers": "adaptive", "n": 500,
        "tiers": ["small", "large"], "path": [point], "certified": 1,
    } | more  # fmt: skip


POINT = certificate()["path"][0]


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"max_los": 1}, "21:2", "max_los: unknown key; did you mean 'max_loss'"),
        ({"alpha": "x"}, "3:11", "alpha: expected a number between 0 and 1, got 'x'"),
        ({"path": [POINT | {"losse": 1}]}, "18:4", "path.0.losse: unknown key"),
        ({"path": [POINT | {"thresholds": [3]}]}, "14:5", "path.0.thresholds.0: expected a num"),
        ({"n": float("inf")}, "6:7", "n: expected a whole number"),
        ({"digests": {"a": 1}}, "21:13", "digests: expected text by name"),
        ({"path": [POINT | {"thresholds": [1, 1]}]}, "13:18", "path.0.thresholds: expected 1 num"),
    ],
)
def test_a_certificate_says_where_it_is_wrong(tmp_path, change, place, words):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(certificate(**change), indent=1))
    with pytest.raises(PolicyError) as caught:
        Certificate.load(path)
    assert str(caught.value).startswith(f"{path}:{place}: {words}")


def test_a_net_loss_can_be_a_gain(tmp_path):
    path = tmp_path / "c.json"
    gained = [POINT, POINT | {"thresholds": [0.5], "losses": -3}]
    path.write_text(json.dumps(certificate(loss="net", path=gained)))
    assert Certificate.load(path).path[1].losses == -3
    path.write_text(json.dumps(certificate(path=gained)))
    with pytest.raises(PolicyError, match=r"path\.1\.losses: expected a number of at least 0"):
        Certificate.load(path)


def test_and_all_that_is_wrong_at_once(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(certificate(alpha=2, certified=9, path=[POINT | {"p_value": "x"}])))
    with pytest.raises(PolicyError) as caught:
        Certificate.load(path)
    assert sorted(i.path for i in caught.value.issues) == ["alpha", "certified", "path.0.p_value"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "1:2: not a certificate: not JSON: Expecting property name"),
        (b'{"n": 1,\n "m": }', "2:7: not a certificate: not JSON: Expecting value"),
        (b"[1]", "1:1: not a certificate: expected a JSON object"),
        (b"\xff", " not a certificate: not UTF-8"),
        (b"[" * 100_000, " not a certificate: not JSON that can be read"),
        (b'{"n": ' + b"9" * 5_000 + b"}", " not a certificate: not JSON that can be read"),
    ],
)
def test_what_is_no_json_is_refused_where_it_ends(tmp_path, raw, said):
    path = tmp_path / "c.json"
    path.write_bytes(raw)
    with pytest.raises(PolicyError) as caught:
        Certificate.load(path)
    assert str(caught.value).startswith(f"{path}:{said}")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (5, "expected an object"),
        ({}, "knots: missing"),
        ({"odds": 1, "what": 2}, "unknown key 'what'; expected intercept, odds, labels, features"),
        ({"odds": "x", "intercept": 0}, "odds: expected a number"),
        ({"odds": float("inf"), "intercept": 0}, "expected finite numbers"),
        ({"knots": [0, 1], "labels": 5, "other": [0, 1]}, "labels: expected lists of numbers"),
        ({"knots": [0, 1], "labels": {"x": [1, 0]}, "other": [0, 1]}, "x: expected rising"),
    ],
)
def test_so_does_a_calibration(tmp_path, table, said):
    path = tmp_path / "tables.json"
    path.write_text(json.dumps({"large": {"odds": 1, "intercept": 0}, "small": table}, indent=1))
    tiers = [TIERS[0] | {"confidence": {"calibration": "tables.json"}}, TIERS[1]]
    given = tree(tiers=tiers, escalation={"thresholds": [0.5]})
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(given, root=tmp_path)
    (issue,) = caught.value.issues
    assert (issue.file, issue.line, issue.column) == (str(path), 6, 11)
    assert said in issue.message
    assert "__init__" not in issue.message


def test_a_certificate_of_some_of_the_tiers_is_of_none(tmp_path):
    given = {k: v for k, v in tree().items() if k != "complexity"}
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(certificate()))
    digests = {s.name: tier_digest(p, s) for p in [Policy.from_dict(given)] for s in p.tiers}
    path.write_text(json.dumps(certificate(digests=digests)))
    assert Policy.from_dict(given, root=tmp_path).certificate is not None
    path.write_text(json.dumps(certificate(digests={"small": digests["small"], "larg": "9c"})))
    with pytest.raises(PolicyError, match="digests: none of tier 'large', but of others"):
        Policy.from_dict(given, root=tmp_path)


# -- a file that cannot be had is told where it is named -------------------------------------------

NAMED = """\
version: 1
name: p
tiers:
  - {name: small, kind: external, version: "1", confidence: {calibration: nope.json}}
  - {name: large, kind: external, version: "1", confidence: {calibration: nope.json}}
escalation:
  certificate: nope.json
deadline: soon
"""


def told(path):
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    return [(i.file, i.line, i.column, i.path, i.message) for i in caught.value.issues]


def test_a_file_that_cannot_be_had_is_told_at_each_key_that_names_it(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(NAMED)
    said = f"{tmp_path / 'nope.json'}: cannot be read: No such file or directory"
    file = str(path)
    assert told(path)[:3] == [
        (file, 4, 75, "tiers.0.confidence.calibration", said),
        (file, 5, 75, "tiers.1.confidence.calibration", said),
        (file, 7, 16, "escalation.certificate", said),
    ]
    assert told(path)[3][:4] == (file, 8, 11, "deadline")


def test_what_has_a_place_in_the_file_is_told_there_and_once(tmp_path):
    path, other = tmp_path / "policy.yaml", tmp_path / "nope.json"
    path.write_text(NAMED.replace("soon", "1s").replace("certificate: n", "certificate: c-n"))
    other.write_text("{")
    (tmp_path / "c-nope.json").write_bytes(b"\xff")
    assert [issue[:4] for issue in told(path)] == [
        (str(path), 7, 16, "escalation.certificate"),
        (str(other), 1, 2, ""),
    ]


def test_a_certificate_of_other_tiers_is_told_where_it_is_named(tmp_path):
    path, other = tmp_path / "policy.yaml", tmp_path / "c.json"
    bare = NAMED.replace(", confidence: {calibration: nope.json}", "").replace("soon", "1s")
    path.write_text(bare.replace("nope", "c"))
    other.write_text(json.dumps(certificate(tiers=["little", "large"])))
    said = f"{other}: certifies the tiers 'little', 'large', the policy has 'small', 'large'"
    assert told(path) == [(str(path), 7, 16, "escalation.certificate", said)]


def test_of_a_table_of_thousands_of_tiers_no_more_are_named_than_a_ladder_has(tmp_path):
    (tmp_path / "tables.json").write_text(json.dumps({f"entry{i}": 0 for i in range(9_999)}))
    tiers = [TIERS[0] | {"confidence": {"calibration": "tables.json"}}, TIERS[1]]
    given = tree(tiers=tiers, escalation={"thresholds": [0.5]})
    with pytest.raises(PolicyError, match="no calibration of tier 'small'; expected one") as caught:
        Policy.from_dict(given, root=tmp_path)
    assert str(caught.value).count("entry") == 100


def test_a_file_beside_a_policy_is_searched_for_places_once(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(beside, "places_of", lambda *file: looked.append(file) or {})
    (tmp_path / "tables.json").write_text("{}")
    tiers = [tier | {"confidence": {"calibration": "tables.json"}} for tier in TIERS]
    given = tree(tiers=tiers, escalation={"thresholds": [0.5]})
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(given, root=tmp_path)
    assert len(caught.value.issues) == 2
    assert len(looked) == 1
