import attrs
import pytest
from ruamel.yaml import YAML

from cascade.optimize.policy_text import _flow, _wrapped, policy_text
from cascade.policy import (
    Certificate,
    ConfidenceSettings,
    Escalation,
    ExternalSpec,
    OnnxSpec,
    OutputSettings,
    Policy,
)
from cascade.policy.certificate import PathPoint
from cascade.policy.reading import parse


def read(text):
    return YAML(typ="safe").load(text)


@pytest.fixture
def certificate():
    strictest = PathPoint(
        thresholds=(2.0,), skip_above=(), losses=0, p_value=0.0, escalation=(0.0, 1.0), cost=None
    )
    return Certificate(
        max_loss=0.01,
        alpha=0.1,
        loss="gross",
        covers="adaptive",
        n=500,
        tiers=("small", "large"),
        path=(strictest, attrs.evolve(strictest, thresholds=(0.8,), p_value=0.0066)),
        certified=2,
        digests={},
        seed=0,
        fractions={},
        created="2026-01-01",
        versions={},
        note=None,
    )


@pytest.fixture
def policy():
    small = OnnxSpec(
        name="small",
        model="small.onnx",
        sha256="1e" * 32,
        outputs=OutputSettings(kind="probabilities", name="probabilities"),
        confidence=ConfidenceSettings(score="max_probability", temperature=0.61),
    )
    large = ExternalSpec(
        name="large",
        version="1e5",
        outputs=OutputSettings(kind="probabilities"),
        classes=("yes", "no"),
    )
    return Policy(
        version=1,
        name="p",
        tiers=(small, large),
        escalation=Escalation(certificate="certificate.json"),
        classes=("no", "yes"),
    )


def test_says_what_the_policy_says(policy, certificate):
    found = read(policy_text(policy, certificate, "demo", {}))
    assert (found["version"], found["name"]) == (1, "demo")
    assert found["classes"] == ["no", "yes"]
    small, large = found["tiers"]
    assert small == {
        "name": "small",
        "kind": "onnx",
        "model": "small.onnx",
        "sha256": "1e" * 32,
        "threads": 1,
        "outputs": {"kind": "probabilities", "name": "probabilities"},
        "confidence": {"score": "max_probability", "temperature": 0.61},
    }
    assert (large["kind"], large["version"], large["classes"]) == ("external", "1e5", ["yes", "no"])
    assert found["escalation"] == {"certificate": "certificate.json"}


def test_begins_with_the_modeline_and_the_promise(policy, certificate):
    lines = policy_text(policy, certificate, "demo", {}).splitlines()
    assert lines[0] == "# yaml-language-server: $schema=policy.schema.json"
    assert "# Promise: with confidence 0.9, at most 0.01 of the rows" in lines


def test_says_when_nothing_is_promised(policy, certificate):
    text = policy_text(policy, attrs.evolve(certificate, certified=1), "demo", {})
    assert "every request goes to the top tier" in text
    assert "Promise" not in text


@pytest.mark.parametrize(
    ("given", "written"), [(0.02, "20ms"), ("1s", "1s"), ("instant", "instant")]
)
def test_deadline(policy, certificate, given, written):
    text = policy_text(policy, certificate, "demo", {"deadline": given})
    assert f"\ndeadline: {written}\n" in text


def test_blocks_are_written_in_one_line(policy, certificate):
    text = policy_text(policy, certificate, "demo", {"cache": {"entries": 10, "ttl": "5m"}})
    assert "\ncache: {entries: 10, ttl: 5m}\n" in text


@pytest.mark.parametrize(
    "value",
    [
        "a",
        "no",
        "True",
        "null",
        "1e5",
        "12",
        "0x1f",
        "1.5",
        "5m",
        "a: b",
        "# x",
        "é\n",
        "",
        "-",
        1,
        2.5,
        1e-7,
        True,
        None,
    ],
)
def test_values_survive(value):
    found = read(f"key: {_flow(value)}")["key"]
    assert (found, type(found)) == (value, type(value))


def test_long_lists_are_broken_into_lines():
    labels = [f"label {index}" for index in range(100)]
    lines = _wrapped("classes", labels)
    assert max(map(len, lines)) <= 100
    assert len(lines) > 5
    assert read("\n".join(lines))["classes"] == labels


def test_labels_that_yaml_does_not_print_are_written_as_escapes(policy, certificate):
    odd = tuple(f"a{one}b" for one in "\x7f\x85\u2028\u2029\ufeff\ufffe\U0001f600é\x9f")
    tiers = [attrs.evolve(tier, classes=None) for tier in policy.tiers]
    text = policy_text(attrs.evolve(policy, tiers=tiers, classes=odd), certificate, "n", {})
    tree, _, issues = parse(text.encode(), "policy.yaml")
    assert (tuple(tree["classes"]), issues) == (odd, [])
    assert "\U0001f600" in text
