"""Lists that are read by the run are read as one by one: the same values, places and problems."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml.scanner import Scanner

from cascade import Policy, PolicyError
from cascade.policy import scanning
from cascade.policy.reading import parse

words = st.sampled_from(
    [
        "1", "-2", "+3", ".5", "1e-3", "1_000", "0x1F", "0o17", "10.", "-.5e3", "01", "9" * 30,
        "yes", "null", "a b", "a  b", "a -b", "- a", "a: b", "a:b", "a:", ":a", "'q, r'", '"1"',
        "# no", "1 # c", "~", "<<", "&x 1", "*x", "!t 1", "? a", "{a: 1}", "[1, 2]", "", ".inf",
        "---", "...", "a,b", "é", "x\n  y", "12345678", "word", "another word", "-", "a#b", "1:30",
    ]
)  # fmt: skip
plain = st.sampled_from(["1", "-2.5", "word", "two words", "1e-3", "12345678", "null", "9" * 30])
items = st.one_of(st.lists(plain, min_size=3, max_size=12), st.lists(words, max_size=8))


@st.composite
def lists(draw):
    found = draw(items)
    if draw(st.booleans()):
        comma = draw(st.sampled_from([", ", ",", " , ", ",\n  ", "\n  ,", ",\t"]))
        end = draw(st.sampled_from(["]", " ]", "\n]", ",]", "", "]]", "}"]))
        return (
            "a: [" + draw(st.sampled_from(["", " ", "\n  "])) + comma.join(found) + end + "\nb: 1"
        )
    indent = " " * draw(st.integers(0, 3))
    dash = draw(st.sampled_from(["- ", "-  ", "-\t", "-"]))
    end = draw(st.sampled_from(["", "\n", "  x\n", "\n b: 2", "\n# c\n", "  \n", "\n\n- 5\n"]))
    body = draw(st.sampled_from(["\n", "  \n", "\n\n", " # c\n"])).join(
        f"{indent}{dash}{x}" for x in found
    )
    return draw(st.sampled_from(["a:\n", "", "- \n", "a: 1\nb:\n"])) + body + end


def outcome(text):
    try:
        return parse(text.encode(), "p.yaml")
    except PolicyError as error:
        return error.issues


@given(lists())
@example("a: [12345678, 2, 3: 4]")
@example("a: [- 12345678, 2]")
@example("a: [? 12345678, 2]")
@example("a: {12345678, 2}")
@example("a: [12345678, 2\n  3, 4]")
@example("a:\n- 12345678\n- 2\n  3\n- 4\n")
@example("- 12345678\n- 2\n-3\n- 4\n")
@example("a: [12345678, 2, 3] # c\n")
@example("? [12345678, 2]\n: 1")
@example("[12345678, 2]: 1")
@example("a: [b: 12345678, 2, 3]")
@example("a: [[12345678, 2], [3, 12345678]]")
def test_a_run_is_what_its_items_are(text):
    with pytest.MonkeyPatch.context() as patch:
        fast = outcome(text)
        patch.setattr(scanning, "PolicyScanner", Scanner)
        slow = outcome(text)
    assert repr(fast) == repr(slow)


HEAD = "version: 1\nname: p\ntiers: [{name: a, kind: external}]\n"


@pytest.mark.parametrize(
    "weights",
    [
        "[" + ", ".join(["-0.0625"] * 3_072) + "]",
        "\n" + "    - 1.5e-3\n" * 3_072,
        "[\n" + "    0.25, 1.0,\n" * 1_536 + "  ]",
    ],
    ids=["in a line", "a line each", "some to a line"],
)
def test_weights_as_long_as_an_input_row_may_stand_in_a_policy(weights, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(f"{HEAD}complexity:\n  weights: {weights}\n")
    assert len(Policy.from_yaml(path, env={}).complexity.weights) == 3_072


def test_so_may_the_names_of_a_thousand_classes(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + "classes: [" + ", ".join(f"class {i}" for i in range(1_000)) + "]\n")
    assert Policy.from_yaml(path, env={}).classes[999] == "class 999"


def test_what_a_policy_writes_it_reads_again(tmp_path):
    tree = {
        "version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}],
        "complexity": {"weights": [i / 7 for i in range(3_072)]},
    }  # fmt: skip
    policy = Policy.from_dict(tree)
    path = tmp_path / "policy.yaml"
    path.write_text(policy.to_yaml())
    assert Policy.from_yaml(path, env={}).complexity.weights == policy.complexity.weights


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("a: [1, two, 3000]", [(1, 5), (1, 8), (1, 13)]),
        ("a: [1,\n  two, 3000]", [(1, 5), (2, 3), (2, 8)]),
        ("a:\n  - 1111\n  -  two\n  - 3000\n  - 4\n", [(2, 5), (3, 6), (4, 5), (5, 5)]),
    ],
)
def test_every_item_has_its_place(text, places):
    found = parse(text.encode(), "p.yaml")[1]
    assert [found["a", i] for i in range(len(places))] == places


def test_booleans_and_nothing_are_written_in_three_ways():
    text = b"[true, True, TRUE, false, False, FALSE, null, Null, NULL, ~, ]"
    assert parse(text, "p.yaml")[0] == [True] * 3 + [False] * 3 + [None] * 4


def test_exactly_64_kib_are_read_and_neighbours_are_no_depth(tmp_path):
    tiers = "".join(f"- {{name: t{i}, kind: external, confidence: {{}}}}\n" for i in range(30))
    text = f"version: 1\nname: p\nmode: top_only\ntiers:\n{tiers}#"
    path = tmp_path / "policy.yaml"
    path.write_text(text + "x" * (65_536 - len(text)))
    assert len(Policy.from_yaml(path, env={}).tiers) == 30
    path.write_text(text + "x" * (65_537 - len(text)))
    with pytest.raises(PolicyError, match="65537 bytes; expected at most 65536"):
        Policy.from_yaml(path, env={})
