"""The reader of policy files: the same in C and in Python, and the place of every value."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cascade import Policy, PolicyError
from cascade.policy import reading
from cascade.policy.reading import bare, parse

words = st.sampled_from(
    [
        "1", "-2", ".5", "1e-3", "1_000", "0x1F", "10.", "01", "9" * 30, "yes", "null", "a b",
        "a: b", "- a", "'q, r'", '"1"', "# no", "1 # c", "~", "<<", "&x 1", "*x", "!t 1",
        "? a", "{a: 1}", "[1, 2]", "", ".inf", "---", "a,b", "\u00e9", "x\n  y", "a#b", "1:30",
    ]
)  # fmt: skip


@st.composite
def documents(draw):
    found = draw(st.lists(words, max_size=8))
    if draw(st.booleans()):
        comma = draw(st.sampled_from([", ", " , ", ",\n  ", "\n  ,"]))
        end = draw(st.sampled_from(["]", " ]", "\n]", ",]", "", "}"]))
        return "a: [" + comma.join(found) + end + "\nb: 1"
    indent = " " * draw(st.integers(0, 3))
    end = draw(st.sampled_from(["", "\n", "\n b: 2", "\n# c\n", "\n\n- 5\n"]))
    body = "\n".join(f"{indent}- {x}" for x in found)
    return draw(st.sampled_from(["a:\n", "", "a: 1\nb:\n"])) + body + end


def outcome(text):
    try:
        return parse(text.encode(), "p.yaml")
    except PolicyError as error:
        return [issue.message.partition(":")[0] for issue in error.issues]


@given(documents())
@example("a:\n- 1\n- 2\n  3\n")
def test_without_the_parser_in_c_the_same_is_read(text):
    """Values, places and problems; where it is no YAML the two say so at places of their own."""
    with pytest.MonkeyPatch.context() as patch:
        fast = outcome(text)
        patch.setattr(reading, "loader", lambda: yaml.SafeLoader)
        slow = outcome(text)
    assert repr(fast) == repr(slow)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('a: "\\U00110000"', "1:7"),
        ('x: 1\na: "\\UFFFFFFFF"', "2:7"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "1:7"),
    ],
)
def test_nor_does_it_raise_anything_else(text, place, monkeypatch):
    monkeypatch.setattr(reading, "loader", lambda: yaml.SafeLoader)
    with pytest.raises(PolicyError, match=rf"p\.yaml:{place}: not YAML"):
        parse(text.encode(), "p.yaml")


@pytest.mark.parametrize(
    ("text", "place"), [("a:\nb: 1\n", (1, 3)), ("b: 1\na:", (2, 3)), ("b: 1\na:\n\n\n", (2, 3))]
)
def test_what_is_left_out_stands_where_it_is_missed(text, place):
    assert parse(text.encode(), "p.yaml")[1]["a",] == place


@pytest.mark.parametrize("sign", ["", "-", "+"])
def test_a_whole_number_has_twenty_digits_at_most(sign):
    assert bare(sign + "9" * 20) == int(sign + "9" * 20)
    assert bare("0.5" + "0" * 38) == 0.5
    for long in (sign + "9" * 21, "0.5" + "0" * 39):
        with pytest.raises(ValueError, match="digits"):
            bare(long)


@pytest.mark.parametrize(("count", "more"), [(1_500, ["499 more duplicate keys"]), (1_001, [])])
def test_a_mapping_tells_a_thousand_duplicate_keys_and_how_many_follow(tmp_path, count, more):
    path = tmp_path / "policy.yaml"
    path.write_text("load:\n" + "  a: 1\n" * count + "deadline: x\n")
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={})
    said = [(i.line, i.column, i.path, i.message) for i in caught.value.issues]
    assert [line for line, _, _, words in said if words == "duplicate key"] == list(range(3, 1_003))
    assert [words for *_, words in said if "more duplicate" in words] == more
    assert all((2, 3, "load", words) in said for words in more)
    assert {"deadline", "name", "load.a"} <= {path for _, _, path, _ in said}


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


@pytest.mark.parametrize("label", ["class {}", '"{}"', "'class {}'"])
def test_so_may_the_names_of_a_thousand_classes(label, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + "classes: [" + ", ".join(map(label.format, range(1_000))) + "]\n")
    assert Policy.from_yaml(path, env={}).classes[999] == label.strip("\"'").format(999)


def test_and_a_weight_for_each_of_thousands_of_names(tmp_path):
    path = tmp_path / "policy.yaml"
    weights = "".join(f"    f{i}: {i / 7:.3f}\n" for i in range(3_072))
    path.write_text(f"{HEAD}complexity:\n  weights:\n{weights}")
    assert Policy.from_yaml(path, env={}).complexity.weights["f3071"] == 438.714


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
