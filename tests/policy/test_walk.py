"""What is said of a value that is wrong, and where: each at its own place."""

import pytest

from cascade import Policy, PolicyError

TIERS = "tiers: [{name: a, kind: external}, {name: b, kind: external}]\n"
HEAD = "version: 1\nname: p\n" + TIERS + "escalation: {thresholds: [0.5]}\n"


@pytest.fixture
def told(tmp_path):
    """Return a function from a file's text to its problems, as (line, column, path, message)."""

    def told(text, env=None):
        path = tmp_path / "policy.yaml"
        path.write_text(text)
        with pytest.raises(PolicyError) as caught:
            Policy.from_yaml(path, env=env or {})
        return [(i.line, i.column, i.path, i.message) for i in caught.value.issues]

    return told


# -- numbers by name -------------------------------------------------------------------------------


def test_each_weight_that_is_no_number_has_a_place_of_its_own(told):
    found = told(HEAD + 'complexity:\n  weights: {length: "0.2",\n    words: yes, lines: .inf}\n')
    assert found == [
        (6, 21, "complexity.weights.length", "expected a number, got '0.2'"),
        (7, 12, "complexity.weights.words", "expected a number, got 'yes'"),
        (7, 24, "complexity.weights.lines", "expected a number, got inf"),
    ]


def test_so_has_each_of_a_list(told):
    found = told(HEAD + "complexity: {weights: [1, .nan, 2, no]}\n")
    assert found == [
        (5, 27, "complexity.weights.1", "expected a number, got nan"),
        (5, 36, "complexity.weights.3", "expected a number, got 'no'"),
    ]


@pytest.mark.parametrize(
    ("weights", "got"), [("{}", "an empty mapping"), ("[]", "an empty list"), ("x", "'x'")]
)
def test_weights_that_are_none_are_one_problem(told, weights, got):
    said = f"expected a list of one or more numbers, or numbers by feature name, got {got}"
    assert told(f"{HEAD}complexity: {{weights: {weights}}}\n") == [
        (5, 23, "complexity.weights", said)
    ]


def test_and_what_fills_up_an_input(told):
    tiers = TIERS.replace("external}", "external, batch: {max_size: 2, pad: {a: '0', b: 1}}}", 1)
    assert told(HEAD.replace(TIERS, tiers)) == [
        (3, 65, "tiers.0.batch.pad.a", "expected a number, got '0'")
    ]


def test_names_are_text_and_problems_in_a_mapping_are_told_up_to_a_thousand(told):
    tree = {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}]}
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(tree | {"complexity": {"weights": {1: 2, "a": True}}})
    assert [(i.path, i.message) for i in caught.value.issues] == [
        ("complexity.weights.1", "expected a name, got 1"),
        ("complexity.weights.a", "expected a number, got True"),
    ]
    weights = "".join(f"k{i}: x, " for i in range(1_500))
    found = told(f"{HEAD}complexity: {{weights: {{{weights}}}}}")
    assert len(found) == 1_001
    assert found[0][3].startswith("500 more values")
