"""All problems in one pass: what is wrong in one place hides nothing in another."""

import json

import pytest
from jsonschema import Draft7Validator

from cascade import Policy, PolicyError
from cascade.policy import Certificate, Escalation, ExternalSpec, OnnxSpec
from cascade.policy.schema import json_schema
from cascade.policy.settings import CacheSettings, WorkerSettings

TIERS = [{"name": "a", "kind": "external"}, {"name": "b", "kind": "external"}]
SOUND = {"version": 1, "name": "p", "tiers": TIERS, "escalation": {"thresholds": [0.5]}}


def problems(root=None, **changes):
    tree = {key: value for key, value in (SOUND | changes).items() if value is not None}
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(tree, root=root)
    return [(issue.path, issue.message) for issue in caught.value.issues]


def paths(root=None, **changes):
    return sorted(path for path, _ in problems(root, **changes))


# -- what stands between fields is said beside what is wrong within them ---------------------------


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"deadline": "2s", "max_deadline": "1s", "mode": "fast"},
            ["deadline", "mode"],
        ),
        (
            {"escalation": {"thresholds": [0.5, 2]}, "cache": 1},
            ["cache", "escalation.thresholds", "escalation.thresholds.1"],
        ),
        (
            {"escalation": {"thresholds": [0.5, 0.5], "abstain_below": 2}},
            ["escalation.abstain_below", "escalation.thresholds"],
        ),
        (
            {"tiers": [TIERS[0] | {"queue": 0}, TIERS[0]]},
            ["tiers.0.name", "tiers.0.queue", "tiers.1.name"],
        ),
        (
            {"tiers": [TIERS[0] | {"workers": {"min": 2, "max": 1}}, {"kind": "external"}]},
            ["tiers.0.workers.min", "tiers.1.name"],
        ),
        (
            {"complexity": {"weights": "x", "skip_above": [0.9, 0.1]}},
            ["complexity.skip_above", "complexity.skip_above", "complexity.weights"],
        ),
        ({"load": {"interval": "x"}, "escalation": None}, ["escalation", "load", "load.interval"]),
        ({"load": {}, "nmae": 1}, ["load", "nmae"]),
        ({"escalation": {"spare": 1}}, ["escalation", "escalation.spare"]),
        ({"escalation": {"certificate": 1}}, ["escalation.certificate"]),
    ],
)
def test_what_does_not_fit_together_is_said_with_the_rest(changes, found):
    assert paths(**changes) == found


def test_what_could_not_be_read_is_held_against_nothing():
    assert paths(deadline="x", max_deadline="1s") == ["deadline"]
    assert paths(escalation={"thresholds": "x"}) == ["escalation.thresholds"]
    assert paths(escalation={"certificate": 1}) == ["escalation.certificate"]
    assert paths(tiers=None) == ["tiers"]
    assert paths(tiers="x", complexity={"weights": [1], "skip_above": [0.5]}) == ["tiers"]
    assert paths(mode="x", escalation=None) == ["mode"]


def test_no_tier_is_one_problem():
    assert problems(tiers=[], complexity={"weights": [1], "skip_above": [0.5]}) == [
        ("tiers", "expected at least one tier")
    ]


@pytest.mark.parametrize("kind", [{}, {"kind": "onx"}, {"kind": None}, {"kind": 5}])
def test_a_tier_of_an_unknown_kind_is_read_all_the_same(kind):
    tier = {"queue": 0, "threads": "x", "outputs": "logit", "what": 1, **kind}
    assert paths(tiers=[tier, TIERS[1]]) == [
        "tiers.0.kind", "tiers.0.name", "tiers.0.outputs", "tiers.0.queue", "tiers.0.threads",
        "tiers.0.what",
    ]  # fmt: skip


def test_nor_does_it_hide_what_the_ladder_lacks():
    assert paths(tiers=[{"name": "a", "kind": "onx"}, TIERS[1]], escalation=None) == [
        "escalation", "tiers.0.kind",
    ]  # fmt: skip


def test_a_tier_that_is_none_hides_no_other():
    assert paths(tiers=[5, {"name": "b", "kind": "external", "queue": 0}]) == [
        "tiers.0", "tiers.1.queue",
    ]  # fmt: skip


def test_a_problem_of_the_file_hides_none_at_the_same_place(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("<<: {a: 1}\ntiers: [{name: a, kind: external}]\n")
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    found = [(i.line, i.column, i.path) for i in caught.value.issues]
    assert sorted(found) == [(1, 1, "<<"), (1, 1, "name"), (1, 1, "version")]


def test_what_the_file_says_badly_is_said_once(tmp_path):
    path = tmp_path / "policy.yaml"
    long = "9" * 30
    path.write_text(
        f"version: 1\nname: p\ndeadline: {long}\nclasses: [{long}, b]\ncache: {long}\n"
        f"tiers: [{{name: a, kind: {long}}}, {long}]\ncomplexity: {{weights: {{a: {long}}}}}\n"
        f"escalation: {{thresholds: [{long}]}}\n"
    )
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    assert all("at most 20 digits" in issue.message for issue in caught.value.issues)
    assert len(caught.value.issues) == text_count(path, long)


def test_a_list_tells_a_thousand_problems_and_how_many_values_follow(tmp_path):
    path = tmp_path / "policy.yaml"
    bad = "a, " * 3_000
    path.write_text(f"escalation: {{thresholds: [{bad}0.5]}}\nname: [{bad}b]\n")
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    below = [issue for issue in caught.value.issues if issue.path.startswith("escalation")]
    assert [issue.path for issue in below[:1_001]] == [
        "escalation.thresholds", *(f"escalation.thresholds.{i}" for i in range(1_000)),
    ]  # fmt: skip
    assert below[0].message.startswith("2001 more values")
    assert {"name", "tiers", "version"} <= {issue.path for issue in caught.value.issues}


def test_a_ladder_has_a_hundred_tiers_at_most():
    tiers = [{"name": f"t{i}", "kind": "external"} for i in range(101)]
    whole = {"tiers": tiers[:100], "escalation": {"thresholds": [0.5] * 99}}
    assert len(Policy.from_dict(SOUND | whole).tiers) == 100
    assert problems(tiers=tiers, name="") == [
        ("name", "expected a name of letters, digits, _ . -, got ''"),
        ("tiers", "expected at most 100 of them, got 101"),
    ]
    tiers[3] = {"name": "t3", "kind": "external", "queue": 0}
    assert paths(tiers=tiers) == ["tiers", "tiers.3.queue"]
    tree = SOUND | {"tiers": tiers[:1] * 101}
    assert not Draft7Validator(json_schema()).is_valid(tree)
    assert Draft7Validator(json_schema()).is_valid(tree | {"tiers": tiers[:1] * 100})


@pytest.mark.parametrize(("count", "more"), [(1_500, ["500 more unknown keys"]), (1_000, [])])
def test_a_mapping_tells_a_thousand_unknown_keys_and_how_many_follow(tmp_path, count, more):
    path = tmp_path / "policy.yaml"
    path.write_text("".join(f"k{i}: 1\n" for i in range(count)) + "deadline: x\n")
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    said = [issue.message for issue in caught.value.issues]
    assert sum(message.startswith("unknown key") for message in said) == 1_000
    assert [message for message in said if "more unknown" in message] == more
    assert {"deadline", "name", "tiers"} <= {issue.path for issue in caught.value.issues}


def text_count(path, word):
    return path.read_text().count(word)


def test_shares_are_fractions_or_percentages():
    made = Policy.from_dict(SOUND | {"escalation": {"thresholds": ["50%"], "abstain_below": "20%"}})
    assert (made.escalation.thresholds, made.escalation.abstain_below) == ((0.5,), 0.2)


# -- the files beside it ---------------------------------------------------------------------------


def test_files_beside_a_policy_are_looked_at_whatever_else_is_wrong(tmp_path):
    (tmp_path / "tables.json").write_text("{")
    tiers = [
        {**tier, "version": "1", "confidence": {"calibration": "tables.json"}} for tier in TIERS
    ]
    found = problems(tmp_path, tiers=tiers, escalation={"certificate": "c.json"}, mode="x")
    assert [path for path, _ in found] == ["mode", "escalation.certificate", ""]
    assert "cannot be read: No such file" in found[1][1]
    assert "Expecting property name" in found[2][1]


@pytest.mark.parametrize(
    ("covers", "load", "spare", "found"),
    [
        ("fixed_point", "{}", "false", [(4, "load")]),
        ("fixed_point", "{brownout: true}", "true", []),
        ("fixed_point", None, "true", [(3, "escalation.spare_budget")]),
        ("fixed_point", None, "false", []),
        ("adaptive", "{}", "true", []),
        ("adaptive", "{brownout: true}", "false", []),
    ],
)
def test_what_load_asks_of_a_certificate_has_its_place_in_the_policy(
    tmp_path, covers, load, spare, found
):
    point = {"thresholds": [2.0], "losses": 0, "p_value": 0.0}
    made = Certificate(
        max_loss=0.01, alpha=0.1, loss="gross", covers=covers, n=500,
        tiers=("a", "b"), path=[point | {"escalation": [1, 1]}], certified=1,
    )  # fmt: skip
    made.save(tmp_path / "c.json")
    path = tmp_path / "policy.yaml"
    path.write_text(
        f"version: 1\nname: p\nescalation: {{certificate: c.json, spare_budget: {spare}}}\n"
        + ("" if load is None else f"load: {load}\n")
        + "tiers:\n- {name: a, kind: external, version: '1'}\n"
        "- {name: b, kind: external, version: '1'}\n"
    )
    issues = []
    try:
        Policy.from_yaml(path, env={})
    except PolicyError as error:
        issues += error.issues
    assert [(issue.line, issue.path) for issue in issues] == found
    assert all(issue.message.startswith("the certificate covers one") for issue in issues)


def test_as_many_workers_at_least_as_at_most_are_a_fixed_number():
    tier = TIERS[0] | {"workers": {"min": 2, "max": 2}}
    assert Policy.from_dict(SOUND | {"tiers": [tier, TIERS[1]]}).tiers[0].workers.min == 2


@pytest.mark.parametrize("kind", ["label", "value"])
def test_below_the_top_alone_a_label_needs_a_confidence(kind):
    label = {"kind": "onnx", "model": "m.onnx", "outputs": kind}
    below, top = label | {"name": "a"}, label | {"name": "b"}
    assert Policy.from_dict(SOUND | {"tiers": [TIERS[0], top]}).tiers[1].outputs.kind == kind
    assert problems(tiers=[below, top]) == [
        ("tiers.0.outputs", f"kind {kind} needs confidence: below the top tier")
    ]


# -- classes ---------------------------------------------------------------------------------------


def test_tiers_have_the_same_classes_even_where_the_policy_states_none():
    tiers = [TIERS[0] | {"classes": ["x", "y"]}, TIERS[1] | {"classes": ["y", "x"]}]
    assert Policy.from_dict(SOUND | {"tiers": tiers}).classes is None
    tiers[1]["classes"] = ["x", "z"]
    assert problems(tiers=tiers) == [
        ("tiers.1.classes", "expected the same set of classes as tier 'a' has")
    ]


def test_true_and_one_are_two_classes():
    tiers = [TIERS[0] | {"classes": [1, 0]}, TIERS[1] | {"classes": [True, False]}]
    assert [path for path, _ in problems(tiers=tiers)] == ["tiers.1.classes"]


# -- the classes of Python -------------------------------------------------------------------------

ONE = ExternalSpec(name="a")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Policy(name=5, tiers=(ONE,)), "name: expected a name of letters"),
        (lambda: Policy(name="p", tiers=(ONE,), deadline="soon"), "deadline: expected a positive"),
        (lambda: Policy(name="p", tiers=(ONE,), mode="fast"), "mode: expected one of enforce"),
        (lambda: Policy(name="p", tiers=[len]), "tiers.0: expected a mapping, got <built-in"),
        (lambda: Policy(name="p", tiers=ONE), "tiers: expected a list of mappings"),
        (lambda: Policy(name="p", tiers=(ONE,), cache=5), "cache: expected a mapping, got 5"),
        (lambda: Policy(name="p", tiers=(ONE,), inputs=None), "inputs: expected a mapping, got n"),
        (lambda: OnnxSpec(name="a", model="a", threads=0), "threads: expected a whole number"),
        (lambda: OnnxSpec(name="a", model="a", sha256="9"), "sha256: expected 64 hexadecimal"),
        (lambda: CacheSettings(bytes="much"), "bytes: expected a positive size"),
        (lambda: Escalation(thresholds=[1, 2]), "thresholds.1: expected a fraction"),
        (lambda: Escalation(allowance={"burts": 1}), "allowance.burts: unknown key; did you mean"),
    ],
)
def test_what_is_made_in_python_is_held_to_the_same(make, words):
    with pytest.raises(PolicyError, match=words) as caught:
        make()
    assert len(caught.value.issues) == 1


def test_and_read_alike():
    policy = Policy(
        name="p",
        tiers=[ONE, {"name": "b", "kind": "external", "workers": 2}],
        mode="top_only",
        deadline="20ms",
        cache={"bytes": "1MB"},
    )
    assert policy.mode.value == "top_only"
    assert policy.mode is type(policy.mode)("top_only")
    assert (policy.deadline, policy.cache.bytes) == (0.02, 1_000_000)
    assert policy.tiers[1].workers == WorkerSettings(max=2)
    assert Policy.from_dict(policy.to_dict()) == policy
    assert json.dumps(policy.to_dict())
    assert hash(policy)


def test_enforce_in_a_word_needs_thresholds_too():
    with pytest.raises(PolicyError, match="mode enforce needs"):
        Policy(name="p", tiers=(ONE, ExternalSpec(name="b")), mode="enforce")


def test_numbers_of_numpy_are_numbers():
    np = pytest.importorskip("numpy")
    made = Escalation(thresholds=np.array([0.25, 0.5]), abstain_below=np.float32(0.5))
    assert made == Escalation(thresholds=(0.25, 0.5), abstain_below=0.5)
    assert type(made.abstain_below) is float
