from __future__ import annotations

import pytest
import yaml

from cascade.policy.places import Places

BLOCK = """\
# the digits
name: digits
tiers:
  - name: small
    kind: onnx
    model: small.onnx  # fitted on Monday

    threads: 1
  - kind: onnx
    model: "large.onnx"
    name: large
    sha256: 0000   # stale
"""


def _put(text: str, tier: int) -> str:
    return Places(text, "p.yaml").put(("tiers", tier), "sha256", "9c", after="model")


def test_a_new_key_goes_after_its_neighbour_and_all_else_stays() -> None:
    expected = BLOCK.replace("Monday\n", "Monday\n    sha256: 9c\n")
    assert _put(BLOCK, 0) == expected


def test_an_old_value_is_replaced_in_its_place() -> None:
    assert _put(BLOCK, 1) == BLOCK.replace("0000", "9c")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_are_kept(end: str) -> None:
    once = _put(BLOCK.replace("\n", end), 0)
    assert once == _put(BLOCK, 0).replace("\n", end)
    assert _put(once, 0) == once


def test_flow_style_and_a_last_line_without_end() -> None:
    assert _put("tiers: [{model: a.onnx, name: x}]", 0) == (
        "tiers: [{model: a.onnx, sha256: 9c, name: x}]"
    )
    assert _put("tiers:\n- name: x\n  model: a.onnx", 0) == (
        "tiers:\n- name: x\n  model: a.onnx\n  sha256: 9c"
    )


def test_characters_beyond_ascii_do_not_shift_the_place() -> None:
    text = BLOCK.replace("the digits", "les chiffres: 数字 🎲")
    assert _put(text, 1) == text.replace("0000", "9c")


@pytest.mark.parametrize("style", [BLOCK, "tiers: [{}, {model: a.onnx, sha256: 0000}]\n"])
def test_a_byte_order_mark_does_not_shift_the_place(style: str) -> None:
    assert _put("\ufeff" + style, 1) == "\ufeff" + style.replace("0000", "9c")


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="the parser in Python takes no tabs")
def test_tabs_that_a_policy_may_hold() -> None:
    tabbed = BLOCK.replace("name: digits", "name:\tdigits\t# ours\t").replace("Monday", "Monday\t")
    assert _put(tabbed, 1) == tabbed.replace("0000", "9c")
    assert Places(tabbed, "p.yaml").where(("name",)) == "p.yaml:2:7"


def test_a_neighbour_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        _put("tiers: [{name: x}]", 0)


def test_an_issue_is_placed_at_the_nearest_parent() -> None:
    places = Places(BLOCK, "p.yaml")
    assert str(places.issue(("tiers", 1, "model"), "gone")) == "p.yaml:10:12: tiers.1.model: gone"
    assert str(places.issue(("tiers", 1, "threads"), "no")) == "p.yaml:9:5: tiers.1.threads: no"
    assert str(places.issue(("cache", "ttl"), "no")) == "p.yaml:2:1: cache.ttl: no"


def test_an_empty_file_has_no_place() -> None:
    assert str(Places("", "p.yaml").issue(("tiers", 0), "gone")) == "p.yaml: tiers.0: gone"


COMMENTED = """\
escalation:  # ours
  thresholds:
    - 0.8  # by hand
  # below this: a person
  abstain_below: 0.2

# agreed with operations
cache: {entries: 10, ttl: 1h, }
"""


def test_a_key_takes_the_place_of_another_and_the_comments_around_it_stay() -> None:
    swapped = Places(COMMENTED, "").swap(("escalation",), "thresholds", "certificate", "c.json")
    assert swapped == COMMENTED.replace("thresholds:\n    - 0.8", "certificate: c.json")


@pytest.mark.parametrize(
    ("where", "key", "gone"),
    [
        ("escalation", "abstain_below", "  abstain_below: 0.2\n"),
        ("escalation", "thresholds", "  thresholds:\n    - 0.8  # by hand\n"),
        ("cache", "entries", "entries: 10, "),
        ("cache", "ttl", ", ttl: 1h"),
    ],
)
def test_a_key_is_dropped(where: str, key: str, gone: str) -> None:
    assert Places(COMMENTED, "").drop((where,), key) == COMMENTED.replace(gone, "")


@pytest.mark.parametrize(
    ("text", "empty"),
    [
        ("a: {b: 1, }  # c\n", "a: {}  # c\n"),
        ("a:\n  b: 1  # c\n\n# d\n", "a:\n  {}  # c\n\n# d\n"),
    ],
)
def test_a_mapping_may_be_left_empty(text: str, empty: str) -> None:
    assert Places(text, "").drop(("a",), "b") == empty


def test_a_block_is_replaced_up_to_its_last_word() -> None:
    text = "workers:\n  min: 1\n  max: 2\n\n# of the whole\nname: x\n"
    once = Places(text, "").put((), "workers", "3", after="name")
    assert once == "workers:\n  3\n\n# of the whole\nname: x\n"
