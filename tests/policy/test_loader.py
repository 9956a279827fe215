"""Policy files: every problem at once, each at its place."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from cascade import Mode, Policy, PolicyError
from cascade.policy.loader import dump
from cascade.policy.schema import json_schema

GOOD = """\
# yaml-language-server: $schema=policy.schema.json
version: 1
name: digits
revision: "2026-11-23"
mode: enforce
deadline: 20ms
max_deadline: conversation
tiers:
  - name: small
    kind: onnx
    model: small.onnx
    threads: 1
    outputs: probabilities
    confidence: {score: max_probability, temperature: 0.61}
  - {name: large, kind: external, version: v3, confidence: margin}
escalation:
  thresholds: [80%]
  abstain_below: 0.2
complexity: {intercept: -1, weights: [0.5, 1e-3], skip_above: [0.9]}
inputs: {cast: none, validate: finite}
classes: [no, yes]
cache: {entries: 10_000, bytes: 64MB, ttl: 5m}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "policy.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems(path):
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    return caught.value.issues


def test_a_good_policy_means_what_it_says(write):
    policy = Policy.from_yaml(write(GOOD), env={})
    assert (policy.deadline, policy.max_deadline, policy.mode) == (0.02, 1.0, Mode.ENFORCE)
    small, large = policy.tiers
    assert (small.kind, small.confidence.temperature, small.outputs.kind) == (
        "onnx", 0.61, "probabilities",
    )  # fmt: skip
    assert (large.kind, large.version, large.confidence.score) == ("external", "v3", "margin")
    assert policy.escalation.thresholds == (0.8,)
    assert policy.complexity.weights == (0.5, 0.001)
    assert policy.classes == ("no", "yes")  # YAML 1.2: these are words
    assert (policy.cache.entries, policy.cache.bytes, policy.cache.ttl) == (10_000, 64_000_000, 300)
    assert policy.root == policy.path.parent
    point = policy.points[0]
    assert (point.thresholds, point.skip_above, point.certified) == ((0.8,), (0.9,), False)


def test_round_trips(write):
    policy = Policy.from_yaml(write(GOOD), env={})
    assert Policy.from_dict(policy.to_dict()) == policy
    assert Policy.from_yaml(write(policy.to_yaml()), env={}) == policy
    again = pickle.loads(pickle.dumps(policy))
    assert (again, again.digest) == (policy, policy.digest)
    assert hash(again) == hash(policy)


@pytest.mark.parametrize(
    ("change", "line", "column", "path", "words"),
    [
        (("deadline: 20ms", "dedline: 20ms"), 6, 1, "dedline", "did you mean 'deadline'"),
        (("deadline: 20ms", "deadline: 0"), 6, 11, "deadline", "positive duration"),
        (("deadline: 20ms", "deadline: true"), 6, 11, "deadline", "got True"),
        (("deadline: 20ms", "deadline: .nan"), 6, 11, "deadline", "positive duration"),
        (("deadline: 20ms", "deadline: 1:30"), 6, 11, "deadline", "got '1:30'"),
        (("mode: enforce", "mode: enforced"), 5, 7, "mode", "did you mean 'enforce'"),
        (("mode: enforce", "mode: watching"), 5, 7, "mode", "one of enforce, observe"),
        (("kind: onnx", "kind: onx"), 10, 11, "tiers.0.kind", "did you mean 'onnx'"),
        (("threads: 1", "threads: 1.5"), 12, 14, "tiers.0.threads", "whole number"),
        (("threads: 1", "threads: on"), 12, 14, "tiers.0.threads", "got 'on'"),
        (("threads: 1", "sha256: abc"), 12, 13, "tiers.0.sha256", "64 hexadecimal digits"),
        (("threads: 1", "sha256: " + "A" * 64), 12, 13, "tiers.0.sha256", "in lower case"),
        (("threads: 1", "sha256: " + "1" * 64), 12, 13, "tiers.0.sha256", "goes in quotes"),
        (("threads: 1", "sha256: 12e34"), 12, 13, "tiers.0.sha256", "as text (in quotes)"),
        (("0.61", "0"), 14, 55, "tiers.0.confidence.temperature", "above 0"),
        (("name: large", "name: small"), 15, 12, "tiers.1.name", "a name of its own"),
        (("[80%]", "[80%, 0.5]"), 17, 15, "escalation.thresholds", "expected 1"),
        (("[80%]", "[1.8]"), 17, 16, "escalation.thresholds.0", "between 0 and 1"),
        (("abstain_below: 0.2", "certificate: c.json"), 17, 15, "escalation.thresholds", "both"),
        (("[0.9]", "[0.9, 0.5]"), 19, 63, "complexity.skip_above", "do not fall"),
        (("[no, yes]", "[no, no]"), 21, 10, "classes", "different labels"),
        (("10_000", "'10_000'"), 22, 18, "cache.entries", "whole number"),
        (("64MB", "64 parsecs"), 22, 33, "cache.bytes", "size such as"),
        (("cache:", "cache: {}\ncache:"), 23, 1, "cache", "duplicate key"),
        (("20ms", "2s"), 6, 11, "deadline", "at most max_deadline"),
    ],
)
def test_every_problem_has_its_place(write, change, line, column, path, words):
    assert GOOD.count(change[0]) >= 1
    found = problems(write(GOOD.replace(*change, 1)))
    shown = [(i.line, i.column, i.path) for i in found]
    assert (line, column, path) in shown, found
    assert words in next(i.message for i in found if i.path == path)


def test_all_problems_come_in_one_pass_in_file_order(write):
    text = GOOD.replace("20ms", "-1").replace("kind: onnx", "kind: onx").replace("64MB", "huge")
    path = write(text + "what: 1\n")
    found = problems(path)
    assert [issue.path for issue in found] == ["deadline", "tiers.0.kind", "cache.bytes", "what"]
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}:6:11: deadline: ")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b"hello", "mapping"),
        (b"- 1", "mapping"),
        (b"version: 1\nname: [", "not YAML"),
        (b"a: &x 1\nb: *x", "anchors"),
        (b"a: !!python/name:os.system 1", "tags"),
        (b"a: !x 1", "tags"),
        (b"a: {<<: {b: 1}}", "merge"),
        (b"a: 1\n---\nb: 2", "one document"),
        (b"\xff\xfea\x00", "UTF-8"),
        (b"a: \x00", "NUL"),
        (b"a: " + b"[" * 30 + b"]" * 30, "deeply"),
        (b"a: [" + b"1," * 11_000 + b"1]", "too large"),
        (b"a: '" + b"x" * 70_000 + b"'", "at most 65536"),
        (b"version: 123456789012345678901234567890", "20 digits"),
    ],
)
def test_what_is_no_policy_file(write, text, words):
    path = write(text)
    with pytest.raises(PolicyError, match=words):
        Policy.from_yaml(path, env={})


def test_a_missing_file(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.from_yaml(tmp_path / "none.yaml")


def test_the_environment_wins_over_the_file(write):
    env = {"CASCADE_MODE": "top_only", "CASCADE_DEADLINE": "50ms", "CASCADE_CACHE_BYTES": "1MB"}
    policy = Policy.from_yaml(write(GOOD), env=env)
    assert (policy.mode, policy.deadline, policy.cache.bytes) == ("top_only", 0.05, 1_000_000)
    with pytest.raises(PolicyError, match="mode"):
        Policy.from_yaml(write(GOOD), env={"CASCADE_MODE": "fast"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("0.5", 0.5), ("1e-3", 0.001), ("1", 1.0), ("instant", 0.1)]
)
def test_a_variable_says_what_the_same_words_in_the_file_would(write, text, seconds):
    path = write(GOOD.replace("20ms", text))
    assert Policy.from_yaml(path, env={}).deadline == seconds
    assert Policy.from_yaml(write(GOOD), env={"CASCADE_DEADLINE": text}).deadline == seconds


def test_the_size_of_a_cache_makes_no_cache(write):
    lines = [line for line in GOOD.splitlines() if not line.startswith("cache:")]
    path = write("\n".join(lines))
    assert Policy.from_yaml(path, env={"CASCADE_CACHE_BYTES": "1MB"}).cache is None
    path = write("\n".join([*lines, "cache: {}"]))
    assert Policy.from_yaml(path, env={"CASCADE_CACHE_BYTES": "1MB"}).cache.bytes == 1_000_000


def test_enforce_needs_thresholds_or_a_certificate():
    tree = {"version": 1, "name": "p", "tiers": [{"name": n, "kind": "external"} for n in "ab"]}
    with pytest.raises(PolicyError, match="top_only or first_only"):
        Policy.from_dict(tree)
    assert Policy.from_dict({**tree, "mode": "top_only"}).points[0].thresholds == (2.0,)


def test_classes_may_differ_in_order_and_in_nothing_else():
    tiers = [{"name": "a", "kind": "external", "classes": ["y", "x"]}]
    tree = {"version": 1, "name": "p", "classes": ["x", "y"], "tiers": tiers}
    assert Policy.from_dict(tree).tiers[0].classes == ("y", "x")
    tiers[0]["classes"] = ["y", "z"]
    with pytest.raises(PolicyError, match="same set"):
        Policy.from_dict(tree)


def test_digests_change_with_what_they_stand_for(write):
    base = Policy.from_yaml(write(GOOD), env={})
    for change, answers in (
        (("20ms", "30ms"), False),
        (("64MB", "65MB"), False),
        (("name: digits", "name: other"), False),
        (("0.61", "0.62"), True),
        (("80%", "81%"), True),
        (("version: v3", "version: v4"), True),
        (("[no, yes]", "[yes, no]"), True),
    ):
        other = Policy.from_yaml(write(GOOD.replace(*change, 1)), env={})
        assert other.digest != base.digest
        assert (other.answer_digest != base.answer_digest) is answers, change


# -- the schema ------------------------------------------------------------------------------------

VALIDATOR = Draft7Validator(json_schema())
words = st.sampled_from(["20ms", "1s", "0s", "fast", 3, 0, -1, True, None, 0.5, "64MB", "60%", []])


@st.composite
def documents(draw):
    """Mostly good policies, with a few values replaced by others."""
    tree = {
        "version": 1, "name": "p", "deadline": "20ms",
        "tiers": [{"name": "a", "kind": "onnx", "model": "a.onnx", "threads": 2},
                  {"name": "b", "kind": "external", "version": "1"}],
        "escalation": {"thresholds": [0.5], "abstain_below": 0.1},
        "cache": {"entries": 5, "bytes": "1MB", "ttl": "1m"},
        "inputs": {"cast": "none"},
    }  # fmt: skip
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from([tree, tree["tiers"][0], tree["escalation"], tree["cache"]]))
        place[draw(st.sampled_from([*place, "other"]))] = draw(words)
        if not tree.get("tiers") or not isinstance(tree["tiers"], list):
            break
        if not all(isinstance(tree.get(key), dict) for key in ("escalation", "cache")):
            break
    return tree


@given(documents())
def test_what_the_loader_accepts_the_schema_accepts(tree):
    try:
        Policy.from_dict(tree)
    except PolicyError:
        return
    VALIDATOR.validate(tree)


def test_the_schema_rejects_what_it_can():
    Draft7Validator.check_schema(json_schema())
    good = Policy.from_dict(
        {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}]}
    ).to_dict()
    VALIDATOR.validate(good)
    for change in (
        {"dedline": 1}, {"version": 2}, {"deadline": -1}, {"deadline": "fast"}, {"mode": "watch"},
        {"tiers": []}, {"tiers": [{"name": "a", "kind": "onnx"}]}, {"name": None},
        {"load": {"brownout": "yes"}},
    ):  # fmt: skip
        assert not VALIDATOR.is_valid({**good, **change}), change


@given(st.binary(max_size=200))
def test_nothing_but_policy_errors_escapes(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "p.yaml"
    path.write_bytes(b"version: 1\n" + raw)
    with pytest.raises(PolicyError):
        Policy.from_yaml(path, env={})
    assert dump({"a": 1}) == "a: 1\n"
