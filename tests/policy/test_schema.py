"""The loader and the JSON Schema agree, as far as a schema can see."""

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from cascade import Policy, PolicyError
from cascade.policy.reading import parse
from cascade.policy.schema import json_schema
from cascade.strategies import policies
from tests.policy.junk import JUNK

VALIDATOR = Draft7Validator(json_schema())

WHOLE = {
    "version": 1,
    "name": "p",
    "revision": "r",
    "mode": "enforce",
    "deadline": "20ms",
    "max_deadline": 1.0,
    "profile": "p.json",
    "golden": "g.json",
    "tiers": [
        {
            "name": "a",
            "kind": "onnx",
            "model": "a.onnx",
            "sha256": "0" * 64,
            "threads": 1,
            "outputs": {"kind": "logits", "name": "y", "confidence": "c"},
            "confidence": {"score": "margin", "temperature": 0.5, "calibration": "c.json"},
            "classes": ["x", "y"],
            "execution": "auto",
            "workers": 1,
            "queue": 5,
            "batch": {"max_size": 8, "pad": {"ids": 0}},
            "breaker": {"rate": 0.5, "minimum": 20, "window": "10s", "pause": 5},
        },
        {
            "name": "b",
            "kind": "external",
            "version": "1",
            "outputs": "label",
            "confidence": "margin",
        },
    ],
    "escalation": {"thresholds": [0.5], "abstain_below": 0.1},
    "complexity": {"intercept": 0.5, "weights": [0.5], "skip_above": [0.5]},
    "inputs": {"cast": "none", "validate": "shape"},
    "prepare": {"version": "1"},
    "postprocess": {"version": "2"},
    "classes": ["x", "y"],
    "cache": {"entries": 5, "bytes": "1MB", "ttl": "1m", "digest": "auto"},
}


def places(tree, path=()):
    if path:
        yield path
    children = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in children:
        yield from places(value, (*path, key))


def put(tree, path, value):
    changed = copy.deepcopy(tree)
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return changed


def rejected_alone(tree, path):
    """Whether the loader rejects the value at this place for its own sake."""
    try:
        Policy.from_dict(tree)
    except PolicyError as error:
        named = ".".join(map(str, path))
        between = (
            "take",
            "twice",
            "one per tier",
            "at most max_deadline",
            "same set",
            "needs",
            "do not fall",
        )
        return any(
            (i.path + ".").startswith(named) and not any(word in i.message for word in between)
            for i in error.issues
        )
    return False


def beyond_a_schema(value):
    """Zero and enormous quantities in words, draft 7's whole numbers, and Python's own `$`."""
    return value in {"0s", "200%", "a\n"} if isinstance(value, str) else isinstance(value, float)


def test_the_schema_rejects_what_the_loader_rejects_and_nothing_else():
    Policy.from_dict(WHOLE, root=None)
    VALIDATOR.validate(WHOLE)
    compared = 0
    for path in places(WHOLE):
        for junk in JUNK:
            tree = put(WHOLE, path, junk)
            wrong, valid = rejected_alone(tree, path), VALIDATOR.is_valid(tree)
            compared += 1
            if wrong and not beyond_a_schema(junk):
                assert not valid, (path, junk)
            if not valid:
                with pytest.raises(PolicyError):
                    Policy.from_dict(tree)
    assert compared > 1_000


@pytest.mark.parametrize(
    ("classes", "sound"),
    [(["a", "b"], True), (["a", "a"], False), ([1, 1.0], False), ([1, True], True), (["a"], False)],
)
def test_labels_are_told_apart_alike_by_both(classes, sound):
    alone = {"name": "a", "kind": "external", "classes": classes}
    tree = {"version": 1, "name": "p", "tiers": [alone], "classes": classes}
    assert VALIDATOR.is_valid(tree) is sound
    if sound:
        assert list(Policy.from_dict(tree).classes) == classes
    else:
        with pytest.raises(
            PolicyError, match=r"\nclasses: expected a list of two or more different"
        ):
            Policy.from_dict(tree)


def test_a_key_too_many_or_too_few_is_seen_by_both():
    for path in [(), *places(WHOLE)]:
        inside = WHOLE
        for key in path:
            inside = inside[key]
        if not isinstance(inside, dict) or path[-1:] in {("pad",), ("weights",)}:
            continue
        odd = put(WHOLE, (*path, "odd"), 1)
        assert not VALIDATOR.is_valid(odd)
        with pytest.raises(PolicyError, match="unknown key"):
            Policy.from_dict(odd)
        for key in inside:
            less = put(WHOLE, path, {k: v for k, v in inside.items() if k != key}) if path else {
                k: v for k, v in WHOLE.items() if k != key}  # fmt: skip
            missing = False
            try:
                Policy.from_dict(less)
            except PolicyError as error:
                missing = "missing; expected" in str(error)
            assert VALIDATOR.is_valid(less) != missing, (path, key)


@settings(max_examples=20)
@given(policies(max_tiers=4))
def test_generated_policies_are_valid_by_the_schema_and_survive_a_file(policy):
    VALIDATOR.validate(policy.to_dict())
    tree, _, issues = parse(policy.to_yaml().encode(), "policy.yaml")
    assert not issues
    VALIDATOR.validate(tree)
    assert Policy.from_dict(tree) == policy


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_what_the_loader_accepts_the_schema_accepts(draw: random.Random):
    tree, every = WHOLE, list(places(WHOLE))
    for _ in range(draw.randrange(1, 4)):
        path = draw.choice(every)
        if draw.random() < 0.5:
            tree = put(tree, path, draw.choice(JUNK))
            every = list(places(tree))
    try:
        Policy.from_dict(tree)
    except PolicyError:
        return
    VALIDATOR.validate(tree)
